"""What tested runs show: measures of each, arms compared on the same images, the verdict in two sentences."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from projects.measures.bounds import (
    MIN_UNITS,
    NO_DIFFERENCE,
    Calibration,
    Comparison,
    SeedComparison,
    Seeds,
    StatisticsError,
    calibration,
    compare,
    compare_seeds,
    confusion,
    summarise_seeds,
)
from projects.measures.detection import DetectionMeasures, Froc, froc, measure_detection, recall_at
from projects.measures.flaws import Flaw, Pod, gather_flaws, measure_pod
from projects.measures.matching import CRITICAL, RULES, Matched, MeasureError, match_all
from projects.measures.parts import OperatingPoint, floored, gather_parts, operating_point
from projects.xray.names import BASELINES, BETWEEN

from .predictions import Predictions
from .runs import Run, name_arm, unfit_for_proof

LEAKY = 'gdxray-a'  # protocol A: frames of the test series are in training too
ALARMS = 0.5  # false alarms per val image that fix the threshold
FIXED_SCORE = 0.3  # threshold without predictions of val; that of the pictures drawn while training


@dataclass
class Settings:
    """What is to be proven, and how.

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
        headline: What arms are compared by: AP50 of a detector, mAP of an image classifier.
        on_val: The same on val; None without predictions of val.
        chosen: Whether it is the best on val of all runs on its test set: the one model of which a proof
            holds.
        matched: Test images of a detector, each with what became of its detections.
        threshold: Scores from here on count; None for an image classifier.
        fixed: How the threshold came about, in words.
        detection: Counts there.
        recalls: Recall of the critical class there by each rule for a hit.
        froc: Of the critical class.
        parts: Escapes of parts; None when they cannot be counted.
        parts_fixed: How their threshold came about, in words.
        flaws: By class, the flaws of the POD.
        pods: POD by class; those that can be measured, on generated data also by size and contrast.
        notes: Why something is missing.
        confusion: Of an image classifier: rows the truth, columns what was said.
        calibration: Of an image classifier.
    """

    run: Run
    headline: float
    on_val: float | None
    matched: list[Matched]
    chosen: bool = False
    threshold: float | None = None
    fixed: str = ''
    detection: DetectionMeasures | None = None
    recalls: dict[str, float | None] | None = None
    froc: Froc | None = None
    parts: OperatingPoint | None = None
    parts_fixed: str = ''
    flaws: dict[str, list[Flaw]] | None = None
    pods: dict[str, Pod] | None = None
    notes: list[str] | None = None
    confusion: list[list[int]] | None = None
    calibration: Calibration | None = None


@dataclass
class Arm:
    """The runs of one arm at one share of the labels; they differ in their seed.

    Attributes:
        name: See `Run.arm`.
        fraction: Percent of the training labels.
        members: Measured runs, by seed.
        headline: Over the seeds.
    """

    name: str
    fraction: int
    members: list[Measured]
    headline: Seeds

    @property
    def init(self) -> str:
        """What its backbones started from; see `Run.init`."""
        return self.members[0].run.init

    @property
    def epochs_factor(self) -> float:
        """How many times as long as its config says it learnt."""
        return self.members[0].run.facts.get('epochs_factor', 1)

    @property
    def pretrainings(self) -> int | None:
        """How many pretrainings of our own the seeds start from; None when that is not known."""
        weights = {one.run.weights for one in self.members}
        return None if '' in weights else len(weights - {None})


@dataclass
class Contrast:
    """Two arms compared by one measure.

    Attributes:
        measure: Its name.
        baseline: First arm.
        candidate: Second arm.
        parts: Over the test parts; None when it cannot be done.
        seeds: Over the seeds, or the pretrainings where an arm has several.
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
    """Runs that compare: one task, data set, backbone and recipe."""

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
        runs: From `read_runs`.
        settings: What to prove.
    """
    groups, on_test = {}, {}
    for run in runs:
        measured = measure_run(run, settings)
        groups.setdefault(run.group, []).append(measured)
        on_test.setdefault(run.tested_on, []).append(measured)
    for measured in on_test.values():
        _keep_one_proof(measured)
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


def _keep_one_proof(measured: Sequence[Measured]) -> None:
    """Leave what is proven on one test set to the run that is best on val, and only on parts it has not seen.

    Of the others it is said that the bound of their escape rate does not hold either.

    The bound holds for one model that was fixed before test was opened: of the best of eight on the test set
    it was broken in 21 % of simulated sets instead of 5 %. It is the same whether the eight differ in their
    seed, their backbone or their share of the labels.
    """
    on_val = [one for one in measured if one.on_val is not None]
    fixed = len({one.run.val.sha256 for one in on_val}) == 1  # on two val sets no model is the better one
    if fixed:
        max(on_val, key=lambda one: one.on_val).chosen = True
    for one in measured:
        if one.parts is None:
            continue
        if one.chosen:
            why = unfit_for_proof(one.run)
        elif fixed and one.on_val is not None:
            why = 'another model was chosen on val'
        else:
            why = 'model not fixed on val'
        said = one.parts.statement
        if why and one.parts.proven:
            escape = one.parts.measures.escape
            said = (
                f'{escape.events} of {escape.units} critical parts escaped at score >= '
                f'{floored(one.parts.threshold)}; no proof: {why}.'
            )
        elif why and one.parts.measures and one.parts.measures.escape.units:  # a bound is said as well
            said += f' No bound holds: {why}.'
        elif why == '':
            said += ' Whether training has seen these parts was not checked.'
        if not why and len(on_val) < len(measured):
            said += (
                f' {_count(len(measured) - len(on_val), "run")} without predictions of val on this test set '
                'took no part in the choice of the model.'
            )
        one.parts = replace(one.parts, proven=one.parts.proven and not why, statement=said)


def measure_run(run: Run, settings: Settings) -> Measured:
    """Measure one run at a threshold that was fixed on val."""
    if run.predictions.task == 'severity':
        return _measure_classifier(run)
    said = run.predictions
    matched = match_all(said.inspected)
    threshold, fixed = _threshold(run)
    notes, parts, parts_fixed, pods, flaws = [], None, '', {}, {}
    try:
        parts, parts_fixed = _measure_parts(run, matched, threshold, fixed, settings)
    except MeasureError as error:
        notes.append(f'parts: {error}')
    for label, name in enumerate(said.classes):
        flaws[name] = gather_flaws(matched, threshold, label, settings.pixel_pitch)
        try:
            pods[name] = measure_pod(matched, threshold, label, settings.pixel_pitch)
        except (MeasureError, StatisticsError) as error:
            notes.append(f'POD of {name}: {error}')
        if all(flaw.contrast is None for flaw in flaws[name]):  # not generated data, or no flaw at all
            continue
        try:
            both = measure_pod(matched, threshold, label, settings.pixel_pitch, by_contrast=True)
        except (MeasureError, StatisticsError) as error:
            notes.append(f'POD of {name} by size and contrast: {error}')
        else:
            pods[f'{name}, at contrast {both.fit.at_contrast:.3g}'] = both
    critical = said.classes[CRITICAL]
    recalls = {
        rule: measure_detection(match_all(said.inspected, rule), threshold, said.classes)
        .by_severity[critical]
        .recall
        for rule in RULES
    }
    return Measured(
        run=run,
        headline=run.result['metrics']['AP50'],
        on_val=_on_val(run),
        matched=matched,
        threshold=threshold,
        fixed=fixed,
        detection=measure_detection(matched, threshold, said.classes),
        recalls=recalls,
        froc=froc(matched),
        parts=parts,
        parts_fixed=parts_fixed,
        flaws=flaws,
        pods=pods,
        notes=notes,
    )


def _measure_classifier(run: Run) -> Measured:
    scores = np.array([image['scores'] for image in run.predictions.images])
    truth = np.array([image['label'] for image in run.predictions.images])
    said = scores.argmax(1)
    named = scores[np.arange(len(said)), said].clip(0, 1)  # a float32 softmax overshoots 1 by a rounding
    return Measured(
        run=run,
        headline=run.result['metrics']['mAP'],
        on_val=_on_val(run),
        matched=[],
        notes=[],
        confusion=confusion(truth, said, len(run.predictions.classes)),
        calibration=calibration(named, said == truth),
    )


def _on_val(run: Run) -> float | None:
    return None if run.val is None else run.val.mean_ap()(np.arange(len(run.val.parts())))


def _threshold(run: Run) -> tuple[float, str]:
    """Fix the score from which detections count, without a look at test."""
    if run.val is None:
        return FIXED_SCORE, f'fixed at {FIXED_SCORE}: no predictions of val (tools/test.py --val)'
    alarms = np.concatenate([m.false_alarm_scores(CRITICAL) for m in match_all(run.val.inspected)])
    alarms = np.sort(alarms)[::-1]
    allowed = math.floor(ALARMS * len(run.val.inspected))
    words = f'fixed on val at {ALARMS} false alarms an image'
    if alarms.size <= allowed:
        return 0.0, words
    return float(np.nextafter(alarms[allowed], np.inf)), words


def _measure_parts(run, matched, threshold, fixed, settings) -> tuple[OperatingPoint, str]:
    """Judge on test the operating point that val proves; without one, the threshold at hand."""
    if run.val is not None:
        on_val = gather_parts(match_all(run.val.inspected), settings.reject_minor)
        proven = operating_point(on_val, settings.max_escape).threshold
        if proven is None:
            fixed += f'; the parts of val prove no escape rate of {settings.max_escape:.3g}'
        else:
            threshold = proven
            fixed = f'fixed on val, the highest that proves an escape rate of {settings.max_escape:.3g} there'
    parts = gather_parts(matched, settings.reject_minor)
    return operating_point(parts, settings.max_escape, threshold=threshold), fixed


def _contrasts(arms: Sequence[Arm], settings: Settings) -> list[Contrast]:
    """Compare the arms of one share of the labels, each with its baseline."""
    found = []
    for arm in arms:
        baseline = _baseline(arm, arms)
        if baseline is None:
            continue
        for name, measure in _comparable_measures(baseline, arm).items():
            reason, parts = '', None
            units = baseline.members[0].run.predictions.parts()
            functions = [[measure(m) for m in side.members] for side in (baseline, arm)]
            try:
                if measure is _mean_ap:
                    _check_classes(baseline.members[0].run.predictions)
                parts = compare(units, _paired(functions), resamples=settings.resamples)
            except StatisticsError as error:
                reason = str(error)
            everything = np.arange(len(units))
            values = [[function(everything) for function in side] for side in functions]
            if any(value is None for side in values for value in side):
                continue
            starts = tuple(  # unknown ones may be any of the others
                None if side.pretrainings is None else [m.run.weights for m in side.members]
                for side in (baseline, arm)
            )
            seeds = compare_seeds(*values, starts=starts)
            found.append(Contrast(name, baseline, arm, parts, seeds, reason))
    return found


def _baseline(arm: Arm, arms: Sequence[Arm]) -> Arm | None:
    """Return what an arm is compared with: a taught student with the student alone, others with a baseline.

    It is one that learnt for as many epochs, or longer fine-tuning is told as the effect of the start. Where
    none did, it is the strongest that learnt as its config says, and `_uncovered` says so.

    Args:
        arm: One of `arms`.
        arms: Of one share of the labels, in the order of the tables.
    """
    alone = name_arm(arm.init.split(BETWEEN)[0], arm.members[0].run.facts)
    alike = [other for other in arms if other.epochs_factor == arm.epochs_factor]
    found = [other for other in alike if BETWEEN in arm.init and other.name == alone]
    found += sorted((other for other in alike if other.init in BASELINES), key=lambda o: _rank(o.init))
    if not found or found[0] is arm:
        found = [other for other in arms[:1] if other.name in BASELINES]
    return found[0] if found and found[0] is not arm else None


def _check_classes(said: Predictions) -> None:
    """Refuse to compare means over classes part by part, and the interval of one that hangs on few parts.

    The images of one part are mostly of one class, which any classifier ranks without a fault: twelve such
    parts showed no difference between an mAP of 0.46 and one of 1.

    Where one class is on a few of many parts, the mean hangs on them: six parts of one class and 54 of
    another gave an interval that excluded zero in 10 % of simulated sets without a true difference. With few
    parts in all, the exact test of a detector needs no such thing.
    """
    units = set(said.parts())
    if said.task == 'severity' and None not in units and len(units) < MIN_UNITS:
        raise StatisticsError(
            'mAP ranks the images of all parts, so that one part alone says nothing, and there are too few '
            'parts to draw from'
        )
    if said.task == 'detection':
        labels = [set(image.truth_labels[~image.ignored].tolist()) for image in said.inspected]
    else:
        labels = [{image['label']} for image in said.images]
    parts = {}
    for part, there in zip(said.parts(), labels, strict=True):
        for label in there:
            parts.setdefault(label, set()).add(part)
    counts = np.array([len(carrying) for carrying in parts.values()], float)
    # The parts of one class whose mean has as well known a spread (Welch and Satterthwaite).
    alike = 1.0
    if counts.min() > 1:
        alike += (1 / counts).sum() ** 2 / (1 / (counts**2 * (counts - 1))).sum()
    if alike < MIN_UNITS <= len(set().union(*parts.values())):
        rarest = min(parts, key=lambda label: len(parts[label]))
        raise StatisticsError(
            f'the mean over the classes hangs on {_count(len(parts[rarest]), "part")} with '
            f'{said.classes[rarest]}, which is too few'
        )


def _comparable_measures(baseline: Arm, arm: Arm) -> dict[str, Callable]:
    if baseline.members[0].run.predictions.task == 'severity':
        return {'mAP': _mean_ap}
    critical = baseline.members[0].run.predictions.classes[CRITICAL]
    return {
        'AP50': _mean_ap,
        f'recall of {critical} at {ALARMS} false alarms an image': lambda m: recall_at(m.matched, ALARMS),
    }


def _mean_ap(measured: Measured) -> Callable:
    return measured.run.predictions.mean_ap()


def _paired(sides: Sequence[Sequence[Callable]]) -> Callable:
    """Measure of two arms on the same images, each averaged over its seeds."""

    def measure(positions):
        values = [[f(positions) for f in side] for side in sides]
        return tuple(None if None in side else float(np.mean(side)) for side in values)

    return measure


# ------------------------------------------------------------------------------------------- the verdict


def verdict(groups: Sequence[Group]) -> tuple[str, str]:
    """Answer in two sentences whether pretraining on radiographs helps, and what would escape.

    The comparison told is one of a start alone, without a teacher and with a baseline that learnt as long; of
    these one on industrial radiographs, else on others than GDXray's, else on its protocol B; there the one
    with most runs, of equal ones that with most labels, then the first in the order of the tables; never the
    one with the best result on test.
    """
    told = [(g, c) for g in groups for c in g.contrasts if c.measure in ('AP50', 'mAP')]
    if not told:
        first = groups[0].arms[0]
        return (
            'No two arms were tested on the same images with the same recipe, so nothing can be said about '
            'pretraining.',
            _escapes([first], groups),
        )
    pretrained = [
        (g, c)
        for g, c in told
        if 'sim' in c.candidate.init
        and BETWEEN not in c.candidate.init
        and c.candidate.epochs_factor == c.baseline.epochs_factor
    ] or told
    group, chosen = max(pretrained, key=lambda pair: _weight(*pair))
    first, second = chosen.candidate, chosen.baseline
    labels = f' with {first.fraction} % of the labels' if first.fraction != 100 else ''
    answer = (
        f'On {group.dataset} ({group.backbone}){labels}, {first.name} reaches {chosen.measure} '
        f'{first.headline.mean:.3f} and {second.name} {second.headline.mean:.3f} '
        f'({_count(len(first.members), "seed")} and {len(second.members)}), {describe(chosen)}.'
    )
    if len(pretrained) > 1:
        verdicts = [c.parts.verdict if c.parts else '' for _, c in pretrained]
        answer += (
            f' Of {len(pretrained)} comparisons, on these test parts: '
            f'{verdicts.count("candidate higher")} better, {verdicts.count("candidate lower")} worse, '
            f'{verdicts.count(NO_DIFFERENCE)} {NO_DIFFERENCE}'
        )
        answer += f', {verdicts.count("")} without an interval.' if '' in verdicts else '.'
    return answer, _escapes([first, second], groups)


def _weight(group: Group, contrast: Contrast) -> tuple:
    """Order comparisons by how much they say of a plant's own radiographs; by nothing that test has shown."""
    rank = {LEAKY: 0, 'gdxray-b': 1, 'industrial': 3}.get(group.dataset, 2)
    return rank, len(contrast.baseline.members) + len(contrast.candidate.members), contrast.candidate.fraction


def describe(contrast: Contrast) -> str:
    """Say a difference with its interval, in words, and what the interval does not cover."""
    return _difference(contrast) + _uncovered(contrast)


def _difference(contrast: Contrast) -> str:
    parts, seeds = contrast.parts, contrast.seeds
    if parts is None:
        return f'difference {seeds.difference:+.3f}, without an interval ({contrast.reason})'
    words = {
        'candidate higher': f'{contrast.candidate.name} is better',
        'candidate lower': f'{contrast.candidate.name} is worse',
    }.get(parts.verdict, parts.verdict)
    if parts.low is not None:
        how = (
            f'{100 * parts.confidence:g} % interval {parts.low:+.3f} to {parts.high:+.3f}, bootstrap over '
            f'parts, {parts.units} of which carry the measure'
        )
    else:
        how = (
            f'mean over the parts; exact sign-flip test over {_count(parts.units, "part")}, p = '
            f'{parts.p_value:.3g}, which cannot be below {parts.smallest_p_value:.3g}'
        )
    if parts.verdict != NO_DIFFERENCE and seeds.low is None:
        words += f' on these parts; the chance of training is not known ({seeds.reason})'
    elif parts.verdict not in (NO_DIFFERENCE, seeds.verdict):
        over = 'pretrainings' if contrast.by_pretraining else 'seeds'
        said = 'zero is not excluded' if seeds.verdict == NO_DIFFERENCE else 'it is the other way round'
        words += f' on these parts, but over the {over} {said} ({seeds.low:+.3f} to {seeds.high:+.3f})'
    return f'difference {parts.difference:+.3f} ({how}): {words}'


def _uncovered(contrast: Contrast) -> str:
    parts, words = contrast.parts, ''
    where = 'known' if parts is None else 'in the test' if parts.low is None else 'in the interval'
    for arm in (contrast.candidate, contrast.baseline):
        if arm.pretrainings == 1 and len(arm.members) > 1:
            words += (
                f'; all seeds of {arm.name} start from one pretraining; how much another would change is not '
                f'{where}'
            )
        elif arm.pretrainings is None:
            words += f'; which pretraining a seed of {arm.name} starts from is not known'
    longer = [arm.epochs_factor for arm in (contrast.candidate, contrast.baseline)]
    if longer[0] != longer[1]:
        words += (
            f'; {contrast.candidate.name} may learn for {longer[0]:g}× the epochs of its config, '
            f'{contrast.baseline.name} for {longer[1]:g}×: no effect of the start alone'
        )
    if contrast.candidate.members[0].run.dataset == LEAKY:
        words += '; protocol A, whose test series are in training too'
    return words


def _escapes(arms: Sequence[Arm], groups: Sequence[Group]) -> str:
    """Say what escapes in some arms over their seeds, and what is proven of the one model chosen on val."""
    arms = [arm for arm in arms if arm.members[0].detection is not None]
    if not arms:
        return 'Escapes are counted for detectors; none is among the runs compared here.'
    fixed = list(dict.fromkeys(one.fixed for arm in arms for one in arm.members))
    told = []
    for arm in arms:
        critical = arm.members[0].run.predictions.classes[CRITICAL]
        at = ' or '.join(dict.fromkeys(one.fixed for one in arm.members))
        own = f', at the threshold {at},' if len(fixed) > 1 else ''
        escapes = [one.detection.escapes for one in arm.members]
        number = str(escapes[0])
        if len(escapes) > 1:
            number = f'{np.mean(escapes):.1f} ({min(escapes)} to {max(escapes)} over {len(escapes)} seeds)'
        told.append(
            f'{arm.name}{own} misses or misnames {number} of '
            f'{arm.members[0].detection.by_severity[critical].defects} {critical} boxes'
        )
    start = '' if len(fixed) > 1 else f'At the threshold {fixed[0]}, '
    return f'{start}{" and ".join(told)}; of {_proof(arms[0], groups)}'


def _proof(arm: Arm, groups: Sequence[Group]) -> str:
    """Say what is proven of the model chosen on val for the test set of an arm, else of its first seed."""
    first = arm.members[0].run
    found = [(g, a, one) for g in groups for a in g.arms for one in a.members if one.chosen]
    found = [(g, a, one) for g, a, one in found if one.run.tested_on == first.tested_on]
    group, owner, best = found[0] if found else (None, arm, arm.members[0])
    name = best.run.arm
    if best.run.group != first.group:
        name += f' of {group.name}'
    if owner.fraction != arm.fraction:
        name += f' with {owner.fraction} % of the labels'
    said = [] if best.run.seed is None else [f'seed {best.run.seed}']
    said += ['the best on val'] if best.chosen else []
    name += f' ({", ".join(said)})' if said else ''
    return f'{name}: {best.parts.statement if best.parts else best.notes[0]}'


def _count(number: int, what: str) -> str:
    return f'{number} {what}' + ('s' if number != 1 else '')
