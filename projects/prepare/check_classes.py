"""Classes of a data set: equal in every split and in the model's heads, present in each; and crowd."""

from collections import Counter
from collections.abc import Sequence

from .findings import ERROR, NOTE, WARNING, Finding, ImageSet, with_boxes


def check_classes(sets: Sequence[ImageSet], heads: dict[str, int]) -> list[Finding]:
    """Compare the classes of all sets, their counts, and the heads.

    Args:
        sets: the labelled sets.
        heads: `num_classes` of each head of the model, by dotted key.
    """
    findings = []
    labelled = [s for s in sets if s.classes]
    for s in labelled[1:]:
        if s.classes != labelled[0].classes:
            findings.append(
                Finding(
                    ERROR,
                    'classes',
                    f'{s.name} has the classes {list(s.classes)}, {labelled[0].name} '
                    f'{list(labelled[0].classes)}',
                    'give every dataset the same metainfo.classes',
                )
            )
    for key, count in heads.items():
        if labelled and count != len(labelled[0].classes):
            findings.append(
                Finding(
                    ERROR,
                    'classes',
                    f'{key} is {count}, metainfo.classes has {len(labelled[0].classes)}',
                    f'set {key} = {len(labelled[0].classes)}',
                )
            )
    for s in labelled:
        if s.coco is None:
            continue
        counts = class_counts(s)
        missing = [name for name, (_, boxes) in counts.items() if boxes == 0]
        if missing:
            findings.append(
                Finding(
                    WARNING,
                    'classes',
                    f'{s.name}: no box of {", ".join(missing)}',
                    'split the parts so that every split shows every class',
                )
            )
        findings += _crowd(s)
        for what, count in s.coco['repairs'].items():
            if count:
                findings.append(Finding(NOTE, 'boxes', f'{s.name}: repaired while loading: {what}: {count}'))
    full = [s.name for s in labelled if len(with_boxes(s)) == len(s.records)]
    if full:
        findings.append(
            Finding(
                NOTE,
                'classes',
                f'every image of {", ".join(full)} has a box: false alarms on good parts cannot be measured',
                'add defect-free radiographs',
            )
        )
    return findings


def _crowd(s: ImageSet) -> list[Finding]:
    """Report the crowd of a labelled set, which is neither learnt nor counted."""
    names = {record['id']: path for record, path in zip(s.records, s.paths)}
    crowd = Counter(names[a['image_id']] for a in s.coco['annotations'] if a['iscrowd'])
    if not crowd:
        return []
    total = len(s.coco['annotations'])
    return [
        Finding(
            WARNING if 2 * crowd.total() > total else NOTE,
            'boxes',
            f'{s.name}: {crowd.total()} of {total} boxes are crowd (iscrowd), neither learnt nor counted',
            'set iscrowd to 0 where it is one object, and convert again',
            {path: f'{count} crowd' for path, count in crowd.items()},
        )
    ]


def class_counts(s: ImageSet) -> dict[str, tuple[int, int]]:
    """Return images and boxes per class of a labelled set, without crowd."""
    names = {category['id']: category['name'] for category in s.coco['categories']}
    counts = {}
    for category, name in names.items():
        rows = [
            a['image_id'] for a in s.coco['annotations'] if a['category_id'] == category and not a['iscrowd']
        ]
        counts[name] = len(set(rows)), len(rows)
    return counts
