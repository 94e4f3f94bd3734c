"""Check the data set of a config before training: files, boxes, classes, leaks, window, anchors.

Every image is decoded once, in parallel. Prints a table and writes dataset.json and dataset.html (contact
sheet worst first, histograms, box sizes). Of a detector or probe that starts from pretrained weights, the
images they were pretrained on are compared with the test split; of a pretraining config, the test splits of
the configs that start from it.
"""

import argparse
import json
import os
import sys
import textwrap
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

REPO = Path(__file__).resolve().parents[1]
LABELLED = ('train', 'val', 'test')
# Images named in the terminal for each finding; dataset.json and the page name more.
SHOWN = 6


def parse_args(argv=None):
    """Read the command line; exits 2 on wrong use."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='exit status: 0 no error (warnings may be), 1 errors found, 2 wrong use\n\nexample:\n  python '
        'tools/check_dataset.py configs/faster_rcnn/faster-rcnn_r50-in1k-pre_fpn_4xb4-6x_gdxray-b.py',
    )
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--out', type=Path, metavar='DIR', help='where to write; default: work_dirs/<config stem>'
    )
    parser.add_argument(
        '--workers', type=int, default=len(os.sched_getaffinity(0)), metavar='N', help='processes (all cores)'
    )
    parser.add_argument('--cfg-options', nargs='+', metavar='K=V', help='override config values')
    args = parser.parse_args(argv)
    if not 1 <= args.workers <= 256:
        parser.error(f'--workers {args.workers}: expected a number from 1 to 256')
    return args


def main(argv=None):
    """Run the tool; returns the exit code."""
    args = parse_args(argv)
    # The libraries take seconds to import: --help and wrong use do not wait for them.
    from projects.xray import running

    return running.one_line_errors(lambda _: check(args, running))(argv)


def check(args, running):
    """Examine the data set of a config, print the report and write it."""
    from projects.prepare import checks
    from projects.prepare import page as dataset_page

    cfg = running.read_experiment(args.config, args.cfg_options)
    running.set_work_dir(cfg, args.out and str(args.out))
    report, findings, evidence = examine(cfg, args.config, args.workers, args.cfg_options)
    out = Path(cfg.work_dir)
    out.mkdir(parents=True, exist_ok=True)
    (out / 'dataset.json').write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')
    page = dataset_page.render(report, findings, **evidence)
    (out / 'dataset.html').write_text(page, encoding='utf-8')
    print(format_report(report, findings))
    print(f'\nwritten: {out / "dataset.json"}, {out / "dataset.html"}')
    return 1 if any(finding.level == checks.ERROR for finding in findings) else 0


def examine(cfg, config_path, workers, options=()):
    """Gather the image sets of a config, probe every image and judge.

    Args:
        cfg: the config.
        config_path: its file.
        workers: processes.
        options: its `--cfg-options`, of which the window counts for related configs too.

    Returns:
        The report as dataset.json holds it, the findings, and what the page draws.
    """
    from projects.prepare import anchors as box_checks
    from projects.prepare import checks, leaks, scan

    window = [option for option in options or () if option.startswith('xray_load.')]
    sets, findings = read_sets(cfg, config_path, window)
    start = time.perf_counter()
    tasks = {path: s.window for s in reversed(sets) for path in s.paths}
    with progress_bar(len(tasks)) as bar:
        probes = scan.Probes(tasks, workers, bar.update)
    seconds = time.perf_counter() - start

    labelled = [s for s in sets if s.classes]
    levels = {s.name: checks.gray_levels(s.paths, probes) for s in sets}
    boxes = {s.name: found for s in labelled if (found := box_checks.boxes_at_input(s)) is not None}
    findings += checks.check_files(sets, probes)
    findings += checks.check_boxes(labelled) + checks.check_dominance(labelled) + checks.check_ledgers(sets)
    findings += checks.check_parts(labelled)
    findings += checks.check_classes(labelled, heads(cfg.model))
    findings += checks.check_windows([s for s in sets if s.side != 'unlisted'], levels)
    findings += leaks.check_leaks(sets, probes, workers)
    anchors = None
    train = next((s for s in labelled if s.name == 'train' and s.name in boxes), None)
    if train:
        findings += box_checks.check_box_size(train, boxes['train'])
        anchors, more = fit_anchors(cfg.model, boxes['train'])
        findings += more
    findings.sort(key=lambda f: (checks.LEVELS.index(f.level), checks.TOPICS.index(f.topic)))
    report = dict(
        config=config_path,
        images=len(tasks),
        seconds=round(seconds, 2),
        sets=[describe(s, levels[s.name], boxes.get(s.name), checks) for s in sets],
        anchors=anchors and {k: v for k, v in anchors.items() if k != 'iou'},
        suggested=suggestion(levels[sets[0].name], checks) if sets else None,
        findings=[vars(finding) for finding in findings],
    )
    return report, findings, dict(sets=sets, probes=probes, levels=levels, boxes=boxes, anchors=anchors)


# ---------------------------------------------------------------------------------------------- reading


def read_sets(cfg, config_path, options=()):
    """Return the image sets that a config and its relations name, and what is wrong with their lists.

    The first is the training set of the config: 'train', or 'pretraining' where nothing is labelled.

    Args:
        cfg: the config.
        config_path: its file.
        options: `--cfg-options` for the configs that are related to it.
    """
    from projects.prepare import checks
    from projects.radiograph import remote
    from projects.xray.digests import data_sets

    sets, findings = [], []
    for split in LABELLED:
        for data in data_sets(cfg, f'{split}_dataloader'):
            name = split if data['type'] != 'XrayImages' else 'pretraining'
            add_set(sets, findings, name, data, cfg, missing=checks.ERROR)
    if any(s.side == 'pretraining' for s in sets):
        related, splits = configs_from(Path(config_path).stem), ('test',)
    else:
        related, splits = pretraining_configs(cfg), ('train',)
    others = []  # what a pretraining need not be checked against is listed all the same
    for path in related:
        other = read_quietly(path, options)
        for split in LABELLED:
            for data in data_sets(other, f'{split}_dataloader'):
                # Not to have them here, such as labels before there are any, is no fault of this config.
                name = 'pretraining' if split == 'train' else split
                into, said = (sets, findings) if split in splits else (others, [])
                add_set(into, said, name, data, other, missing=checks.NOTE)
    listed = {path for s in [*sets, *others] for path in s.paths}
    for folder in dict.fromkeys(s.folder for s in sets if s.classes):
        names = [name for name in files_below(folder) if remote.join(folder, name) not in listed]
        if names:
            window = next(s.window for s in sets if s.folder == folder)
            before = sum(s.side == 'unlisted' for s in sets)
            name = f'unlisted {before + 1}' if before else 'unlisted'
            sets.append(checks.ImageSet(name, folder, folder, names, window=window))
            findings.append(
                checks.Finding(checks.NOTE, 'files', f'{folder}: {len(names)} images that no list names')
            )
    return sets, findings


def add_set(sets, findings, name, data, cfg, missing):
    """Read one dataset config and append it to `sets`, unless it is there already.

    Args:
        sets: list to append to.
        findings: list for what is wrong with the annotation file or the list of images.
        name: of the set.
        data: dataset config.
        cfg: the config that holds it.
        missing: level of a finding when the set or its boxes cannot be read.
    """
    from mmengine.registry import DATASETS, DefaultScope

    from projects.prepare import checks
    from projects.radiograph import remote
    from projects.radiograph.image import ImagingError
    from projects.xray import datasets

    kind = data['type']
    if kind not in ('XrayDefects', 'XraySeverity', 'XrayImages'):
        raise datasets.DatasetError(
            f'{name}: dataset type {kind}, expected XrayDefects, XraySeverity or XrayImages; convert the '
            'data with tools/convert_dataset.py'
        )
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        dataset = DATASETS.build({**data, 'lazy_init': True, 'pipeline': []})
    pipeline = [dict(step) for step in data.get('pipeline') or []]
    window = next((s.get('window') for s in pipeline if s['type'] == 'LoadXray'), None)
    common = dict(window=dict(window or dict(type='full')), pipeline=pipeline)
    prefix = dataset.data_prefix
    folder = str(prefix.get('img_path') or prefix.get('img') or '').rstrip('/')
    source = str(dataset.ann_file or folder)
    if any(s.source == source for s in sets):
        return
    before = sum(s.side == name for s in sets)
    name = f'{name} {before + 1}' if before else name
    try:
        if kind == 'XrayImages':
            with datasets.quiet():
                rows = dataset.load_data_list()
            names = [remote.name_in(folder, row['img_path']) for row in rows]
            sets.append(checks.ImageSet(name, source, folder, names, **common))
            return
        raw = datasets.read_coco(source)
        classes = tuple(dataset.metainfo['classes'])
        coco = None
        try:
            coco = datasets.load_defects(source, classes, dataset.severity)
        except datasets.DatasetError as error:
            findings.append(checks.Finding(missing, 'boxes', *split_remedy(str(error))))
        records = [r for r in raw['images'] if _usable(r)]
        sets.append(
            checks.ImageSet(
                name,
                source,
                folder,
                [record['file_name'] for record in records],
                records,
                [a for a in raw['annotations'] if isinstance(a.get('image_id'), int)],
                classes,
                raw['info'] if isinstance(raw.get('info'), dict) else {},
                coco,
                **common,
            )
        )
    except (datasets.DatasetError, ImagingError) as error:
        found, remedy = split_remedy(str(error))
        findings.append(checks.Finding(missing, 'files', f'{name} is left out: {found}', remedy))


def _usable(record):
    """Whether an image record has an id and a file name inside of the image folder."""
    from projects.radiograph.safe_parse import is_printable

    name = record.get('file_name')
    return (
        isinstance(record.get('id'), int)
        and isinstance(name, str)
        and is_printable(name)
        and not Path(name).is_absolute()
        and '..' not in Path(name).parts
    )


def split_remedy(message):
    """Split a one-line error into what was found and the remedy."""
    found, _, remedy = message.rpartition('; ')
    return (found, remedy) if found else (remedy, '')


def files_below(folder):
    """The radiographs below a folder or URL, relative to it; none where it cannot be listed."""
    from projects.radiograph import listing, remote
    from projects.radiograph.image import ImagingError

    find = remote.list_radiographs if remote.is_url(folder) else listing.list_radiographs
    try:
        return find(folder)[0]
    except ImagingError:
        return []


def pretraining_configs(cfg):
    """The configs of this repository whose checkpoints the model starts from."""
    names = [init['checkpoint'] for init in found_in(cfg.model, 'init_cfg') if 'checkpoint' in (init or ())]
    names += [cfg.get('load_from') or '']
    stems = {part for name in names for part in Path(str(name)).parts}
    return [path for path in sorted(REPO.glob('configs/*/*.py')) if path.stem in stems]


def configs_from(stem):
    """The configs of this repository that start from a checkpoint of the config with this stem."""
    return [
        path
        for path in sorted(REPO.glob('configs/*/*.py'))
        if f'/{stem}/' in path.read_text(encoding='utf-8')
    ]


def read_quietly(path, options):
    """Read a config of the repository."""
    from projects.xray import datasets, running

    with datasets.quiet():
        return running.read_config(str(path), options)


def found_in(node, key):
    """Yield the value of every `key` below a config node."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from found_in(value, key)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from found_in(value, key)


def heads(model):
    """`num_classes` of each head of a model, by dotted key."""
    found = {}

    def visit(node, path):
        for name, value in node.items():
            if name == 'num_classes':
                found[f'{path}.{name}'] = value
            elif isinstance(value, dict) and name != 'teacher':
                visit(value, f'{path}.{name}')

    visit(model, 'model')
    return found


def fit_anchors(model, boxes):
    """Judge the anchors of a detector's region proposal network; (None, []) where it has none with scales."""
    from mmdet.registry import TASK_UTILS

    from projects.prepare import anchors

    generator = (model.get('rpn_head') or {}).get('anchor_generator') or {}
    if not str(generator.get('type')).endswith('AnchorGenerator') or not generator.get('scales'):
        return None, []

    def fit(scales):
        built = TASK_UTILS.build({**generator, 'type': 'mmdet.AnchorGenerator', 'scales': list(scales)})
        base = [level.numpy() for level in built.base_anchors]
        return anchors.best_anchor_iou(boxes, base, built.strides)

    return anchors.check_anchors(generator['scales'], fit)


# ---------------------------------------------------------------------------------------------- printing


def progress_bar(total):
    """A bar on a terminal, nothing elsewhere."""
    from tqdm import tqdm

    return tqdm(total=total, unit='img', disable=None, leave=False)


def describe(s, levels, boxes, checks):
    """What the table and the page say of one set."""
    import numpy as np

    row = dict(name=s.name, source=s.source, folder=s.folder, images=len(s.names))
    if s.coco is not None:
        row['crowd'] = sum(a['iscrowd'] for a in s.coco['annotations'])
        row['boxes'] = len(s.coco['annotations']) - row['crowd']
        row['without_boxes'] = len(s.names) - len({a['image_id'] for a in s.coco['annotations']})
        row['classes'] = {
            k: dict(images=images, boxes=boxes) for k, (images, boxes) in checks.class_counts(s).items()
        }
    if levels is not None:
        row['mean'], row['std'] = round(levels.mean, 2), round(levels.std, 2)
    if boxes is not None:
        for key, found in (('native', boxes.native), ('input', boxes.scaled)):
            side = np.sqrt(found[:, 2] * found[:, 3])
            row[f'box_px_{key}'] = [round(float(v), 1) for v in np.percentile(side, [5, 50, 95])]
    return row


def suggestion(levels, checks):
    """Window, mean and std as measured on the first set."""
    if levels is None:
        return None
    return dict(window=checks.suggested_window(levels), mean=round(levels.mean, 2), std=round(levels.std, 2))


def format_report(report, findings):
    """Return the report as lines of at most 100 columns."""
    from projects.prepare.page import without_boxes

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


def format_findings(findings, folders):
    """Return the findings as lines of at most 100 columns; images are named relative to their folder."""
    from projects.radiograph.remote import name_in
    from projects.radiograph.safe_parse import printable

    lines = []
    folders = sorted(set(folders), key=len, reverse=True)

    def name_of(path):
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


if __name__ == '__main__':
    sys.exit(main())
