"""An exported folder on an annotated set: the detections of its engine, as the report reads them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from projects.line.runtime import Inspection, Inspector
from projects.measures.ranking import average_precision_at
from projects.radiograph.image import ImagingError
from projects.runs.digests import digest
from projects.runs.population import describe_population, digest_images
from projects.xray.datasets import load_defects
from projects.xray.errors import DatasetError

from .detector import _progress
from .parity import as_detections, inspected

NOTHING = ((), (), ())  # boxes, scores and labels of a frame that was refused


def evaluate(
    source: Path,
    ann_file: Path,
    images: Path | None = None,
    severity: str | None = None,
    engine: str = 'openvino',
) -> tuple[dict, dict]:
    """Run the engine of an exported folder on an annotated set.

    The line puts a frame into quarantine for its depth, its gray levels or a file that cannot be read. Such a
    frame is refused here as well: it has no detections, and `refused` says why.

    Args:
        source: The exported folder.
        ann_file: COCO annotation file.
        images: Folder of its images; default, `images` beside the file.
        severity: Map of defect types to classes; default, that of the validation set at export.
        engine: 'openvino' or 'onnxruntime'.

    Returns:
        The content of `predictions.json`; `config`, `checkpoint`, `metrics`, `exported` of `test.json`.

    Raises:
        FolderError: The folder cannot be used.
        DatasetError: The annotations are unusable, an image is missing or of another size, or none is read.
    """
    inspector = Inspector(source, engine)
    exported = inspector.exported
    truth = load_defects(ann_file, exported.classes, severity or exported.origin.get('severity'))
    root = images or ann_file.parent / 'images'
    names = [image['file_name'] for image in truth['images']]
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        raise DatasetError(
            f'{root / missing[0]}: {len(missing)} images missing, expected those of {ann_file}; put them '
            'there, or name their folder with --images'
        )
    found, masks, depths, refused = [], [], set(), {}
    for record, name in zip(truth['images'], _progress(names, engine), strict=True):
        inspection = inspector.attempt(root / name)  # as on the line: a bad frame does not stop the run
        if isinstance(inspection, ImagingError):
            refused[name] = ' '.join(str(inspection).removeprefix(f'{root / name}: ').split())
            found.append(NOTHING)
            continue
        _check_size(root / name, inspection, (record['height'], record['width']), ann_file)
        found.append((inspection.boxes, inspection.scores, inspection.labels))
        masks += _masks(inspection)
        depths.add(f'{inspection.bits}-bit')
    if len(refused) == len(names):
        raise DatasetError(
            f'{ann_file}: none of its {len(names)} images can be inspected; {root / names[0]}: '
            f'{refused[names[0]]}'
        )
    predictions = dict(
        task='detection',
        classes=exported.classes,
        truth=_without_masks(truth),
        detections=[row | mask for row, mask in zip(as_detections(truth, found), masks, strict=True)],
        ann_file=str(ann_file),
        sha256=digest(ann_file),
        folder=str(root),
        window=exported.window,
        checkpoint=exported.origin.get('checkpoint') or '',
        population=describe_population(truth, depths) | another_map(severity, exported.origin),
        digests=digest_images(str(root), names),
        refused=refused,
    )
    result = dict(
        config=exported.origin.get('config', ''),
        checkpoint=exported.origin.get('checkpoint'),
        metrics=_average_precisions(truth, found),
        exported=dict(
            engine=engine,
            precision=exported.precision,
            files=exported.files_of(engine),
            folder=inspector.digest,
        ),
    )
    return predictions, result


def _check_size(path: Path, inspection: Inspection, size: tuple[int, int], ann_file: Path) -> None:
    """Refuse a radiograph whose (height, width) is not that of its annotations: its boxes would be wrong."""
    if inspection.pixels.shape != size:
        height, width = inspection.pixels.shape
        raise DatasetError(
            f'{path}: {width} x {height} px, but {ann_file} says {size[1]} x {size[0]}; convert the data set '
            'again, or bring the image back'
        )


def another_map(severity: str | None, origin: dict) -> dict[str, str]:
    """Return the map of severities, which defines critical defects, unless it is the validation set's."""
    return {} if severity in (None, origin.get('severity')) else {'severity': severity}


def _without_masks(truth: dict) -> dict:
    rows = [{k: v for k, v in row.items() if k != 'segmentation'} for row in truth['annotations']]
    return dict(images=truth['images'], annotations=rows, categories=truth['categories'])


def _masks(inspection: Inspection) -> list[dict]:
    """Return COCO's fields for the mask of each detection; empty dicts for a detector of boxes alone."""
    if inspection.masks is None:
        return [{}] * len(inspection.scores)
    return [dict(segmentation=mask.rle(inspection.pixels.shape), area=mask.area) for mask in inspection.masks]


def _average_precisions(truth: dict, found: Sequence[tuple]) -> dict[str, float | None]:
    """Return AP50 of each class, and their mean, under the names that the test of a checkpoint uses."""
    images = inspected(truth, found)
    names = [category['name'] for category in truth['categories']]
    everything = np.arange(len(images))
    values = [average_precision_at(images, label)(everything) for label in range(len(names))]
    there = [value for value in values if value is not None]
    metrics = {f'xray/AP50_{name}': value for name, value in zip(names, values, strict=True)}
    return {'xray/AP50': float(np.mean(there)) if there else None} | metrics
