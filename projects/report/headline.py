"""The top of the page: escape, false reject and proof of the one model that can be proven."""

from collections.abc import Sequence

from projects.measures.bounds import Rate

from .compare import Group
from .look_alikes import find_look_alikes
from .measured import Measured
from .proof import statement_of

REFUSED = 'Parts with a refused view, which go to an inspector'
WORDS = {
    '': 'why not: see the sentence below',
    'too few parts': 'too few critical parts in the test set',
    'too many escapes': 'too many parts escape for this rate',
    'refused': 'too many critical parts have a refused view, which counts as escaped',
    'luck': 'most rejections are by another detection alone',
    'all rejected': 'every sound part is rejected',
}


def headline(groups: Sequence[Group]) -> dict | None:
    """Return the run that can be proven, as tiles and a sentence.

    The run is an exported folder, else the one chosen on val, else the first detector.

    The tiles are escape, false reject and proof; for an exported folder, which refuses frames, also the share
    of refused parts.

    Returns:
        dict: `name`, `statement` and `tiles` (`title`, `value`, `note`, `look`); None without a detector.
    """
    detectors = [(g, a, m) for g in groups for a in g.arms for m in a.members if m.detection is not None]
    if not detectors:
        return None
    # No result on test chooses the run, only whether its folder or model was fixed before.
    group, arm, one = max(detectors, key=lambda row: (row[2].run.exported is not None, row[2].chosen))
    seed = '' if one.run.seed is None else f', seed {one.run.seed}'
    name = one.run.name if one.run.exported else f'{arm.name} of {group.name}{seed}'
    return dict(name=name, statement=statement_of(one), tiles=_tiles(one))


def without_statement(sentence: str, shown: dict | None) -> str:
    """Return the sentence on escapes without the statement that is already on top of the page."""
    if shown and sentence.endswith(shown['statement']) and '; of ' in sentence:
        return sentence[: -len(shown['statement'])].rpartition('; of ')[0] + '.'
    return sentence


def _tiles(one: Measured) -> list[dict]:
    proven = dict(title='Proof', value='Proven' if one.parts and one.parts.proven else 'No proof')
    if one.parts is None:
        unknown = dict(value='not estimable', note='parts not known', look='bad')
        return [
            dict(title='Critical parts that escape', **unknown),
            dict(title='Sound parts falsely rejected', **unknown),
            proven | dict(note='parts not known: see the sentence below', look='bad'),
        ]
    parts = one.parts
    goal = f'critical escape ≤ {parts.max_escape:.3g} with {parts.confidence:.0%} confidence'
    if parts.proven:
        note = f'{goal}; {find_look_alikes(one.run).note}'
    else:
        note = WORDS.get(parts.reason) or parts.reason.partition(':')[0]
    at = parts.measures
    tiles = [
        _rate('Critical parts that escape', at.escape, parts.max_escape, at.refused_critical, 'escaped'),
        _rate('Sound parts falsely rejected', at.false_reject, None, at.refused_sound, 'rejected'),
        proven | dict(note=note, look='good' if parts.proven else 'bad'),
    ]
    # A checkpoint without a folder refuses no frame.
    return [*tiles[:2], _rate(REFUSED, at.refused, None), tiles[2]] if one.run.exported else tiles


def _rate(title: str, rate: Rate, limit: float | None, refused: int = 0, counted: str = '') -> dict:
    if rate.rate is None or rate.upper is None:
        return dict(title=title, value='not estimable', note='no such part in the test set', look='bad')
    value, _, bound = str(rate).partition(' = ')
    if refused:
        bound += f'; {refused} of them with a refused view, counted as {counted}'
    look = '' if limit is None else 'good' if rate.upper <= limit else 'bad'
    return dict(title=title, value=value, note=bound, look=look)
