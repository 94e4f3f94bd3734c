"""Predictions of a tested model on every image, beside `test.json`: enough to measure without the model."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from projects.errors import MMXrayError
from projects.measures.images import InspectedImage, MeasureError, read_images
from projects.measures.ranking import average_precision, average_precision_at
from projects.radiograph.large_json import read_object
from projects.radiograph.parts import recorded_part, recorded_unit
from projects.runs.population import describe_population, digest_images, sample_depths

TASKS = ('detection', 'severity')
FILES = {'test': 'predictions.json', 'val': 'predictions_val.json'}


class PredictionsError(MMXrayError, ValueError):
    """Predictions are missing or cannot be measured; one line with the remedy."""


@dataclass
class Predictions:
    """The predictions of one model on one split.

    Attributes:
        task: 'detection' or 'severity' (of whole images).
        classes: Names in label order, the critical one first.
        ann_file: The annotation file.
        sha256: SHA-256 of the annotation file.
        folder: Folder of the images.
        window: The model's window, see `radiograph.window.apply_window`.
        checkpoint: The model.
        truth: COCO dict without masks, for a detector.
        images: `file_name`, `part`, `label` and `scores` (classes) of each image, for an image classifier.
        population: The population of the sample, see `population.describe_population`; empty if not recorded.
        digests: Digests of the content of images, by name, if they could be read as files.
        refused: Why an image was not inspected, by name. An exported folder refuses frames that differ from
            its validation radiographs.
        inspected: Images with truth and detections, for a detector.
    """

    task: str
    classes: list[str]
    ann_file: str
    sha256: str
    folder: str
    window: dict
    checkpoint: str
    truth: dict = field(default_factory=dict)
    images: list[dict] = field(default_factory=list)
    population: dict = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    inspected: list[InspectedImage] = field(default_factory=list)

    @property
    def part_rule(self) -> str | None:
        """The regular expression that found the parts in the names; None if not recorded."""
        return self.population.get('part_rule')

    def records(self) -> list[dict]:
        """Return the record of each image, with `file_name` and, if known, `part`."""
        return self.truth.get('images', self.images)

    def parts(self) -> list[str | None]:
        """Return the physical part of each image, in order; None if unknown."""
        return [recorded_part(image) for image in self.records()]

    def units(self) -> list[str | None]:
        """Return the independent unit of each image: its part, else its region group."""
        return [recorded_unit(image) for image in self.records()]

    @property
    def unit_name(self) -> str:
        """Name of a unit: 'part', or 'region group' in a set whose parts are unknown."""
        return 'region group' if None in self.parts() and None not in self.units() else 'part'

    def names(self) -> list[str]:
        """Return the file name of each image, in the order of the file."""
        return [image['file_name'] for image in self.records()]

    def mean_ap(self) -> Callable[[np.ndarray], float | None]:
        """Return the measure that compares arms; see `mean_ap`."""
        return mean_ap([self])


def mean_ap(arms: Sequence[Predictions]) -> Callable[[np.ndarray], float | None]:
    """Return the measure that compares arms: AP50 of boxes, mAP of whole images.

    Args:
        arms: Predictions on the same images, in the same order.

    Returns:
        Function of positions (N,) int among the images of all arms, one arm after the other, repeats allowed.
        It returns the mean over the present classes, in [0, 1]; None without any class.
    """
    labels = range(len(arms[0].classes))
    if arms[0].task == 'detection':
        inspected = [image for arm in arms for image in arm.inspected]
        of_classes = [average_precision_at(inspected, label) for label in labels]
    else:
        images = [image for arm in arms for image in arm.images]
        scores = np.array([image['scores'] for image in images])
        truth = np.array([image['label'] for image in images])
        of_classes = [_ranking(scores[:, label], truth == label) for label in labels]

    def measure(positions):
        values = [value for value in (f(positions) for f in of_classes) if value is not None]
        return float(np.mean(values)) if values else None

    return measure


def _ranking(scores: np.ndarray, positive: np.ndarray) -> Callable[[np.ndarray], float | None]:
    def measure(positions):
        drawn = positive[positions]
        return average_precision(scores[positions], drawn) if drawn.any() else None

    return measure


def describe_data(kept: dict, dataset, checkpoint: str) -> dict:
    """Add the origin of the images to the predictions that a metric kept.

    Args:
        kept: `predictions` of a metric.
        dataset: `XrayDefects` or `XraySeverity`.
        checkpoint: The model.

    Returns:
        dict: The content of the file.
    """
    from projects.xray.datasets import read_coco

    folder = dataset.data_prefix.get('img') or dataset.data_prefix.get('img_path')
    kept = dict(kept)
    coco = read_coco(dataset.ann_file)
    if kept['task'] == 'severity':
        records = {image['file_name']: image for image in coco['images']}
        names = [image['path'].removeprefix(f'{folder}/') for image in kept['images']]
        kept['images'] = [
            {
                key: records[name][key]
                for key in ('part', 'region')
                if name in records and key in records[name]
            }
            | dict(file_name=name, label=image['label'], scores=image['scores'])
            for name, image in zip(names, kept['images'], strict=True)
        ]
    else:
        names = [image['file_name'] for image in kept['truth']['images']]
    windows = [vars(t)['window'] for t in dataset.pipeline.transforms if 'window' in vars(t)]
    return dict(
        kept,
        ann_file=dataset.ann_file,
        sha256=hashlib.sha256(_content(dataset.ann_file)).hexdigest(),
        folder=folder,
        window=windows[0] if windows else dict(type='full'),
        checkpoint=checkpoint,
        population=describe_population(coco, sample_depths(folder, names)),
        digests=digest_images(folder, names),
    )


def _content(path: str) -> bytes:
    from projects.radiograph.remote import read_text

    return read_text(path).encode()


def read_predictions(run: Path, split: str = 'test') -> Predictions:
    """Read and check the predictions of a run.

    Args:
        run: Its work dir.
        split: 'test' or 'val'.

    Raises:
        PredictionsError: The file is missing or incomplete, there is no image or no detection at all, or a
            score is not finite.
    """
    path = run / FILES[split]
    again = 'run tools/test.py again'
    try:
        content = read_object(path, {'detections': _bring_together})
    except MeasureError as error:
        raise PredictionsError(f'{path}: {error}') from None
    except FileNotFoundError:
        raise PredictionsError(f'{path}: not found; {again}, which writes it beside test.json') from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PredictionsError(f'{path}: not readable as JSON ({error}); {again}') from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PredictionsError(f'{path}: {type(error).__name__}: {error}; {again}') from None
    try:
        inspected = content.pop('detections', [])
        predictions = Predictions(**content, inspected=inspected)
    except TypeError as error:
        raise PredictionsError(f'{path}: not of this version ({error}); {again}') from None
    first, *others = (str(name).casefold() for name in predictions.classes or [''])
    if 'critical' in others and first != 'critical':
        raise PredictionsError(
            f'{path}: classes {predictions.classes}, expected the critical one first: escapes are counted of '
            'the first class; correct the order of the classes in the config and train again'
        )
    if predictions.task not in TASKS:
        raise PredictionsError(f'{path}: task {predictions.task!r}, expected one of {TASKS}; {again}')
    try:
        if predictions.task == 'detection':
            if not inspected:
                raise MeasureError('no image to measure')
            _mark_refused(predictions)
        else:
            _check_scores(predictions)
    except MeasureError as error:
        raise PredictionsError(f'{path}: {error}') from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PredictionsError(f'{path}: {type(error).__name__}: {error}; {again}') from None
    if predictions.task == 'detection' and not any(image.scores.size for image in inspected):
        raise PredictionsError(
            f'{path}: not one detection on {len(predictions.inspected)} images, so that nothing can be '
            'measured; the model has not learnt or has diverged: train it again'
        )
    return predictions


def _bring_together(content: dict, detections: Iterator[dict]) -> list[InspectedImage]:
    """Join each detection with the truth, which precedes the detections in the file."""
    return read_images(content['truth'], detections)


def _mark_refused(predictions: Predictions) -> None:
    """Mark the refused images, which must be in the test set and without detections."""
    unknown = set(predictions.refused) - set(predictions.names())
    if unknown:
        raise MeasureError(f'image {sorted(unknown)[0]} was refused, expected one of the test set')
    predictions.inspected = [
        replace(image, refused=predictions.refused[name]) if name in predictions.refused else image
        for name, image in zip(predictions.names(), predictions.inspected, strict=True)
    ]


def _check_scores(predictions: Predictions) -> None:
    if not predictions.images:
        raise MeasureError('no image to measure')
    for image in predictions.images:
        if len(image['scores']) != len(predictions.classes) or not all(map(math.isfinite, image['scores'])):
            raise MeasureError(
                f'image {image["file_name"]}: scores {image["scores"]}, expected {len(predictions.classes)} '
                'finite ones; the run diverged or its file is damaged'
            )
        if not 0 <= image['label'] < len(predictions.classes):
            raise MeasureError(f'image {image["file_name"]}: label {image["label"]} has no class')
