"""The check of a data set as text for a terminal."""

import textwrap
from collections.abc import Sequence

from projects.radiograph.remote import name_in
from projects.radiograph.safe_parse import printable

from .findings import Finding
from .page import without_boxes

SHOWN = 6
"""Maximum number of images named per finding; dataset.json and the page name more."""


def format_report(report: dict, findings: Sequence[Finding]) -> str:
    """Return the report as lines of at most 100 columns."""

    lines = [f'{report["config"]}', f'{report["images"]} images decoded in {report["seconds"]} s', '']
    header = ('set', 'images', 'boxes', 'no box', 'mean', 'std', 'box px at input: 5 % / median / 95 %')
    lines.append('{:<12} {:>8} {:>8} {:>11} {:>7} {:>7}  {}'.format(*header))
    for row in report['sets']:
        px = row.get('box_px_input')
        lines.append(
            '{:<12} {:>8} {:>8} {:>11} {:>7} {:>7}  {}'.format(
                row['name'],
                row['images'],
                row.get('boxes', '-'),
                without_boxes(row, '-'),
                row.get('mean', '-'),
                row.get('std', '-'),
                ' / '.join(f'{v:.0f}' for v in px) if px else '-',
            )
        )
    classes = dict.fromkeys(name for row in report['sets'] for name in row.get('classes', ()))
    if classes:
        lines += ['', f'{"class":<20}' + ''.join(f'{row["name"]:>16}' for row in report['sets'])]
        for name in classes:
            cells = [row.get('classes', {}).get(name) for row in report['sets']]
            shown = [f'{c["boxes"]} in {c["images"]}' if c else '-' for c in cells]
            lines.append(f'{name:<20}' + ''.join(f'{cell:>16}' for cell in shown))
    if report['anchors']:
        a = report['anchors']
        lines += [
            '',
            f'anchors: scales {a["scales"]} cover {a["share_50"]:.0%} of the boxes with IoU >= 0.5, '
            f'{a["share_70"]:.0%} with >= 0.7',
        ]
    if report['suggested']:
        s = report['suggested']
        window = f'; 0.5 to 99.5 % of pixels: {s["window"]}' if s['window'] else ''
        lines.append(f'measured: mean {s["mean"]}, std {s["std"]}{window}')
    lines += ['', format_findings(findings, [row['folder'] for row in report['sets']])]
    return '\n'.join(lines)


def format_findings(findings: Sequence[Finding], folders: Sequence[str]) -> str:
    """Return the findings as lines of at most 100 columns; images are named relative to their folder."""

    lines = []
    folders = sorted(set(folders), key=len, reverse=True)

    def name_of(path: str) -> str:
        return next((name_in(f, path) for f in folders if path.startswith(f'{f}/')), path)

    for finding in findings:
        head = f'{finding.level.upper():<8} {finding.topic:<8} '
        lines += textwrap.wrap(finding.text, 100, initial_indent=head, subsequent_indent=' ' * len(head))
        limit = 0 if finding.level == 'note' else SHOWN if len(finding.images) <= SHOWN else SHOWN // 2
        shown = list(finding.images.items())[:limit]
        lines += [f'{"":18}- {name_of(path)}: {note}' for path, note in shown]
        if len(shown) < len(finding.images) and shown:
            lines[-1] += f' … and {len(finding.images) - len(shown)} more'
        if finding.remedy:
            indent = ' ' * 18
            lines += textwrap.wrap(
                f'remedy: {finding.remedy}', 100, initial_indent=indent, subsequent_indent=indent
            )
    counts = {level: sum(f.level == level for f in findings) for level in ('error', 'warning', 'note')}
    lines += ['', ', '.join(f'{count} {level}{"" if count == 1 else "s"}' for level, count in counts.items())]
    return '\n'.join(map(printable, lines))
