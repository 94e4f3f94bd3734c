"""The whole check of a config's data set: scan its images once, then judge them."""

import datetime
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmdet.registry import TASK_UTILS
from mmengine.config import Config
from tqdm import tqdm

from projects.radiograph.remote import is_url, read_text
from projects.runs.digests import digest
from projects.runs.fit import class_heads

from .anchors import Boxes, best_anchor_iou, boxes_at_input, check_anchors, check_box_size
from .check_boxes import check_boxes, check_dominance, check_ledgers, check_parts
from .check_classes import check_classes, class_counts
from .check_files import check_files
from .check_window import GrayLevels, check_windows, gray_levels, suggested_window
from .findings import LEVELS, TOPICS, Finding, ImageSet
from .image_sets import read_sets
from .leaks import check_leaks, count_resembling
from .scan import Scans


def examine(
    cfg: Config, config_path: str, workers: int, options: Sequence[str] | None = ()
) -> tuple[dict, list[Finding], dict]:
    """Read the image sets of a config, scan every image and judge them.

    Args:
        cfg: the config.
        config_path: its file.
        workers: processes.
        options: its `--cfg-options`; those of window and data also apply to related configs.

    Returns:
        The report for dataset.json, the findings, and the data for the page.
    """
    shared = [option for option in options or () if option.startswith(('xray_load.', 'xray_own.'))]
    sets, findings = read_sets(cfg, config_path, shared)
    start = time.perf_counter()
    tasks = {path: s.window for s in reversed(sets) for path in s.paths}
    with progress_bar(len(tasks)) as bar:
        scans = Scans(tasks, workers, bar.update)
    seconds = time.perf_counter() - start

    labelled = [s for s in sets if s.classes]
    levels = {s.name: gray_levels(s.paths, scans) for s in sets}
    boxes = {s.name: found for s in labelled if (found := boxes_at_input(s)) is not None}
    findings += check_files(sets, scans)
    findings += check_boxes(labelled) + check_dominance(labelled) + check_ledgers(sets)
    findings += check_parts(labelled)
    findings += check_classes(labelled, class_heads(cfg.model))
    findings += check_windows([s for s in sets if s.side != 'unlisted'], levels)
    findings += check_leaks(sets, scans, workers)
    anchors = None
    train = next((s for s in labelled if s.name == 'train' and s.name in boxes), None)
    if train:
        findings += check_box_size(train, boxes['train'])
        anchors, more = fit_anchors(cfg.model, boxes['train'])
        findings += more
    findings.sort(key=lambda f: (LEVELS.index(f.level), TOPICS.index(f.topic)))
    report = dict(
        config=config_path,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
        images=len(tasks),
        seconds=round(seconds, 2),
        sets=[describe(s, levels[s.name], boxes.get(s.name)) for s in sets],
        anchors=anchors and {k: v for k, v in anchors.items() if k != 'iou'},
        suggested=suggestion(levels[sets[0].name]) if sets else None,
        resembling=count_resembling(sets, findings),
        findings=[vars(finding) for finding in findings],
    )
    return report, findings, dict(sets=sets, scans=scans, levels=levels, boxes=boxes, anchors=anchors)


def fit_anchors(model: dict, boxes: Boxes) -> tuple[dict | None, list[Finding]]:
    """Judge the anchors of a detector's region proposal network; (None, []) without anchor scales."""

    generator = (model.get('rpn_head') or {}).get('anchor_generator') or {}
    if not str(generator.get('type')).endswith('AnchorGenerator') or not generator.get('scales'):
        return None, []

    def fit(scales):
        built = TASK_UTILS.build({**generator, 'type': 'mmdet.AnchorGenerator', 'scales': list(scales)})
        base = [level.numpy() for level in built.base_anchors]
        return best_anchor_iou(boxes, base, built.strides)

    return check_anchors(generator['scales'], fit)


def progress_bar(total: int) -> tqdm:
    """Return a progress bar that is shown on a terminal only."""
    return tqdm(total=total, unit='img', disable=None, leave=False)


def describe(s: ImageSet, levels: GrayLevels | None, boxes: Boxes | None) -> dict:
    """Return the values of one set for table and page."""

    row = dict(name=s.name, source=s.source, folder=s.folder, images=len(s.names))
    if s.records:  # so that a report knows which files were looked at
        known = hashlib.sha256(read_text(s.source).encode()).hexdigest() if is_url(s.source) else None
        row['sha256'] = known or digest(Path(s.source))
    if s.coco is not None:
        row['crowd'] = sum(a['iscrowd'] for a in s.coco['annotations'])
        row['boxes'] = len(s.coco['annotations']) - row['crowd']
        row['without_boxes'] = len(s.names) - len({a['image_id'] for a in s.coco['annotations']})
        row['classes'] = {
            k: dict(images=images, boxes=boxes) for k, (images, boxes) in class_counts(s).items()
        }
    if levels is not None:
        row['mean'], row['std'] = round(levels.mean, 2), round(levels.std, 2)
    if boxes is not None:
        for key, found in (('native', boxes.native), ('input', boxes.scaled)):
            side = np.sqrt(found[:, 2] * found[:, 3])
            row[f'box_px_{key}'] = [round(float(v), 1) for v in np.percentile(side, [5, 50, 95])]
    return row


def suggestion(levels: GrayLevels | None) -> dict | None:
    """Window, mean and std as measured on the first set."""
    if levels is None:
        return None
    return dict(window=suggested_window(levels), mean=round(levels.mean, 2), std=round(levels.std, 2))
