"""One self-contained HTML page on a data set: findings, tables, charts, and a contact sheet, worst first."""

import base64
import html
import io
from collections import defaultdict
from pathlib import PurePosixPath

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from projects.radiograph.remote import name_in
from projects.radiograph.safe_parse import printable
from projects.xray.classes import PALETTE

TILES, PAIRS, NAMED = 48, 24, 40
"""Images on the contact sheet, pairs that resemble each other, and images named under one finding."""
# Okabe & Ito, apart from the colours of the classes.
SET_COLOURS = dict(train='#0072b2', val='#e69f00', test='#009e73', pretraining='#cc79a7', unlisted='#767676')

STYLE = """
:root { --ink: #1c2126; --soft: #59636e; --line: #d7dce1;
  --error: #b3261e; --warning: #9a6200; --note: #3d5a80 }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1240px; padding: 1.5rem 1.25rem 4rem; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.45rem; line-height: 1.25; margin: 0 0 .4rem }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line) }
p { margin: .3rem 0; max-width: 75ch } .soft { color: var(--soft) } .small { font-size: .875rem }
.verdict { display: flex; flex-wrap: wrap; gap: .5rem; margin: .8rem 0 }
.chip { border: 1px solid; border-radius: 99px; padding: .05rem .7rem; font-weight: 600; font-size: .9rem }
.error { color: var(--error) } .warning { color: var(--warning) } .note { color: var(--note) }
.findings { list-style: none; margin: 0; padding: 0; display: grid; gap: .9rem 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(480px, 100%), 1fr)) }
.findings > li { padding: .1rem 0 .1rem .9rem; border-left: 4px solid currentColor }
.findings > li > * { color: var(--ink) }
.findings .level { color: inherit; font-size: .8rem; font-weight: 700; text-transform: uppercase }
.remedy::before { content: 'Remedy: '; font-weight: 600 }
details { margin-top: .25rem } summary { cursor: pointer; color: var(--soft) }
details ul { margin: .3rem 0; padding-left: 1.2rem; columns: 22rem; font-size: .875rem }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .92rem }
th, td { padding: .3rem .8rem .3rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line) }
th:first-child, td:first-child, .text { text-align: left } th { font-weight: 600; vertical-align: bottom }
.charts { display: grid; gap: 1.6rem 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(480px, 100%), 1fr)) }
figure { margin: 0 } figcaption b { font-size: .8rem }
figcaption { font-size: .875rem; color: var(--soft); line-height: 1.35 }
.charts svg { width: 100%; max-width: 540px; height: auto; display: block }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(155px, 1fr)); gap: 1rem .8rem }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(330px, 100%), 1fr)); gap: 1.2rem }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 4px } .pair + figcaption { margin-top: .2rem }
.tile { display: block; width: 100%; aspect-ratio: 4 / 3; background: #eceff1 }
.none { display: grid; place-content: center; color: var(--error); font-weight: 600; font-size: .9rem }
b { font-weight: 600 }
"""


def render(report, findings, sets, scans, levels, boxes, anchors) -> str:
    """Return the page.

    Args:
        report: content of dataset.json.
        findings: list of `findings.Finding`, errors first.
        sets: list of `findings.ImageSet`.
        scans: `scan.Scans` of all images.
        levels: `check_window.GrayLevels` or None by set name.
        boxes: `anchors.Boxes` by set name.
        anchors: result of `anchors.check_anchors`, or None.
    """
    draw = _Drawer(sets, scans)
    name = PurePosixPath(report['config']).stem
    sheet, rule = _worst_first(findings, sets, scans)
    pairs = _pairs(findings)
    parts = [
        f'<h1>Data set of {_text(name)}</h1>',
        f'<p class="soft">{report["images"]} images, each decoded once, in {report["seconds"]} s</p>',
        _verdict(findings),
        _findings(findings, draw),
        '<h2>Contents</h2>',
        _sets_table(report),
        _class_table(report),
        _measured(report),
        '<h2>Gray levels and boxes</h2>',
        f'<div class="charts">{"".join(_charts(sets, levels, boxes, anchors))}</div>',
        '<h2>Contact sheet, worst first</h2>',
        f'<p class="soft small">{rule}</p>',
        '<div class="sheet">' + ''.join(draw.tile(path, notes) for path, notes in sheet) + '</div>',
    ]
    if pairs:
        parts += [
            '<h2>Images that resemble each other</h2>',
            '<p class="soft small">The first of each finding in turn. Copies and frames of one part belong '
            'on one side of a split; other parts of one design may look alike.</p>',
            '<div class="pairs">' + ''.join(draw.pair(*pair) for pair in pairs) + '</div>',
        ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>Data set of {_text(name)}</title><style>{STYLE}</style></head>\n<body>\n'
        + '\n'.join(parts)
        + '\n</body></html>\n'
    )


def _text(value) -> str:
    return html.escape(printable(str(value)))


# ---------------------------------------------------------------------------------------------- findings


def _verdict(findings) -> str:
    counts = {level: sum(f.level == level for f in findings) for level in ('error', 'warning', 'note')}
    chips = [
        f'<span class="chip {level}">{count} {level}{"" if count == 1 else "s"}</span>'
        for level, count in counts.items()
    ]
    return f'<div class="verdict">{"".join(chips)}</div>'


def _findings(findings, draw) -> str:
    rows = []
    for finding in findings:
        remedy = f'<p class="remedy">{_text(finding.remedy)}</p>' if finding.remedy else ''
        more = ''
        if finding.images:
            named = [
                f'<li>{_text(draw.name(path))}: {_text(note)}</li>'
                for path, note in list(finding.images.items())[:NAMED]
            ]
            rest = len(finding.images) - len(named)
            if rest:
                named.append(f'<li>… and {rest} more in dataset.json</li>')
            more = (
                f'<details><summary class="small">{len(finding.images)} '
                f'image{"" if len(finding.images) == 1 else "s"}</summary><ul>{"".join(named)}</ul></details>'
            )
        rows.append(
            f'<li class="{finding.level}"><span class="level">{finding.level} · {finding.topic}</span>'
            f'<p>{_text(_sentence(finding.text))}</p>{remedy}{more}</li>'
        )
    return f'<ul class="findings">{"".join(rows)}</ul>'


def _sentence(text: str) -> str:
    """Return a text with a capital first letter, unless it begins with a path."""
    return text if '/' in text.split()[0] else text[:1].upper() + text[1:]


def _worst_first(findings, sets, scans) -> tuple[list[tuple[str, list[str]]], str]:
    """Return images for the contact sheet: errors before warnings; findings take turns.

    Returns:
        (path, notes) of at most `TILES` images, and the rule in words.
    """
    notes = defaultdict(list)
    for finding in findings:
        for path, note in finding.images.items():
            notes[path].append(note)
    order = {}
    for level in ('error', 'warning', 'note'):
        lists = [list(f.images) for f in findings if f.level == level and f.images]
        turn = 0
        while len(order) < TILES and any(len(paths) > turn for paths in lists):
            for paths in lists:
                if turn < len(paths):
                    order.setdefault(paths[turn], level)
            turn += 1
    rule = 'Images of errors, then of warnings, then of notes; findings of one kind take turns.'
    if len(order) < TILES // 2:
        # Few images have findings: fill up with unusual images.
        good = [path for path in dict.fromkeys(p for s in sets for p in s.paths) if not scans[path].error]
        level = np.arange(256)
        mean = np.array([(h := scans.histogram(path)) @ level / h.sum() for path in good])
        usual = np.median(mean) if len(mean) else 0
        for i in np.argsort(-np.abs(mean - usual)):
            if len(order) < TILES // 2 and good[i] not in order:
                order[good[i]] = 'note'
                notes[good[i]].append(f'mean gray level {mean[i]:.0f}')
        rule += f' Then images farthest from the usual brightness ({usual:.0f}).'
    return [(path, notes[path]) for path in list(order)[:TILES]], rule


def _pairs(findings) -> list[tuple[str, str, str]]:
    """Return the pairs of all findings, one of each in turn."""
    lists = [finding.pairs for finding in findings if finding.pairs]
    turns = max(map(len, lists), default=0)
    return [pairs[i] for i in range(turns) for pairs in lists if i < len(pairs)][:PAIRS]


# ---------------------------------------------------------------------------------------------- pictures


class _Drawer:
    """Thumbnails with their boxes."""

    def __init__(self, sets, scans):
        """Keep the boxes by path."""
        self.scans = scans
        self.folders = sorted({s.folder for s in sets}, key=len, reverse=True)
        self.boxes = defaultdict(list)
        for s in sets:
            paths = dict(zip([record['id'] for record in s.records], s.paths))
            for annotation in (s.coco or {}).get('annotations', ()):
                colour = PALETTE[(annotation['category_id'] - 1) % len(PALETTE)]
                self.boxes[paths[annotation['image_id']]].append((annotation['bbox'], colour))

    def name(self, path: str) -> str:
        """The path relative to its image folder."""
        return next((name_in(f, path) for f in self.folders if path.startswith(f'{f}/')), path)

    def picture(self, path: str) -> str:
        """Return an SVG of the thumbnail in the coordinates of the file, with the boxes."""
        found = self.scans[path]
        if found.error:
            return '<span class="tile none">cannot be read</span>'
        data = base64.b64encode(self.scans.thumbnail(path)).decode()
        marks = ''.join(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" fill="none" stroke="rgb{colour}" '
            'stroke-width="1.5" vector-effect="non-scaling-stroke"/>'
            for (x, y, w, h), colour in self.boxes[path]
        )
        return (
            f'<svg class="tile" viewBox="0 0 {found.width} {found.height}" role="img" '
            f'aria-label="{_text(self.name(path))}"><image width="{found.width}" height="{found.height}" '
            f'preserveAspectRatio="none" href="data:image/jpeg;base64,{data}"/>{marks}</svg>'
        )

    def tile(self, path: str, notes: list[str]) -> str:
        """Return one image of the contact sheet."""
        words = ' · '.join(dict.fromkeys(notes[:3]))
        short = words if len(words) <= 120 else f'{words[:117]}…'
        return (
            f'<figure>{self.picture(path)}<figcaption><b>{_name(self.name(path))}</b><br>{_text(short)}'
            '</figcaption></figure>'
        )

    def pair(self, left: str, right: str, words: str) -> str:
        """Return two images side by side."""
        return (
            f'<figure><div class="pair">{self.picture(left)}{self.picture(right)}</div>'
            f'<figcaption><b>{_name(self.name(left))} · {_name(self.name(right))}</b><br>{_text(words)}'
            '</figcaption></figure>'
        )


def _name(path: str) -> str:
    """Return a file name that may break after a folder."""
    return _text(path).replace('/', '/<wbr>')


# ------------------------------------------------------------------------------------------------ tables


def _table(header, rows) -> str:
    kind = [' class="text"' if name == 'from' else '' for name in header]
    head = ''.join(f'<th{k}>{_text(cell)}</th>' for k, cell in zip(kind, header))
    body = ''.join(
        '<tr>' + ''.join(f'<td{k}>{_text(cell)}</td>' for k, cell in zip(kind, row)) + '</tr>' for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _sets_table(report) -> str:
    def spread(row, key):
        return ' / '.join(f'{v:.0f}' for v in row[key]) if key in row else '–'

    return _table(
        ('set', 'images', 'boxes', 'without box', 'mean', 'std', 'box px in file', 'box px at input', 'from'),
        [
            (
                row['name'],
                row['images'],
                row.get('boxes', '–'),
                without_boxes(row, '–'),
                row.get('mean', '–'),
                row.get('std', '–'),
                spread(row, 'box_px_native'),
                spread(row, 'box_px_input'),
                row['source'],
            )
            for row in report['sets']
        ],
    ) + (
        '<p class="soft small">Box px: 5 % / median / 95 % of the square root of the area, in the file and '
        'after the resize of the config. Mean and standard deviation: gray levels 0 to 255 after windowing.'
        '</p>'
    )


def without_boxes(row: dict, missing: str) -> str:
    """Return the number of images of a set without a box, and their share."""
    if 'without_boxes' not in row:
        return missing
    return f'{row["without_boxes"]} ({row["without_boxes"] / max(row["images"], 1):.0%})'


def _class_table(report) -> str:
    rows = [row for row in report['sets'] if row.get('classes')]
    names = dict.fromkeys(name for row in rows for name in row['classes'])
    if not names:
        return ''
    return _table(
        ('class', *(f'{row["name"]}: boxes (images)' for row in rows)),
        [
            (
                name,
                *(
                    f'{c["boxes"]} ({c["images"]})' if (c := row['classes'].get(name)) else '–'
                    for row in rows
                ),
            )
            for name in names
        ],
    )


def _measured(report) -> str:
    lines = []
    if report['suggested']:
        s = report['suggested']
        line = f'Measured on {_text(report["sets"][0]["name"])}: mean {s["mean"]}, std {s["std"]}'
        if s['window']:
            window = ', '.join(f'{key}={value!r}' for key, value in s['window'].items())
            line += f'; 99 % of the pixel values lie in <code>dict({_text(window)})</code>'
        lines.append(f'{line}.')
    if report['anchors']:
        a = report['anchors']
        lines.append(
            f'Anchor scales {a["scales"]} cover {a["share_50"]:.0%} of the boxes with IoU ≥ 0.5 and '
            f'{a["share_70"]:.0%} with IoU ≥ 0.7; of the scales tried, {a["better_scales"]} fit best with '
            f'{a["better_50"]:.0%} and {a["better_70"]:.0%}.'
        )
    return '<p></p>' + ''.join(f'<p>{line}</p>' for line in lines)


# ------------------------------------------------------------------------------------------------ charts


def _charts(sets, levels, boxes, anchors) -> list[str]:
    charts = [_gray_chart(sets, levels)]
    if boxes:
        charts += [_size_chart(boxes), _shape_chart(boxes)]
    if anchors:
        charts.append(_anchor_chart(anchors))
    return charts


def _figure(caption: str, paint) -> str:
    """Return an inline SVG chart; `paint` draws on the axes."""
    # Text stays text: small, searchable, and in the font of the page.
    with matplotlib.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': 'xray', 'font.size': 11}):
        figure = Figure(figsize=(4.6, 3.1), layout='constrained', dpi=110)
        axes = figure.add_subplot()
        axes.spines[['top', 'right']].set_visible(False)
        axes.grid(axis='y', alpha=0.25)
        paint(axes)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=10)
        stream = io.StringIO()
        figure.savefig(stream, format='svg', metadata=dict(Date=None))
    svg = stream.getvalue()
    return f'<figure>{svg[svg.index("<svg") :]}<figcaption>{caption}</figcaption></figure>'


def _gray_chart(sets, levels) -> str:
    def paint(axes):
        for s in sets:
            found = levels[s.name]
            if found is not None:
                share = found.histogram / found.histogram.sum() * 100
                # Bins of four levels: single levels are spiky if the file has fewer than 256 levels.
                axes.step(
                    np.arange(2, 256, 4),
                    share.reshape(-1, 4).sum(1),
                    where='mid',
                    lw=1.4,
                    color=SET_COLOURS[s.side],
                    label=s.name,
                )
        axes.set(xlabel='gray level after windowing', ylabel='% of pixels', yscale='symlog', ylim=(0, 100))
        axes.set_yticks([0, 1, 10, 100], ['0', '1', '10', '100'])

    return _figure(
        'Gray levels that the model sees. Sets that differ were exposed or windowed differently.', paint
    )


def _size_chart(boxes) -> str:
    def paint(axes):
        sides = {name: np.sqrt(b.scaled[:, 2] * b.scaled[:, 3]) for name, b in boxes.items()}
        every = np.concatenate(list(sides.values()))
        edges = np.geomspace(every.min() * 0.95, every.max() * 1.05, 30)
        for name, side in sides.items():
            count = np.histogram(side, edges)[0] / len(side) * 100
            axes.stairs(count, edges, color=SET_COLOURS[name.split()[0]], label=name, lw=1.4)
        axes.axvline(8, color='#b3261e', lw=1, ls=':')
        axes.set(xscale='log', xlabel='√area at the input, px', ylabel='% of boxes')
        ticks = [t for t in 2.0 ** np.arange(-6, 14) if edges[0] <= t <= edges[-1]]
        axes.set_xticks(ticks, [f'{t:g}' for t in ticks])
        axes.minorticks_off()

    return _figure(
        'Box sizes after the resize of the config. Below 8 px (dotted) little is left to find.', paint
    )


def _shape_chart(boxes) -> str:
    def paint(axes):
        rng = np.random.default_rng(0)
        for name, found in boxes.items():
            rows = rng.permutation(len(found.scaled))[:3000]
            axes.scatter(
                found.scaled[rows, 2],
                found.scaled[rows, 3],
                s=7,
                alpha=0.45,
                lw=0,
                color=SET_COLOURS[name.split()[0]],
                label=name,
                rasterized=True,
            )
        axes.set(xscale='log', yscale='log', xlabel='width at the input, px', ylabel='height, px')
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(matplotlib.ticker.LogLocator(base=4, subs=[1]))
            axis.set_major_formatter('{x:.0f}')
            axis.set_minor_locator(matplotlib.ticker.NullLocator())
        low, high = max(axes.get_xlim()[0], axes.get_ylim()[0]), min(axes.get_xlim()[1], axes.get_ylim()[1])
        axes.plot((low, high), (low, high), color='#59636e', lw=0.8)

    return _figure('Width and height of the boxes. Far from the diagonal, anchor ratios matter.', paint)


def _anchor_chart(anchors) -> str:
    def paint(axes):
        iou = np.sort(anchors['iou'])
        axes.plot(iou, 100 * (1 - np.arange(len(iou)) / len(iou)), color=SET_COLOURS['train'], lw=1.6)
        for mark in (0.5, 0.7):
            axes.axvline(mark, color='#59636e', lw=1, ls=':')
        axes.set(
            xlabel='IoU of the best anchor, at least', ylabel='% of train boxes', xlim=(0.2, 1), ylim=(0, 102)
        )

    return _figure(
        f'Anchor fit of scales {anchors["scales"]}. Boxes with a best IoU below 0.5 are hardly learnt; '
        '0.7 is certainly positive.',
        paint,
    )
