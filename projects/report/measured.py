"""One tested run, measured at a threshold that was fixed on val."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from projects.measures.bounds import StatisticsError
from projects.measures.calibration import Calibration, calibration, confusion
from projects.measures.detection import DetectionMeasures, measure_detection, recall_by_rule
from projects.measures.false_calls import FalseCalls, measure_false_calls
from projects.measures.flaws import Flaw, Pod, gather_flaws, measure_pod
from projects.measures.images import CRITICAL, MeasureError
from projects.measures.matching import Matched, match_all
from projects.measures.parts import Part, gather_parts
from projects.measures.proof import OperatingPoint, ThresholdChoice, choose_threshold, judge_parts
from projects.measures.ranking import Froc, froc
from projects.measures.strata import Stratum, stratify, too_many

from .runs import Run

ALARMS = 0.5  # false alarms per val image that fix the threshold if parts cannot
FIXED_SCORE = 0.3  # threshold without predictions of val, as in the pictures drawn during training


@dataclass
class Settings:
    """Settings of the proof and the measures.

    Attributes:
        max_escape: Critical escape rate to prove.
        reject_minor: Whether a minor defect rejects a part.
        pixel_pitch: mm per px at the part, for POD in mm.
        resamples: Bootstrap draws.
    """

    max_escape: float = 0.05
    reject_minor: bool = False
    pixel_pitch: float | None = None
    resamples: int = 1000


@dataclass
class Measured:
    """One run, measured.

    Attributes:
        run: The run.
        headline: Measure that compares arms: AP50 of a detector, mAP of an image classifier.
        on_val: The same measure on val; None without predictions of val.
        chosen: Whether the run is the best on val of all runs on its test set: a proof holds for this one
            model alone.
        image_set: Number of the set of test images; runs with the same number share images.
        matched: Test images of a detector, each with the outcomes of its detections.
        threshold: Lowest score that counts, for parts, boxes, POD and false alarms alike; None for an image
            classifier.
        fixed: How the threshold was fixed, in words.
        choice: Choice of the threshold on the parts of val; None if they could not choose it.
        detection: Counts at the threshold.
        recalls: Recall of the critical class at the threshold by each rule for a hit.
        froc: FROC of the critical class.
        false_calls: Critical false calls on sound images and parts.
        strata: Results by series, batch, part type and view; empty if the data have none.
        parts: Escapes of parts; None if they cannot be counted.
        flaws: The flaws of the POD by class.
        pods: POD by class, if it can be measured; on generated data also by size and contrast.
        notes: Reasons why a result is missing.
        confusion: Confusion of an image classifier: rows are the truth, columns the prediction.
        calibration: Calibration of an image classifier.
    """

    run: Run
    headline: float
    on_val: float | None
    matched: list[Matched]
    chosen: bool = False
    image_set: int = 0
    threshold: float | None = None
    fixed: str = ''
    choice: ThresholdChoice | None = None
    detection: DetectionMeasures | None = None
    recalls: dict[str, float | None] | None = None
    froc: Froc | None = None
    false_calls: FalseCalls | None = None
    strata: list[Stratum] | None = None
    parts: OperatingPoint | None = None
    flaws: dict[str, list[Flaw]] | None = None
    pods: dict[str, Pod] | None = None
    notes: list[str] | None = None
    confusion: list[list[int]] | None = None
    calibration: Calibration | None = None

    @property
    def parts_fixed(self) -> str:
        """How the threshold was fixed, with its power and its cost on val."""
        return self.choice.statement if self.choice else self.fixed


def measure_run(run: Run, settings: Settings) -> Measured:
    """Measure one run at a threshold that was fixed on val."""
    if run.predictions.task == 'severity':
        return _measure_classifier(run)
    predictions = run.predictions
    settings = replace(settings, reject_minor=rejects_minor(run, settings))
    matched = match_all(predictions.inspected)
    notes = []
    if predictions.refused:
        notes.append(
            f'refused: {len(predictions.refused)} of {len(matched)} images were not inspected (refused.csv); '
            'their defects count as missed in every measure, and false alarms are per inspected image'
        )
    notes += too_many(matched)
    parts = _gather(matched, settings, 'parts', notes)
    threshold, fixed, choice = _fix_threshold(run, parts, settings, notes)
    flaws, pods = {}, {}
    for label, name in enumerate(predictions.classes):
        flaws[name] = gather_flaws(matched, threshold, label, settings.pixel_pitch)
        pods |= _measure_pods(matched, threshold, label, name, flaws[name], settings, notes)
    return Measured(
        run=run,
        headline=run.result['metrics']['AP50'],
        on_val=_on_val(run),
        matched=matched,
        threshold=threshold,
        fixed=fixed,
        choice=choice,
        detection=measure_detection(matched, threshold, predictions.classes),
        recalls=recall_by_rule(matched, threshold),
        froc=froc(matched),
        false_calls=measure_false_calls(matched, threshold),
        strata=stratify(matched, threshold, reject_minor=settings.reject_minor),
        parts=judge_parts(parts, settings.max_escape, threshold) if parts else None,
        flaws=flaws,
        pods=pods,
        notes=notes,
    )


def rejects_minor(run: Run, settings: Settings) -> bool:
    """Whether a minor defect rejects a part; an exported folder defines this itself."""
    return run.exported.rejects_minor if run.exported else settings.reject_minor


def _gather(matched: Sequence[Matched], settings: Settings, what: str, notes: list[str]) -> list[Part]:
    """Gather parts; if impossible, note the reason and return no parts."""
    try:
        return gather_parts(matched, settings.reject_minor)
    except MeasureError as error:
        notes.append(f'{what}: {error}')
        return []


def _fix_threshold(
    run: Run, parts: Sequence[Part], settings: Settings, notes: list[str]
) -> tuple[float, str, ThresholdChoice | None]:
    """Fix the threshold without looking at test.

    The parts of val choose the threshold, by the power of the proof on as many critical parts as test has.
    Without part ids, critical false alarms on val fix it.
    """
    if run.exported:
        words = f'of the exported folder {run.exported.name} ({run.exported.threshold_reason})'
        return run.exported.threshold, words, None
    if run.val is None:
        return FIXED_SCORE, f'fixed at {FIXED_SCORE}: no predictions of val (tools/test.py --val)', None
    on_val = match_all(run.val.inspected)
    val_parts = _gather(on_val, settings, 'parts of val', notes) if parts else []
    if val_parts:
        critical = sum(part.truth == 'critical' for part in parts)
        choice = choose_threshold(val_parts, settings.max_escape, critical)
        if choice.threshold is not None:
            return choice.threshold, f'fixed on val for an escape rate of {settings.max_escape:.3g}', choice
        notes.append(f'threshold: {choice.statement}')
    alarms = np.sort(np.concatenate([m.false_alarm_scores(CRITICAL) for m in on_val]))[::-1]
    allowed = math.floor(ALARMS * len(on_val))
    words = f'fixed on val at {ALARMS} false alarms an image'
    return 0.0 if alarms.size <= allowed else float(np.nextafter(alarms[allowed], np.inf)), words, None


def _measure_pods(
    matched: Sequence[Matched],
    threshold: float,
    label: int,
    name: str,
    flaws: Sequence[Flaw],
    settings: Settings,
    notes: list[str],
) -> dict[str, Pod]:
    """Fit the POD of one class by size, and by size and contrast if its flaws have a contrast."""
    pods = {}
    try:
        pods[name] = measure_pod(matched, threshold, label, settings.pixel_pitch)
    except (MeasureError, StatisticsError) as error:
        notes.append(f'POD of {name}: {error}')
    if all(flaw.contrast is None for flaw in flaws):  # not generated data, or no flaw at all
        return pods
    try:
        both = measure_pod(matched, threshold, label, settings.pixel_pitch, by_contrast=True)
    except (MeasureError, StatisticsError) as error:
        notes.append(f'POD of {name} by size and contrast: {error}')
    else:
        pods[f'{name}, at contrast {both.fit.at_contrast:.3g}'] = both
    return pods


def _measure_classifier(run: Run) -> Measured:
    scores = np.array([image['scores'] for image in run.predictions.images])
    truth = np.array([image['label'] for image in run.predictions.images])
    predicted = scores.argmax(1)
    # A float32 softmax may exceed 1 by a rounding error.
    named = scores[np.arange(len(predicted)), predicted].clip(0, 1)
    notes = []
    if len(set(predicted)) == 1:
        name = run.predictions.classes[predicted[0]]
        notes.append(f'probe: calls every image {name}, so its accuracy is the share of that class alone')
    return Measured(
        run=run,
        headline=run.result['metrics']['mAP'],
        on_val=_on_val(run),
        matched=[],
        notes=notes,
        confusion=confusion(truth, predicted, len(run.predictions.classes)),
        calibration=calibration(named, predicted == truth),
    )


def _on_val(run: Run) -> float | None:
    if run.exported:
        return run.exported.origin.get('val_ap50')
    return None if run.val is None else run.val.mean_ap()(np.arange(len(run.val.parts())))
