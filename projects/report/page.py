"""The report of a comparison: one HTML page that opens from disk, report.json and CSV tables."""

import csv
import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import jinja2

from projects.measures.detection import SIZES, FalseAlarms, Found
from projects.measures.flaws import ceiled
from projects.measures.images import CRITICAL
from projects.measures.parts import PartCurve, floored, gather_parts, part_curve
from projects.xray.configs import differences
from projects.xray.digests import read_json, read_starts

from . import gallery
from .charts import charts_of, pretraining_charts, seed_of
from .compare import Arm, Contrast, Group, gather
from .measured import Measured, Settings
from .paper import label, percent, table_2, table_3
from .results import name_commit, trained_and_tested
from .runs import Run, read_curves, train_files
from .verdict import describe, verdict

# Columns that the page folds away when all rows agree.
FOLDED = ('group', 'threshold is', 'proof', 'checks', 'commit', 'hardware', 'date', 'versions', 'commands')
CHUNK = 200  # pictures in a file beside the page: about a megabyte at most


def write_report(
    out: Path,
    runs: Sequence[Run],
    left_out: Sequence[str],
    settings: Settings,
    items: int = 500,
    command: str = '',
    latency: str = '',
) -> dict:
    """Measure, compare and write everything.

    Args:
        out: Folder, made when it is not there; `index.html`, `report.json`, `*.csv` and `pictures/` go there.
        runs: From `read_runs`.
        left_out: Lines for the runs that are not in it.
        settings: What to prove.
        items: Most pictures in the page; those of further escapes go to `pictures/`. 0: no pictures at all.
            The tables list all.
        command: What wrote the report.
        latency: What `tools/benchmark.py infer` printed.

    Returns:
        dict: The content of report.json.
    """
    groups = gather(runs, settings)
    found = gallery.collect(groups)
    escapes = sum(item.kind in gallery.ESCAPES for item in found)
    # What the page cannot hold of the escapes lies beside it.
    records, unreadable = gallery.thumbnails(gallery.choose(found, max(items, escapes) if items else 0))
    records, beside = records[:items], records[items:]
    part_curves = _part_curves(groups, settings)
    everything = _tables(groups, part_curves, latency)
    tables = [table for table in everything if table['rows']]
    sentences = verdict(groups)
    pretraining = _pretraining(runs)
    problems = [p for run in runs for p in run.curves.problems] + [
        p for _, c in pretraining for p in c.problems
    ]
    summary = dict(
        verdict=sentences,
        settings=dataclasses.asdict(settings),
        left_out=list(left_out),
        problems=[*problems, *unreadable],
        runs=[_run_record(m, part_curves) for g in groups for a in g.arms for m in a.members],
        comparisons=[_contrast_record(g, c) for g in groups for c in g.contrasts],
        pictures=dict(in_page=len(records), beside=len(beside)),
        command=command,
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / 'report.json').write_text(json.dumps(_plain(summary), indent=1, allow_nan=False) + '\n')
    for table in everything:
        file = out / f'{table["file"]}.csv'
        if table['rows']:
            _write_csv(file, table['header'], table['rows'])
        else:
            file.unlink(missing_ok=True)  # of an earlier report, of other runs
    columns = ('kind', 'group', 'arm', 'seed', 'fraction', 'file', 'part', 'type', 'size', 'score')
    _write_csv(
        out / 'escapes_and_false_alarms.csv',
        [*columns, 'x1', 'y1', 'x2', 'y2'],
        [[*(getattr(item, c) for c in columns), *item.box] for item in found],
    )
    chunks = _write_chunks(out / 'pictures', beside)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template('page.html.j2').render(
        verdict=sentences,
        groups=[
            dict(group=group, charts=charts_of(group, part_curves), matrices=_matrices(group))
            for group in groups
        ],
        tables=[_folded(table) for table in tables],
        pretraining=pretraining_charts(pretraining),
        pretrainings=[name for name, _ in pretraining],
        items=_script(records),
        choices=_script(_choices([*records, *beside])),
        chunks=_script(chunks),
        shown=len(records),
        beside=len(beside),
        escapes=escapes,
        alarms=len(found) - escapes,
        thumbnail=gallery.THUMBNAIL,
        left_out=left_out,
        problems=summary['problems'],
        notes=[f'{m.run.name}: {n}' for g in groups for a in g.arms for m in a.members for n in m.notes],
        diffs=[diff for group in groups for diff in _diffs(group)],
        command=command,
    )
    (out / 'index.html').write_text(page)
    return summary


def _script(value) -> str:
    """Return JSON that may stand inside a script element."""
    return json.dumps(value, separators=(',', ':')).replace('<', '\\u003c')


def _choices(records: Sequence[dict]) -> dict[str, list[str]]:
    """Return what the filters of the gallery offer, of the pictures beside the page too."""
    return {
        key: sorted({str(record[key]) for record in records})
        for key in ('kind', 'group', 'arm', 'type', 'part')
    }


def _write_chunks(folder: Path, records: Sequence[dict]) -> list[dict]:
    """Write pictures as scripts, which a page loads from disk without a server, as it cannot load JSON.

    Returns:
        File and number of pictures of each. The name carries a digest of the content: a page never takes the
        pictures of another report for its own.
    """
    for stale in folder.glob('pictures-*.js'):
        stale.unlink()
    chunks = []
    for start in range(0, len(records), CHUNK):
        part = records[start : start + CHUNK]
        script = f'addPictures({_script(part)});\n'
        name = f'pictures-{hashlib.sha256(script.encode()).hexdigest()[:16]}.js'
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(script)
        chunks.append(dict(file=f'{folder.name}/{name}', pictures=len(part)))
    return chunks


def _plain(value):
    """Make JSON of dataclasses, and null of what is not finite."""
    if dataclasses.is_dataclass(value):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _write_csv(path: Path, header, rows) -> None:
    with path.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _part_curves(groups: Sequence[Group], settings: Settings) -> dict[Path, PartCurve]:
    """Return escape and false-reject rate over the threshold of each run whose parts are known, by folder."""
    return {
        m.run.folder: part_curve(
            gather_parts(m.matched, settings.reject_minor), also=[0, m.parts.threshold, 1]
        )
        for group in groups
        for arm in group.arms
        for m in arm.members
        if m.parts
    }


def _run_record(measured: Measured, part_curves) -> dict:
    run = measured.run
    return dict(
        run=run.name,
        arm=run.arm,
        dataset=run.dataset,
        backbone=run.backbone,
        fraction=run.fraction,
        seed=run.seed,
        pretraining=run.weights,
        **{k: run.result.get(k) for k in ('config', 'checkpoint', 'commit', 'hardware', 'date', 'versions')},
        metrics=run.result['metrics'],
        threshold=measured.threshold,
        threshold_fixed=measured.fixed,
        on_val=measured.on_val,
        chosen_on_val=measured.chosen,
        detection=measured.detection,
        recall_by_rule=measured.recalls,
        froc=measured.froc,
        parts=measured.parts,
        parts_threshold_fixed=measured.parts_fixed,
        part_curve=part_curves.get(run.folder),
        pod=measured.pods,
        confusion=measured.confusion,
        calibration=measured.calibration,
        notes=measured.notes,
        data=dict(test=run.predictions.ann_file, sha256=run.predictions.sha256),
    )


def _contrast_record(group: Group, contrast: Contrast) -> dict:
    return dict(
        group=group.name,
        fraction=contrast.candidate.fraction,
        measure=contrast.measure,
        baseline=contrast.baseline.name,
        candidate=contrast.candidate.name,
        pretrainings=dict(baseline=contrast.baseline.pretrainings, candidate=contrast.candidate.pretrainings),
        parts=contrast.parts,
        seeds=contrast.seeds,
        reason=contrast.reason,
        words=describe(contrast),
    )


# -------------------------------------------------------------------------------------------- the tables


def _tables(groups: Sequence[Group], part_curves: dict[Path, PartCurve], latency: str) -> list[dict]:
    """Return the tables, some without rows: id (also the CSV's name), title, header, rows of text."""
    members = [(g, a, m) for g in groups for a in g.arms for m in a.members]
    detectors = [row for row in members if row[2].detection]
    return [
        dict(file='comparisons', **_comparisons(groups)),
        dict(file='differences', **_differences(groups)),
        dict(file='table_2', **table_2(groups)),
        dict(file='table_3', **table_3(groups)),
        dict(file='arms', **_arms(groups)),
        dict(file='probes', **_probes(groups)),
        dict(file='escapes', **_escapes(detectors)),
        dict(file='parts', **_parts(detectors)),
        dict(file='parts_curve', **_parts_curve(detectors, part_curves)),
        dict(file='false_alarms', **_false_alarms(detectors)),
        dict(file='pod', **_pod(detectors)),
        dict(file='types', **_types(detectors)),
        dict(file='sizes', **_sizes(detectors)),
        dict(file='latency', **_latency(latency)),
        dict(file='origin', **_origin(members)),
        dict(file='pretrainings', **_pretrainings(members)),
        dict(file='data', **_data(members)),
    ]


def _folded(table: dict) -> dict:
    """Take the columns of words that say the same in every row out of a table, into lines above it."""
    columns = list(zip(*table['rows'], strict=True))
    fold = [
        number
        for number, (name, cells) in enumerate(zip(table['header'], columns, strict=True))
        if name in FOLDED and len(set(cells)) == 1 and (len(cells) > 1 or len(cells[0]) > 40)
    ]

    def rest(row):
        return [cell for number, cell in enumerate(row) if number not in fold]

    return dict(
        table,
        header=rest(table['header']),
        rows=[rest(row) for row in table['rows']],
        shared=[f'{table["header"][number]}: {columns[number][0]}' for number in fold if columns[number][0]],
    )


def _who(group, arm, measured) -> list[str]:
    return [group.name, label(arm), _text(measured.run.seed)]


def _text(value) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return '–'
    return f'{value:.3f}' if isinstance(value, float) else str(value)


def _comparisons(groups) -> dict:
    rows = []
    for group in groups:
        for c in group.contrasts:
            seeds = c.seeds
            interval = seeds.reason if seeds.low is None else f'{seeds.low:+.3f} to {seeds.high:+.3f}'
            interval += ', by pretraining' if seeds.low is not None and c.by_pretraining else ''
            values = [f'{s.mean:.3f}' for s in (seeds.baseline, seeds.candidate)]
            pair = f'{label(c.candidate)} against {c.baseline.name}'
            said = [_count_pretrainings(c.candidate), c.measure, values[1], values[0], describe(c), interval]
            rows.append([group.name, pair, *said])
    header = ['group', 'arms', 'pretrainings', 'measure', 'arm', 'baseline', 'over test parts']
    header += ['over seeds (Welch)']
    return dict(title='Comparisons with the baseline, on the same images', header=header, rows=rows)


def _count_pretrainings(arm: Arm) -> str:
    return 'unknown' if arm.pretrainings is None else str(arm.pretrainings or '–')


def _differences(groups) -> dict:
    rows = [
        [group.name, f'{label(c.candidate)} against {c.baseline.name}', c.measure, unit, f'{difference:+.3f}']
        for group in groups
        for c in group.contrasts
        for unit, difference in (c.parts.per_unit if c.parts else {}).items()
    ]
    title = 'Differences per part, where there are too few for an interval'
    return dict(title=title, header=['group', 'arms', 'measure', 'part', 'difference'], rows=rows)


def _arms(groups) -> dict:
    groups = [group for group in groups if group.task == 'detection']
    columns = ['AP50', *_per_class('AP50', groups), 'AP', *(f'AP_{size}' for size in SIZES)]
    without = {key for metrics in _metrics(groups) for key in metrics if key.startswith('AP50_without_')}
    title = 'All detectors, in percent: mean ± standard deviation over seeds'
    return _spread(title, groups, [*columns, *sorted(without)])


def _probes(groups) -> dict:
    groups = [group for group in groups if group.task == 'severity']
    columns = ['mAP', *_per_class('AP', groups), 'accuracy', 'balanced_accuracy']
    columns += [*_per_class('recall', groups), 'ece']
    return _spread('All probes, in percent: mean ± standard deviation over seeds', groups, columns)


def _spread(title, groups, columns) -> dict:
    present = [column for column in columns if any(column in metrics for metrics in _metrics(groups))]
    rows = [
        [
            group.name,
            label(arm),
            str(len(arm.members)),
            _count_pretrainings(arm),
            *(percent(arm, column) for column in present),
        ]
        for group in groups
        for arm in group.arms
    ]
    return dict(title=title, header=['group', 'arm', 'seeds', 'pretrainings', *present], rows=rows)


def _metrics(groups) -> list[dict]:
    return [m.run.result['metrics'] for group in groups for arm in group.arms for m in arm.members]


def _per_class(measure, groups) -> list[str]:
    classes = [name for g in groups for a in g.arms for m in a.members for name in m.run.predictions.classes]
    return [f'{measure}_{name}' for name in dict.fromkeys(classes)]


def _escapes(detectors) -> dict:
    rows = []
    for group, arm, m in detectors:
        critical: Found = m.detection.by_severity[m.run.predictions.classes[CRITICAL]]
        rows.append(
            [
                *_who(group, arm, m),
                floored(m.threshold),
                m.fixed,
                f'{m.detection.escapes} of {critical.defects}',
                str(critical.missed),
                str(critical.wrong_severity),
                *(_text(m.recalls[rule]) for rule in ('either', 'iou', 'centre')),
                *(_text(value) for value in m.froc.recall_at.values()),
            ]
        )
    header = ['group', 'arm', 'seed', 'threshold', 'threshold is', 'escapes', 'missed', 'wrong severity']
    header += ['recall', 'recall by IoU ≥ 0.3', 'recall by centre']
    header += ['recall at 0.1 FA/image', 'at 0.5', 'at 1']
    return dict(title='Escapes: critical boxes missed or called minor', header=header, rows=rows)


def _parts(detectors) -> dict:
    rows = []
    for group, arm, m in detectors:
        if m.parts is None:
            reason = next((n for n in m.notes if n.startswith('parts')), '–')
            rows.append(
                [*_who(group, arm, m), _text(m.on_val), '–', '–', 'not estimable', '–', '–', '–', reason]
            )
            continue
        at = m.parts.measures
        rates = [at.escape, at.caught_elsewhere, at.false_reject, at.minor_reject]
        said = [floored(m.parts.threshold), m.parts_fixed, *map(str, rates), m.parts.statement]
        rows.append([*_who(group, arm, m), _text(m.on_val), *said])
    header = ['group', 'arm', 'seed', 'val AP50', 'threshold', 'threshold is']
    header += ['critical parts that escape (bound: of one model fixed beforehand)']
    header += ['caught by another detection alone', 'false reject', 'minor parts rejected', 'proof']
    return dict(title='Physical parts, each judged by its worst view', header=header, rows=rows)


def _parts_curve(detectors, part_curves) -> dict:
    """List what the charts of parts draw, of every seed, unrounded; too long for the page."""
    rows = []
    for group, arm, m in detectors:
        curve = part_curves.get(m.run.folder)
        if curve is None:
            continue
        rates = [curve.escape, curve.escape_upper, curve.false_reject, curve.false_reject_upper]
        for k, threshold in enumerate(curve.thresholds):
            escape, at_most, reject, reject_at_most = (
                'not estimable' if values is None else str(values[k]) for values in rates
            )
            rows.append(
                [
                    *_who(group, arm, m),
                    str(threshold),
                    'yes' if threshold == m.parts.threshold else '',
                    *(str(curve.critical), str(curve.escapes[k]), escape, at_most),
                    *(str(curve.defect_free), str(curve.rejects[k]), reject, reject_at_most),
                ]
            )
    header = ['group', 'arm', 'seed', 'threshold', 'operating point']
    header += ['critical parts', 'escape', 'escape rate', 'escape rate at most']
    header += ['defect-free parts', 'rejected', 'false-reject rate', 'false-reject rate at most']
    return dict(title='Parts over the threshold', header=header, rows=rows)


def _false_alarms(detectors) -> dict:
    rows = []
    for group, arm, m in detectors:
        for name, alarms in m.detection.false_alarms.items():
            alarms: FalseAlarms
            free = alarms.per_defect_free_image
            rows.append(
                [
                    *_who(group, arm, m),
                    name,
                    _text(alarms.per_image),
                    _text(alarms.per_defective_image),
                    'not estimable' if free is None else _text(free),
                    *(_text(v) for v in m.froc.false_alarms_at.values()),
                ]
            )
    header = ['group', 'arm', 'seed', 'class', 'per image', 'per defective image', 'per defect-free image']
    header += ['critical: at recall 0.8', 'at 0.9', 'at 0.95']
    return dict(title='False alarms per image', header=header, rows=rows)


def _pod(detectors) -> dict:
    rows = []
    for group, arm, m in detectors:
        for name, pod in m.pods.items():
            fit = pod.fit
            sizes = ['–' if size is None else f'{size:.3g}' for size in (fit.a50, fit.a90)]
            bound = '–' if fit.a90_95 is None else ceiled(fit.a90_95)
            calls = _text(pod.false_calls.per_image)
            found = f'{fit.hits} of {fit.flaws}'
            rows.append(
                [*_who(group, arm, m), name, found, *sizes, bound, pod.unit, calls, '; '.join(fit.problems)]
            )
    header = [
        'group',
        'arm',
        'seed',
        'class',
        'found',
        'a50',
        'a90',
        'a90/95',
        'unit',
        'false calls per image',
    ]
    return dict(title='Probability of detection by flaw size', header=[*header, 'checks'], rows=rows)


def _types(detectors) -> dict:
    rows = [
        [
            *_who(group, arm, m),
            kind,
            str(f.defects),
            str(f.found),
            str(f.wrong_severity),
            str(f.missed),
            _text(f.recall),
        ]
        for group, arm, m in detectors
        for kind, f in m.detection.by_type.items()
    ]
    header = ['group', 'arm', 'seed', 'type', 'defects', 'found', 'wrong severity', 'missed', 'recall']
    return dict(title='Recall by defect type', header=header, rows=rows)


def _sizes(detectors) -> dict:
    rows = [
        [
            *_who(group, arm, m),
            name,
            size,
            str(f.defects),
            str(f.found),
            str(f.wrong_severity),
            str(f.missed),
            _text(f.recall),
        ]
        for group, arm, m in detectors
        for name, sizes in m.detection.by_size.items()
        for size, f in sizes.items()
        if f.defects
    ]
    header = ['group', 'arm', 'seed', 'class', "COCO's size", 'defects', 'found', 'wrong severity', 'missed']
    return dict(title='Recall by size', header=[*header, 'recall'], rows=rows)


def _latency(printed: str) -> dict:
    """Read the Markdown table that `tools/benchmark.py infer` prints."""
    lines = [line.strip() for line in printed.splitlines() if line.strip().startswith('|')]
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    header, *rows = [row for row in cells if not set(''.join(row)) <= set('-: ')] or [[]]
    return dict(title='Latency', header=header, rows=[row for row in rows if len(row) == len(header)])


def _origin(members) -> dict:
    rows = []
    for group, arm, m in members:
        result, facts, starts = m.run.result, m.run.facts, read_starts(m.run.folder)
        versions = ', '.join(f'{k} {v}' for k, v in (result.get('versions') or {}).items())
        commands = '; '.join(c for c in (facts.get('command'), result.get('command')) if c)
        commit, hardware = _trained_on(starts, result)
        origin = [commit, hardware, str(result['date'])[:16], versions, commands]
        start = _pretraining_name(m.run.pretraining) if m.run.pretraining else '–'
        rows.append([*_who(group, arm, m), result['config'], start, *origin])
    header = ['group', 'arm', 'seed', 'config', 'pretraining', 'commit', 'hardware', 'date', 'versions']
    return dict(title='Where the numbers come from', header=[*header, 'commands'], rows=rows)


def _trained_on(starts, result=None) -> tuple[str, str]:
    """Name the commits and the machines of a training, and those of its test where they are others."""

    def name(said):
        return name_commit(said, changed=' with local changes')

    commit, machine = (name(result), str(result['hardware'])) if result else ('', '')
    machines = [str(start['hardware']) for start in starts]
    return trained_and_tested([*map(name, starts)], commit), trained_and_tested(machines, machine)


def _pretrainings(members) -> dict:
    rows = []
    for folder in dict.fromkeys(m.run.pretraining for _, _, m in members if m.run.pretraining):
        facts, starts = read_json(folder / 'run.json'), read_starts(folder)
        if not facts and not starts:  # weights that came from elsewhere
            continue
        last = starts[-1] if starts else {}
        lists = facts.get('labels_sha256') or last.get('labels_sha256', {})
        cells = [_pretraining_name(folder), facts.get('seed', last.get('seed')), facts.get('config')]
        cells += [*_trained_on(starts), last.get('date', '')[:16]]
        cells += [', '.join(lists), ', '.join(lists.values()), facts.get('command')]
        rows.append([_text(None if cell == '' else cell) for cell in cells])
    header = ['pretraining', 'seed', 'config', 'commit', 'hardware', 'date', 'list of images', 'SHA-256']
    return dict(title='Pretrainings that runs start from', header=[*header, 'commands'], rows=rows)


def _pretraining_name(folder: Path) -> str:
    return folder.name if not folder.name.startswith('seed') else f'{folder.parent.name}/{folder.name}'


def _data(members) -> dict:
    rows = set()
    for _, _, m in members:
        for split, said in (('test', m.run.predictions), ('val', m.run.val)):
            if said:
                rows.add((split, said.ann_file, str(len(said.parts())), said.sha256))
        files = train_files(m.run)
        for file, sha256 in files.items():
            images = m.run.facts.get('train_images') if len(files) == 1 else None  # recorded of all together
            rows.add(('train', file, _text(images), _text(sha256)))
    title = 'Data: annotation files and their SHA-256 when they were read'
    return dict(title=title, header=['split', 'file', 'images', 'SHA-256'], rows=[*map(list, sorted(rows))])


# ---------------------------------------------------------------------------------- confusion, diffs, curves


def _matrices(group: Group) -> list[dict]:
    """Return the confusion of the first seed of each arm: title, header, rows."""
    matrices = []
    for arm in group.arms:
        measured = arm.members[0]
        classes = measured.run.predictions.classes
        if measured.confusion:
            header = ['truth', *(f'called {name}' for name in classes)]
            rows = [[name, *map(str, row)] for name, row in zip(classes, measured.confusion)]
        else:
            header = ['truth', 'found', *(['called another'] if len(classes) > 1 else []), 'missed']
            rows = []
            for name, f in measured.detection.by_severity.items():
                wrong = [str(f.wrong_severity)] if len(classes) > 1 else []
                rows.append([name, str(f.found), *wrong, str(f.missed)])
        title = label(arm) + seed_of([measured])
        matrices.append(dict(title=title, header=header, rows=rows))
    return matrices


def _diffs(group: Group) -> list[dict]:
    """Return the differences of the configs of every pair of arms."""
    firsts = {arm.name: arm.members[0].run for arm in group.arms[::-1]}
    pairs = itertools.combinations(sorted((n, r) for n, r in firsts.items() if r.config), 2)
    return [
        dict(
            title=f'{group.name}: {a} and {b}',
            header=['key', a, b],
            rows=[
                [key, repr(x), repr(y)] for key, (x, y) in differences(first.config, second.config).items()
            ],
        )
        for (a, first), (b, second) in pairs
    ]


def _pretraining(runs: Sequence[Run]) -> list[tuple[str, object]]:
    folders = dict.fromkeys(run.pretraining for run in runs if run.pretraining)
    return [(_pretraining_name(folder), read_curves(folder)) for folder in folders]
