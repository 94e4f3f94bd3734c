"""The verdict in two sentences: whether pretraining helps, and which defects escape."""

from collections.abc import Sequence

import numpy as np

from projects.config.names import BETWEEN
from projects.measures.comparison import NO_DIFFERENCE
from projects.measures.images import CRITICAL

from .compare import Arm, Contrast, Group, correct
from .proof import statement_of

LEAKY = 'gdxray-a'  # protocol A: frames of the test series are in training too


def verdict(groups: Sequence[Group]) -> tuple[str, str]:
    """Answer in two sentences whether pretraining on radiographs helps, and which defects would escape.

    The first sentence describes one comparison. It compares starts alone: without a teacher, and with one
    schedule on both sides. Industrial radiographs come first, then any set other than GDXray, then
    GDXray's protocol B. Among the remaining comparisons, the one with most runs is chosen, then with most
    labels, then the first of the tables. Results on test do not affect the choice.
    """
    told = [(g, c) for g in groups for c in g.contrasts if c.measure in ('AP50', 'mAP')]
    if not told:
        return (
            'No arm has a baseline with the same images, recipe, share of the labels and schedule, so '
            'nothing can be said about pretraining.',
            _escapes(groups[0].arms, groups),
        )
    pretrained = [
        (g, c)
        for g, c in told
        if 'sim' in c.candidate.init
        and BETWEEN not in c.candidate.init
        and c.candidate.epochs_factor == c.baseline.epochs_factor
        and c.candidate.lr_factor == c.baseline.lr_factor
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
        verdicts = correct([c for _, c in pretrained])
        answer += (
            f' Of {len(pretrained)} comparisons, on these test parts and corrected for their number (Holm): '
            f'{verdicts.count("candidate higher")} better, {verdicts.count("candidate lower")} worse, '
            f'{verdicts.count(NO_DIFFERENCE)} {NO_DIFFERENCE}'
        )
        answer += f', {verdicts.count("")} without an interval.' if '' in verdicts else '.'
    return answer, _escapes([first, second], groups)


def _weight(group: Group, contrast: Contrast) -> tuple:
    """Rank comparisons by their relevance for a plant's own radiographs, not by results on test."""
    rank = {LEAKY: 0, 'gdxray-b': 1, 'industrial': 3}.get(group.dataset, 2)
    return rank, len(contrast.baseline.members) + len(contrast.candidate.members), contrast.candidate.fraction


def describe(contrast: Contrast) -> str:
    """Return in words a difference with its interval, and the uncertainty beyond the interval."""
    return _difference(contrast) + _uncovered(contrast)


def _difference(contrast: Contrast) -> str:
    parts, seeds, unit = contrast.parts, contrast.seeds, _unit(contrast)
    if parts is None:
        return f'difference {seeds.difference:+.3f}, without an interval ({contrast.reason})'
    words = {
        'candidate higher': f'{contrast.candidate.name} is better',
        'candidate lower': f'{contrast.candidate.name} is worse',
    }.get(parts.verdict, parts.verdict)
    how = f'p = {parts.p_value:.3g} of the {parts.method} over {_count(parts.units, unit)}'
    if parts.low is not None:
        how += f'; {100 * parts.confidence:g} % interval {parts.low:+.3f} to {parts.high:+.3f}'
    else:
        how += f', which cannot be below {parts.smallest_p_value:.3g}; too few {unit}s for an interval'
    if parts.verdict != NO_DIFFERENCE and seeds.low is None:
        words += f' on these {unit}s; the chance of training is not known ({seeds.reason})'
    elif parts.verdict not in (NO_DIFFERENCE, seeds.verdict):
        over = 'pretrainings' if contrast.by_pretraining else 'seeds'
        note = 'zero is not excluded' if seeds.verdict == NO_DIFFERENCE else 'it is the other way round'
        words += f' on these {unit}s, but over the {over} {note} ({seeds.low:+.3f} to {seeds.high:+.3f})'
    return f'difference {parts.difference:+.3f} ({how}): {words}'


def _unit(contrast: Contrast) -> str:
    return contrast.baseline.members[0].run.predictions.unit_name


def _uncovered(contrast: Contrast) -> str:
    parts, words = contrast.parts, ''
    where = 'known' if parts is None else 'in the test' if parts.low is None else 'in the interval'
    for arm in (contrast.candidate, contrast.baseline):
        if arm.pretrainings == 1 and len(arm.members) > 1:
            words += (
                f'; all seeds of {arm.name} start from one pretraining; the effect of another pretraining is '
                f'not {where}'
            )
        elif arm.pretrainings is None:
            words += f'; the pretraining of each seed of {arm.name} is not known'
    first, second = contrast.candidate, contrast.baseline
    for verb, by, what, ours, theirs in (
        ('is trained', 'for', 'the epochs', first.epochs_factor, second.epochs_factor),
        ('learns', 'at', 'the learning rate', first.lr_factor, second.lr_factor),
    ):
        if ours != theirs:
            words += (
                f'; {first.name} {verb} {by} {ours:g}× {what} of its config, {second.name} {by} {theirs:g}×: '
                'not an effect of the start alone'
            )
    if contrast.candidate.members[0].run.dataset == LEAKY:
        words += '; protocol A, whose test series are in training too'
    return words


def _escapes(arms: Sequence[Arm], groups: Sequence[Group]) -> str:
    """Return in words the escapes of some arms over their seeds, and the proof of the model chosen on val."""
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
    """Return in words the proof on an arm's test set: of the model chosen on val, else of the first seed."""
    first, images = arm.members[0].run, arm.members[0].image_set
    found = [(g, a, one) for g in groups for a in g.arms for one in a.members if one.chosen]
    found = [(g, a, one) for g, a, one in found if one.image_set == images]
    group, owner, best = found[0] if found else (None, arm, arm.members[0])
    name = best.run.arm
    if best.run.group != first.group:
        name += f' of {group.name}'
    if owner.fraction != arm.fraction:
        name += f' with {owner.fraction} % of the labels'
    details = [] if best.run.seed is None else [f'seed {best.run.seed}']
    details += ['the best on val'] if best.chosen else []
    name += f' ({", ".join(details)})' if details else ''
    return f'{name}: {statement_of(best)}'


def _count(number: int, what: str) -> str:
    return f'{number} {what}' + ('s' if number != 1 else '')
