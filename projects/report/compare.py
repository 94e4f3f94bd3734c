"""Tested runs compared: arms on the same images, with intervals over parts and over seeds, and one proof."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from projects.config.names import BASELINES, BETWEEN
from projects.measures.bounds import StatisticsError
from projects.measures.comparison import (
    Comparison,
    SeedComparison,
    Seeds,
    compare,
    compare_seeds,
    holm,
    read_verdict,
    summarise_seeds,
)
from projects.measures.images import CRITICAL
from projects.measures.ranking import recall_at

from .measured import ALARMS, Measured, Settings, measure_run
from .predictions import Predictions, mean_ap
from .proof import by_images, keep_one_proof
from .runs import Run, fixed_rate, name_arm


@dataclass
class Arm:
    """The runs of one arm at one share of the labels, with different seeds.

    Attributes:
        name: See `Run.arm`.
        fraction: Percent of the training labels.
        members: Measured runs, by seed.
        headline: Summary of the headline measure over the seeds.
    """

    name: str
    fraction: int
    members: list[Measured]
    headline: Seeds

    @property
    def init(self) -> str:
        """Start of the backbones; see `Run.init`."""
        return self.members[0].run.init

    @property
    def epochs_factor(self) -> float:
        """Length of the training as a multiple of the config's epochs."""
        return self.members[0].run.facts.get('epochs_factor', 1)

    @property
    def lr_factor(self) -> float:
        """Fixed learning rate as a multiple of the config's; 1 also for a rate that val chose."""
        return fixed_rate(self.members[0].run.facts)

    @property
    def pretrainings(self) -> int | None:
        """Number of own pretrainings from which the seeds start; None if unknown."""
        weights = {one.run.weights for one in self.members}
        return None if '' in weights else len(weights - {None})


@dataclass
class Contrast:
    """Two arms compared by one measure.

    Attributes:
        measure: Name of the measure.
        baseline: First arm.
        candidate: Second arm.
        parts: Comparison over the test parts; None if impossible.
        seeds: Comparison over the seeds, or over the pretrainings if an arm has several.
        reason: Why there is no comparison over parts.
    """

    measure: str
    baseline: Arm
    candidate: Arm
    parts: Comparison | None
    seeds: SeedComparison
    reason: str = ''

    @property
    def by_pretraining(self) -> bool:
        """Whether `seeds` counts the pretrainings of an arm rather than its seeds."""
        return any((arm.pretrainings or 0) > 1 for arm in (self.baseline, self.candidate))


@dataclass
class Group:
    """Comparable runs: of one task, data set, backbone and recipe."""

    task: str
    dataset: str
    backbone: str
    recipe: str
    arms: list[Arm]
    contrasts: list[Contrast]

    @property
    def name(self) -> str:
        """Title of the group."""
        return ' · '.join(part for part in (self.dataset, self.backbone, self.recipe) if part)

    @property
    def unit(self) -> str:
        """Name of the headline measure."""
        return 'AP50' if self.task == 'detection' else 'mAP'


def gather(runs: Sequence[Run], settings: Settings) -> list[Group]:
    """Measure all runs and compare the arms of each group with their baseline.

    Args:
        runs: Runs from `read_runs`.
        settings: Settings of the proof.
    """
    everything = [measure_run(run, settings) for run in runs]
    groups = {}
    for one in everything:
        groups.setdefault(one.run.group, []).append(one)
    for number, measured in enumerate(by_images(everything)):
        for one in measured:
            one.image_set = number
        keep_one_proof(measured)
    gathered = []
    for (task, dataset, backbone, recipe), measured in sorted(groups.items()):
        by_arm = {}
        for one in measured:
            by_arm.setdefault((one.run.arm, one.run.fraction), []).append(one)
        arms = [
            Arm(
                name,
                fraction,
                sorted(members, key=lambda m: m.run.seed or 0),
                summarise_seeds([m.headline for m in members]),
            )
            for (name, fraction), members in by_arm.items()
        ]
        arms.sort(key=lambda arm: (arm.fraction, _rank(arm.name), arm.name))
        contrasts = []
        for fraction in sorted({arm.fraction for arm in arms}):
            contrasts += _contrasts([arm for arm in arms if arm.fraction == fraction], settings)
        gathered.append(Group(task, dataset, backbone, recipe, arms, contrasts))
    return gathered


def _rank(arm: str) -> int:
    return BASELINES.index(arm) if arm in BASELINES else len(BASELINES)


def _contrasts(arms: Sequence[Arm], settings: Settings) -> list[Contrast]:
    """Compare the arms of one share of the labels, each with its baseline."""
    found = []
    for arm in arms:
        baseline = _baseline(arm, arms)
        if baseline is None:
            continue
        found += [
            contrast
            for name, builder in _comparable_measures(baseline, arm).items()
            if (contrast := _contrast(name, builder, baseline, arm, settings))
        ]
    return found


def _contrast(name: str, builder: Callable, baseline: Arm, arm: Arm, settings: Settings) -> Contrast | None:
    """Compare two arms by one measure; None if a run has no value of the measure."""
    predictions = baseline.members[0].run.predictions
    units = predictions.units()
    everything = np.arange(len(units))
    values = [[builder(member)(everything) for member in side.members] for side in (baseline, arm)]
    if any(value is None for side in values for value in side):
        return None
    reason, parts = '', None
    try:
        parts = compare(
            units,
            _joint(builder, baseline, arm),
            carrying=_carrying(predictions, name),
            independent=_independent_units(predictions) if builder is _mean_ap else None,
            resamples=settings.resamples,
        )
        if predictions.task == 'severity':  # the images of one part have one class: every ranking is perfect
            parts = replace(parts, per_unit={})
    except StatisticsError as error:
        reason = str(error)
    starts = tuple(  # an unknown pretraining may be any of the others
        None if side.pretrainings is None else [m.run.weights for m in side.members]
        for side in (baseline, arm)
    )
    return Contrast(name, baseline, arm, parts, compare_seeds(*values, starts=starts), reason)


def _baseline(arm: Arm, arms: Sequence[Arm]) -> Arm | None:
    """Return the baseline of an arm: for a distilled student the student alone, for others a baseline start.

    The baseline was trained for as many epochs at the same learning rate, since another schedule would count
    as an effect of the start. If there is no such baseline, it is the strongest one with its config's
    schedule, and `_uncovered` states the difference.

    Args:
        arm: An arm of `arms`.
        arms: Arms of one share of the labels, in the order of the tables.
    """
    alone = name_arm(arm.init.split(BETWEEN)[0], arm.members[0].run.facts)
    schedule = arm.epochs_factor, arm.lr_factor
    alike = [other for other in arms if (other.epochs_factor, other.lr_factor) == schedule]
    found = [other for other in alike if BETWEEN in arm.init and other.name == alone]
    found += sorted((other for other in alike if other.init in BASELINES), key=lambda o: _rank(o.init))
    if not found or found[0] is arm:
        found = [other for other in arms[:1] if other.name in BASELINES]
    return found[0] if found and found[0] is not arm else None


def _independent_units(predictions: Predictions) -> int:
    """Return the effective number of independent parts behind a mean over classes.

    If only a few of many parts have one class, the mean depends on these few. With six parts of one class and
    54 of another, the interval excluded zero in 10 % of simulated sets without a true difference. The
    effective number follows from the degrees of freedom after Welch and Satterthwaite.
    """
    if predictions.task == 'detection':
        labels = [set(image.truth_labels[~image.ignored].tolist()) for image in predictions.inspected]
    else:
        labels = [{image['label']} for image in predictions.images]
    parts = {}
    for part, there in zip(predictions.units(), labels, strict=True):
        for label in there:
            parts.setdefault(label, set()).add(str(part))
    counts = np.array([len(carrying) for carrying in parts.values()], float)
    if counts.min() < 2:
        return 1
    return int(1 + (1 / counts).sum() ** 2 / (1 / (counts**2 * (counts - 1))).sum())


def _comparable_measures(baseline: Arm, arm: Arm) -> dict[str, Callable]:
    """Return builders of the measures that compare two arms; a builder takes one run, or one run per arm."""
    if baseline.members[0].run.predictions.task == 'severity':
        return {'mAP': _mean_ap}
    critical = baseline.members[0].run.predictions.classes[CRITICAL]
    return {'AP50': _mean_ap, f'recall of {critical} at {ALARMS} false alarms an image': _recall}


def _mean_ap(*members: Measured) -> Callable:
    return mean_ap([member.run.predictions for member in members])


def _recall(*members: Measured) -> Callable:
    matched = [m for member in members for m in member.matched]
    return recall_at(matched, ALARMS, arms=len(members))


def _joint(builder: Callable, baseline: Arm, arm: Arm) -> Callable:
    """Measure on the images of the baseline and then of the arm, averaged over pairs of their seeds.

    Each seed of an arm is in the same number of pairs, so that an arm's average is that of its seeds.
    """
    pairs = math.lcm(len(baseline.members), len(arm.members))
    measures = [
        builder(baseline.members[i % len(baseline.members)], arm.members[i % len(arm.members)])
        for i in range(pairs)
    ]

    def measure(positions):
        values = [each(positions) for each in measures]
        return None if None in values else float(np.mean(values))

    return measure


def _carrying(predictions: Predictions, name: str) -> list[bool]:
    """Return for each image whether the measure has a value on this image alone."""
    if predictions.task == 'severity':
        return [True] * len(predictions.images)
    counted = [image.truth_labels[~image.ignored] for image in predictions.inspected]
    return [bool(len(labels) if name == 'AP50' else (labels == CRITICAL).any()) for labels in counted]


def correct(contrasts: Sequence[Contrast]) -> list[str]:
    """Return the verdicts over the parts of the comparisons in one sentence, corrected after Holm.

    Args:
        contrasts: The comparisons.

    Returns:
        Verdict of each comparison, in order; '' without a comparison over parts.
    """
    tested = [contrast.parts for contrast in contrasts if contrast.parts]
    adjusted = dict(zip(map(id, tested), holm([parts.p_value for parts in tested]), strict=True))
    return [
        read_verdict(c.parts.difference, adjusted[id(c.parts)], c.parts.confidence) if c.parts else ''
        for c in contrasts
    ]


def _count(number: int, what: str) -> str:
    return f'{number} {what}' + ('s' if number != 1 else '')
