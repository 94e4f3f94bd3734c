"""The source paper's Tables 2 and 3 in their own form, with our measurements beside the paper's numbers.

Intxausti et al., Appl. Sci. 2024, 14(7), 2785. None stands for a number that the project may not quote.
"""

import math
from collections.abc import Sequence

from projects.measures.comparison import summarise_seeds

from .compare import Arm, Group

# Backbone, start of the weights, and the paper's numbers in percent.
TABLE_2 = (
    ('resnet50', 'in1k', (72.5, 68.4)),
    ('resnet50', 'simsiam', (75.9, 71.2)),
    ('swin-base', 'in1k', (87.9, 82.2)),
    ('swin-base', 'simmim', (None, None)),
)
TABLE_3 = (
    ('r50', 'in1k', (None, None, None)),
    ('r50', 'simsiam', (89.6, 94.8, 96.0)),
    ('swin-base', 'in1k', (91.3, None, None)),
    ('swin-base', 'simmim', (91.3, 95.5, 94.6)),
)
GDXRAY = {'gdxray-a': 'GDXray A', 'gdxray-b': 'GDXray B'}
NOT_RUN = 'not run here'


def table_2(groups: Sequence[Group]) -> dict:
    """Linear classification of critical and minor images: title, header, rows of text."""
    header = ['backbone', 'weights', 'paper AP', 'AP', 'paper accuracy', 'accuracy', 'balanced accuracy']
    columns = ('mAP', 'accuracy', 'balanced_accuracy')
    placed, others = _place(groups, 'severity', TABLE_2, ['industrial'])
    rows = []
    for backbone, init, (ap, accuracy) in TABLE_2:
        arm = placed.get((backbone, init, 'industrial'))
        ours = [percent(arm, column) if arm else NOT_RUN for column in columns]
        rows.append([backbone, init, _quoted(ap), ours[0], _quoted(accuracy), *ours[1:]])
    for group, arm in others:
        ours = [percent(arm, column) for column in columns]
        rows.append([_named(group, groups, group.dataset), label(arm), '', ours[0], '', *ours[1:]])
    return dict(title='Table 2: linear evaluation, image level, in percent', header=header, rows=rows)


def table_3(groups: Sequence[Group]) -> dict:
    """Faster R-CNN on the industrial radiographs and on GDXray: title, header, rows of text."""
    header = ['backbone', 'weights']
    for dataset in ('industrial mAP', 'industrial AP critical', 'GDXray A'):
        header += [f'paper {dataset}', dataset]
    header += ['GDXray B']
    placed, others = _place(groups, 'detection', TABLE_3, ['industrial', *GDXRAY])
    if any(group.dataset not in ('industrial', *GDXRAY) for group, _ in others):
        header += ['other data mAP', 'other data AP critical']
    rows = []
    for backbone, init, quoted in TABLE_3:
        row = [backbone, init]
        industrial = placed.get((backbone, init, 'industrial'))
        for number, column in enumerate(('AP50', 'AP50_critical')):
            row += [_quoted(quoted[number]), percent(industrial, column) if industrial else NOT_RUN]
        for dataset in GDXRAY:
            arm = placed.get((backbone, init, dataset))
            row += [_quoted(quoted[2])] if dataset == 'gdxray-a' else []
            row.append(percent(arm, 'AP50') if arm else NOT_RUN)
        rows.append(row + [''] * (len(header) - len(row)))
    for group, arm in others:
        data = [] if group.dataset in ('industrial', *GDXRAY) else [group.dataset]
        row = dict.fromkeys(header, '') | dict(backbone=_named(group, groups, *data), weights=label(arm))
        if group.dataset in GDXRAY:
            row[GDXRAY[group.dataset]] = percent(arm, 'AP50')
        else:
            where = 'other data' if data else 'industrial'
            row[f'{where} mAP'] = percent(arm, 'AP50')
            row[f'{where} AP critical'] = percent(arm, 'AP50_critical')
        rows.append(list(row.values()))
    title = 'Table 3: Faster R-CNN, AP at IoU 0.5 in percent (the paper does not state its IoU)'
    return dict(title=title, header=header, rows=rows)


def label(arm: Arm) -> str:
    """Return the name of an arm, with its share of the labels unless that is 100 %."""
    return arm.name + (f', {arm.fraction} % of labels' if arm.fraction != 100 else '')


def percent(arm: Arm, metric: str) -> str:
    """Return mean ± standard deviation over the seeds, in percent."""
    values = [m.run.result['metrics'].get(metric) for m in arm.members]
    values = [100 * value for value in values if value is not None and math.isfinite(value)]
    if not values:
        return '–'
    seeds = summarise_seeds(values)
    return f'{seeds.mean:.1f}' + ('' if seeds.std is None else f' ± {seeds.std:.1f}')


def _quoted(value: float | None) -> str:
    return '–' if value is None else f'{value:.1f}'


def _place(groups, task, table, datasets) -> tuple[dict[tuple[str, str, str], Arm], list[tuple[Group, Arm]]]:
    """Find the arms of a table; for each backbone and data set, in the recipe with most of these arms.

    Returns:
        Arms by backbone, start and data set; and the other arms, each with its group.
    """
    groups = [group for group in groups if group.task == task]
    rows = [(backbone, init) for backbone, init, _ in table]
    best = {}
    for group in groups:
        arms = [arm for arm in group.arms if arm.fraction == 100 and (group.backbone, arm.name) in rows]
        key = (group.backbone, group.dataset)
        if group.dataset in datasets and len(arms) > len(best.get(key, [])):
            best[key] = arms
    placed = {
        (backbone, arm.name, dataset): arm for (backbone, dataset), arms in best.items() for arm in arms
    }
    there = {id(arm) for arm in placed.values()}
    return placed, [(group, arm) for group in groups for arm in group.arms if id(arm) not in there]


def _named(group, groups, *words) -> str:
    """Name a group by its backbone and further words, with its recipe if there are several recipes."""
    alike = [(g.task, g.dataset, g.backbone) for g in groups]
    if alike.count((group.task, group.dataset, group.backbone)) > 1:
        words = (*words, group.recipe)
    return (group.backbone or group.name) + (f' ({", ".join(words)})' if words else '')
