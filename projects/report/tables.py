"""The tables of the report: rows with their cells as text."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from projects.measures.bounds import ClusteredRate
from projects.measures.detection import SIZES, FalseAlarms, Found
from projects.measures.false_calls import measure_false_calls
from projects.measures.flaws import ceiled, size_ratios
from projects.measures.images import CRITICAL
from projects.measures.matching import Matched
from projects.measures.parts import PartCurve, floored
from projects.radiograph.parts import recorded_part
from projects.runs.digests import read_json, read_starts

from .compare import Arm, Group
from .look_alikes import find_look_alikes
from .paper import label, percent, table_2, table_3
from .proof import no_parts
from .results import name_commit, trained_and_tested
from .verdict import describe

# Header of the cells of `_found`.
FOUND = ('defects', 'found', 'wrong severity', 'missed', 'recall')
# Columns that the page replaces by one line above the table if all rows agree.
FOLDED = ('group', 'threshold is', 'checks', 'commit', 'hardware', 'date', 'versions', 'commands')
# Columns of long text that the page shows below each row, so that the table fits its width.
BELOW = ('threshold is', 'checks', 'versions', 'commands')


def tables_of(groups: Sequence[Group], part_curves: dict[Path, PartCurve], latency: str) -> list[dict]:
    """Return the tables, some without rows: id (also the CSV's name), title, header, rows of text.

    The paper's tables are left out if all runs are on a user's own data, which these tables do not contain.
    """
    members = [(g, a, m) for g in groups for a in g.arms for m in a.members]
    detectors = [row for row in members if row[2].detection]
    paper = [dict(file='table_2', **table_2(groups)), dict(file='table_3', **table_3(groups))]
    return [
        dict(file='comparisons', **_comparisons(groups)),
        dict(file='differences', **_differences(groups)),
        *(paper if any(not group.dataset.startswith('own-') for group in groups) else []),
        dict(file='arms', **_arms(groups)),
        dict(file='probes', **_probes(groups)),
        dict(file='escapes', **_escapes(detectors)),
        dict(file='parts', **_parts(detectors)),
        dict(file='refused', **_refused(detectors)),
        dict(file='strata', **_strata(detectors)),
        dict(file='parts_curve', **_parts_curve(detectors, part_curves)),
        dict(file='false_alarms', **_false_alarms(detectors)),
        dict(file='pod', **_pod(detectors)),
        dict(file='sizing', **_sizing(detectors)),
        dict(file='types', **_types(detectors)),
        dict(file='sizes', **_sizes(detectors)),
        dict(file='latency', **_latency(latency)),
        dict(file='origin', **_origin(members)),
        dict(file='pretrainings', **_pretrainings(members)),
        dict(file='data', **_data(members)),
    ]


def folded(table: dict) -> dict:
    """Move columns out of a table: text common to all rows above the table, long texts below their rows.

    Returns:
        dict: The table with `shared`, the lines above it, and `below`, pairs of name and text for each row.
    """
    columns = list(zip(*table['rows'], strict=True))
    fold = [
        number
        for number, (name, cells) in enumerate(zip(table['header'], columns, strict=True))
        if name in FOLDED and len(set(cells)) == 1 and (len(cells) > 1 or len(cells[0]) > 40)
    ]

    below = [number for number, name in enumerate(table['header']) if name in BELOW and number not in fold]

    def rest(row):
        return [cell for number, cell in enumerate(row) if number not in [*fold, *below]]

    return dict(
        table,
        header=rest(table['header']),
        rows=[rest(row) for row in table['rows']],
        shared=[f'{table["header"][number]}: {columns[number][0]}' for number in fold if columns[number][0]],
        below=[[(table['header'][n], row[n]) for n in below if row[n]] for row in table['rows']],
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
            cells = [_count_pretrainings(c.candidate), c.measure, values[1], values[0], describe(c), interval]
            rows.append([group.name, pair, *cells])
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
    columns += ['segm_AP50', *_per_class('segm_AP50', groups), 'segm_AP']  # of masks
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
            unknown = ['–', '–', 'not estimable', '–', '–', '–', '–', no_parts(m)]
            rows.append([*_who(group, arm, m), _text(m.on_val), *unknown])
            continue
        at = m.parts.measures
        refused = at.refused if m.run.exported else '–'  # a checkpoint refuses nothing
        rates = [at.escape, at.caught_elsewhere, at.false_reject, at.minor_reject, refused]
        proof = m.parts.statement
        if m.parts.proven:
            proof += f' Copies in training or val: {find_look_alikes(m.run).note}.'
        cells = [floored(m.parts.threshold), m.parts_fixed, *map(str, rates), proof]
        rows.append([*_who(group, arm, m), _text(m.on_val), *cells])
    header = ['group', 'arm', 'seed', 'val AP50', 'threshold', 'threshold is']
    header += ['critical parts that escape (bound: of one model fixed beforehand)']
    header += ['caught by another detection alone', 'false reject', 'minor parts rejected']
    header += ['parts with a refused view', 'proof']
    return dict(title='Physical parts, each judged by its worst view', header=header, rows=rows)


def _refused(detectors) -> dict:
    rows = [
        [*_who(group, arm, m), image['file_name'], recorded_part(image) or '–', truth, reason]
        for group, arm, m in detectors
        for image, matched in zip(m.run.predictions.records(), m.matched, strict=True)
        if (reason := matched.image.refused) is not None
        for truth in [_worst(matched, m.run.predictions.classes)]
    ]
    title = 'Refused frames: not inspected, their parts go to an inspector and count against the detector'
    return dict(title=title, header=['group', 'arm', 'seed', 'file', 'part', 'truth', 'refused'], rows=rows)


def _worst(matched: Matched, classes: Sequence[str]) -> str:
    """Return the worst class annotated on an image."""
    labels = matched.image.truth_labels[~matched.image.ignored]
    return classes[labels.min()] if labels.size else 'defect-free' if matched.defect_free else 'ignored'


def _strata(detectors) -> dict:
    rows = [
        [
            *_who(group, arm, m),
            stratum.key.replace('_', ' '),
            stratum.value,
            str(stratum.images),
            _text(stratum.parts),
            str(stratum.escape),
            str(stratum.false_reject),
            str(stratum.defects),
            _text(stratum.recall),
        ]
        for group, arm, m in detectors
        for stratum in m.strata or ()
    ]
    header = ['group', 'arm', 'seed', 'by', 'stratum', 'images', 'parts']
    header += ['critical parts that escape', 'false reject', 'critical boxes', 'recall']
    title = 'By series, batch, part type and view, each by itself: the worst of several is partly chance'
    return dict(title=title, header=header, rows=rows)


def _parts_curve(detectors, part_curves) -> dict:
    """List the unrounded values of the charts of parts for every seed; too long for the page."""
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
        for label_number, (name, alarms) in enumerate(m.detection.false_alarms.items()):
            alarms: FalseAlarms
            free = alarms.per_defect_free_image
            calls = measure_false_calls(m.matched, m.threshold, label_number)
            rows.append(
                [
                    *_who(group, arm, m),
                    name,
                    _text(alarms.per_image),
                    _text(alarms.per_defective_image),
                    'not estimable' if free is None else _text(free),
                    _interval(calls.per_image)
                    + ('' if calls.parts_known else ', too narrow: parts not known'),
                    'not estimable' if calls.per_part is None else _text(calls.per_part.rate),
                    'not estimable' if calls.per_part is None else _interval(calls.per_part),
                    *(_text(v) for v in m.froc.false_alarms_at.values()),
                ]
            )
    header = ['group', 'arm', 'seed', 'class', 'per image', 'per defective image', 'per defect-free image']
    header += ['95 % interval, clustered by part', 'per sound part', '95 % interval']
    header += ['critical: at recall 0.8', 'at 0.9', 'at 0.95']
    return dict(title='False alarms per image and per sound part', header=header, rows=rows)


def _interval(rate: ClusteredRate) -> str:
    return 'none' if rate.low is None or rate.high is None else f'{rate.low:.3f} to {rate.high:.3f}'


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
                [
                    *_who(group, arm, m),
                    name,
                    f'{found} {pod.rows}',
                    *sizes,
                    bound,
                    pod.unit,
                    fit.model if fit.coefficients else '–',
                    *('–' if value is None else f'{value:.2g}' for value in (fit.asymptote, fit.goodness_p)),
                    calls,
                    '; '.join(fit.problems),
                ]
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
        'model',
        'levels off at',
        'p of fit',
        'false calls per image',
    ]
    return dict(title='Probability of detection by flaw size', header=[*header, 'checks'], rows=rows)


def _sizing(detectors) -> dict:
    """Compare the sizes of predicted masks with those of the annotated flaws, at the run's threshold."""
    rows = []
    for group, arm, m in detectors:
        for number, name in enumerate(m.run.predictions.classes):
            ratios = size_ratios(m.matched, m.threshold, number)
            if ratios.size:
                low, middle, high = np.quantile(ratios, (0.05, 0.5, 0.95))
                spread = f'{low:.2f} to {high:.2f}'
                rows.append([*_who(group, arm, m), name, str(ratios.size), f'{middle:.2f}', spread])
    header = ['group', 'arm', 'seed', 'class', 'flaws found', 'median', '5 % to 95 %']
    title = 'Equivalent diameter of the predicted mask over that of the annotated flaw'
    return dict(title=title, header=header, rows=rows)


def _found(f: Found) -> list[str]:
    """Return the cells of a count of found defects; FOUND is their header."""
    return [str(f.defects), str(f.found), str(f.wrong_severity), str(f.missed), _text(f.recall)]


def _types(detectors) -> dict:
    rows = [
        [
            *_who(group, arm, m),
            kind,
            *_found(f),
        ]
        for group, arm, m in detectors
        for kind, f in m.detection.by_type.items()
    ]
    header = ['group', 'arm', 'seed', 'type', *FOUND]
    return dict(title='Recall by defect type', header=header, rows=rows)


def _sizes(detectors) -> dict:
    rows = [
        [
            *_who(group, arm, m),
            name,
            size,
            *_found(f),
        ]
        for group, arm, m in detectors
        for name, sizes in m.detection.by_size.items()
        for size, f in sizes.items()
        if f.defects
    ]
    header = ['group', 'arm', 'seed', 'class', "COCO's size", *FOUND]
    return dict(title='Recall by size', header=header, rows=rows)


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
        start = pretraining_name(m.run.pretraining) if m.run.pretraining else '–'
        rows.append([*_who(group, arm, m), result['config'], start, *origin])
    header = ['group', 'arm', 'seed', 'config', 'pretraining', 'commit', 'hardware', 'date', 'versions']
    return dict(title='Where the numbers come from', header=[*header, 'commands'], rows=rows)


def _trained_on(starts, result=None) -> tuple[str, str]:
    """Name the commits and the machines of a training, and those of its test if they differ."""

    def name(record):
        return name_commit(record, changed=' with local changes')

    commit, machine = (name(result), str(result['hardware'])) if result else ('', '')
    machines = [str(start['hardware']) for start in starts]
    return trained_and_tested([*map(name, starts)], commit), trained_and_tested(machines, machine)


def _pretrainings(members) -> dict:
    rows = []
    for folder in dict.fromkeys(m.run.pretraining for _, _, m in members if m.run.pretraining):
        facts, starts = read_json(folder / 'run.json'), read_starts(folder)
        if not facts and not starts:  # weights from elsewhere
            continue
        last = starts[-1] if starts else {}
        lists = facts.get('labels_sha256') or last.get('labels_sha256', {})
        cells = [pretraining_name(folder), facts.get('seed', last.get('seed')), facts.get('config')]
        cells += [*_trained_on(starts), last.get('date', '')[:16]]
        cells += [', '.join(lists), ', '.join(lists.values()), facts.get('command')]
        rows.append([_text(None if cell == '' else cell) for cell in cells])
    header = ['pretraining', 'seed', 'config', 'commit', 'hardware', 'date', 'list of images', 'SHA-256']
    return dict(title='Pretrainings that runs start from', header=[*header, 'commands'], rows=rows)


def pretraining_name(folder: Path) -> str:
    """Name a pretraining by its config, and by its seed within a study."""
    return folder.name if not folder.name.startswith('seed') else f'{folder.parent.name}/{folder.name}'


def _data(members) -> dict:
    rows = set()
    for _, _, m in members:
        for split, predictions in (('test', m.run.predictions), ('val', m.run.val)):
            if predictions:
                rows.add((split, predictions.ann_file, str(len(predictions.parts())), predictions.sha256))
        files, _ = m.run.train_files()
        for file, sha256 in files.items():
            # The recorded number is that of all files together.
            images = m.run.facts.get('train_images') if len(files) == 1 else None
            rows.add(('train', file, _text(images), _text(sha256)))
    title = 'Data: annotation files and their SHA-256 when they were read'
    return dict(title=title, header=['split', 'file', 'images', 'SHA-256'], rows=[*map(list, sorted(rows))])
