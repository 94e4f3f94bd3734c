"""One proof per set of images: for the one model chosen on val, on parts that the model has not seen."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from projects.measures.parts import floored
from projects.measures.strata import describe_worst
from projects.radiograph.parts import part_by_rule, recorded_part
from projects.runs.digests import digest
from projects.runs.population import digest_images, population_in_words

from .look_alikes import find_look_alikes
from .measured import Measured
from .predictions import Predictions
from .runs import Run

NAME_PARTS = 'give every image its `part`: convert_dataset.py --group'

# Reasons that void a proof: `OperatingPoint.reason`.
OTHER_CHOSEN = 'another model was chosen on val'
NOT_FIXED = 'model not fixed on val'
COPIES = 'one image of test stands for several parts'
PARTS_SEEN = 'parts of test are in {side}'
IMAGES_SEEN = 'images of test are in {side}'


def by_images(measured: Sequence[Measured]) -> list[list[Measured]]:
    """Group runs whose test sets share an image, by its content or by its name and boxes.

    The images define a test set. A file saved again, a subset, or a copy under another name is not a second
    set that could prove something else.
    """
    groups: list[tuple[set, list[Measured]]] = []
    for one in measured:
        keys, members = _image_keys(one.run.predictions), [one]
        apart = []
        for group in groups:
            if group[0] & keys:
                keys |= group[0]
                members = group[1] + members
            else:
                apart.append(group)
        groups = [*apart, (keys, members)]
    return [members for _, members in groups]


def _image_keys(predictions: Predictions) -> set:
    """Return the keys that identify the images of a test set: content, and name with size and boxes."""
    if predictions.task != 'detection':
        return {(predictions.task, predictions.sha256)}
    keys: set = {('content', digits) for digits in predictions.digests.values()}
    return keys | _named(predictions.truth)


def _named(coco: Mapping, with_boxes: bool = False) -> set:
    """Return name, size and boxes of each image of a COCO dict; `with_boxes` skips images without boxes."""
    boxes: dict = {image.get('id'): [] for image in coco['images']}
    for annotation in coco.get('annotations', ()):
        boxes[annotation['image_id']].append(tuple(annotation['bbox']))
    return {
        (image.get('file_name'), image.get('width'), image.get('height'), *sorted(boxes[image.get('id')]))
        for image in coco['images']
        if boxes[image.get('id')] or not with_boxes
    }


def keep_one_proof(measured: Sequence[Measured]) -> None:
    """Keep the proof of one run per set of images, and only on parts that this run has not seen.

    An exported folder precedes a checkpoint, since the folder runs on the line; of several folders, the best
    on val counts. The statements of the other runs say that the bound of their escape rate does not hold.

    The bound holds for one model that was fixed before test was opened. For the best of eight models on the
    test set, the bound was broken in 21 % of simulated sets instead of 5 %, whether the eight differ in their
    seed, their backbone or their share of the labels.

    Args:
        measured: The runs on one set of images; `chosen` and `parts` are changed.
    """
    exports = [one for one in measured if one.run.exported]
    able = exports or list(measured)
    on_val = [one for one in able if one.on_val is not None]
    fixed = len({one.run.val_sha256 for one in on_val}) == 1  # results on two val sets do not compare
    if fixed:
        max(on_val, key=lambda one: one.on_val).chosen = True
    for one in measured:
        if one.parts is None:
            continue
        if one.chosen:
            why = unfit_for_proof(one.run)
        elif exports and not one.run.exported:
            why = 'an exported folder was tested on these images, and the folder runs on the line'
        elif fixed and one.on_val is not None:
            why = OTHER_CHOSEN
        else:
            why = NOT_FIXED
        one.parts = replace(
            one.parts,
            proven=one.parts.proven and not why,
            reason=one.parts.reason or why,
            statement=_statement(one, why, len(able) - len(on_val)),
        )


def _statement(one: Measured, why: str, unknown: int) -> str:
    """Return the statement on the parts of a run, with the reason that voids its proof, if any."""
    statement = one.parts.statement
    if why and one.parts.proven:
        escape = one.parts.measures.escape
        return (
            f'{escape.events} of {escape.units} critical parts escaped at score >= '
            f'{floored(one.parts.threshold)}; no proof: {why}.'
        )
    if why and one.parts.measures.escape.units:  # the statement has a bound as well
        statement += f' No bound holds: {why}.'
    if not why and unknown:
        statement += (
            f' {unknown} run{"s" if unknown != 1 else ""} without predictions of val on this test set took '
            'no part in the choice of the model.'
        )
    return statement


def statement_of(one: Measured) -> str:
    """Return the statement on a run: its proof and population, or why there is none; the worst stratum."""
    if one.parts is None:
        return no_parts(one)
    sentences = [one.parts.statement, describe_worst(one.strata or [])]
    if one.parts.proven:
        notes = find_look_alikes(one.run).sentence, population_in_words(one.run.predictions.population)
        sentences[1:1] = notes
    return ' '.join(filter(None, sentences))


def no_parts(one: Measured) -> str:
    """Return why the escapes of a run cannot be counted, so that there is no proof."""
    if one.run.predictions.task != 'detection':
        return 'No proof: escapes are counted for detectors.'
    why = next((note for note in one.notes or () if note.startswith('parts: ')), 'parts: not measured')
    return f'No proof: {why.removeprefix("parts: ")}.'


@dataclass
class _Seen:
    """Parts and images of training or val.

    Attributes:
        parts: Parts by id and by rule.
        named: Name, size and boxes of each image with a box.
        contents: Digests of the images, see `population.digest_content`.
        unknown: Why the parts are unknown; '' if they are known.
    """

    parts: set[str | None]
    named: set
    contents: set[str]
    unknown: str = ''


def unfit_for_proof(run: Run) -> str:
    """Return why escapes of these test parts prove nothing about other parts.

    Training or val has seen the test parts, or this cannot be excluded. Two images count as the same by their
    content, or by name, size and boxes, whatever part their records name.

    Returns:
        The reason; '' if every part of training and val is known and none of them is in test.
    """
    test = run.predictions
    if _copied(test):
        return COPIES
    if test.sha256 in run.val_files().values():
        return 'the test set is the validation set of the export'
    known = {part for part in test.parts() if part is not None}
    if len({part.casefold() for part in known}) < len(known):
        return 'ids of parts of test differ in upper and lower case alone'
    tested, own = _parts(test.records(), test.part_rule), _named(test.truth, with_boxes=True)
    seen = {'val': _seen_by_val(run), 'train': _seen_by_training(run)}
    for side, of in seen.items():
        if (tested & of.parts) - {None}:
            return PARTS_SEEN.format(side=side)
        if own & of.named or set(test.digests.values()) & of.contents:
            return IMAGES_SEEN.format(side=side)
    for side, of in seen.items():
        if of.unknown:
            return f'parts of {"training" if side == "train" else side} not known: {of.unknown}'
    return ''


def _seen_by_val(run: Run) -> _Seen:
    """Return parts and images that fixed threshold and model: of val, or of an export's validation set."""
    rule = run.predictions.part_rule
    if run.val is None:
        files = run.val_files()
        return _seen_in(run, files) if files else _nothing_noted('val')
    parts = _parts(run.val.records(), rule, run.val.part_rule)
    lacking = f'images of {run.val.ann_file} have no part id ({NAME_PARTS})' if None in parts else ''
    named = _named(run.val.truth, with_boxes=True)
    return _Seen(parts, named, set(run.val.digests.values()), lacking)


def _seen_by_training(run: Run) -> _Seen:
    files, noted = run.train_files()
    if not files:
        return _nothing_noted('training')
    return _seen_in(run, files, noted)


def _nothing_noted(side: str) -> _Seen:
    return _Seen(set(), set(), set(), f'no annotation file of {side} is recorded')


def _seen_in(run: Run, files: Mapping[str, str | None], noted: bool = True) -> _Seen:
    """Read annotation files and the images beside them.

    Args:
        run: The run.
        files: Annotation files with their recorded SHA-256.
        noted: Whether a SHA-256 was recorded; otherwise the present files are read without a check.
    """
    rule, seen = run.predictions.part_rule, _Seen(set(), set(), set())
    for file, sha256 in files.items():
        coco = _read(file) if not noted or _is_still(file, sha256) else {}
        if not coco:
            seen.unknown = f'{file} is missing, or has changed since it was recorded'
            continue
        parts = _parts_in(coco, rule)
        if None in parts:
            seen.unknown = f'images of {file} have no part id ({NAME_PARTS})'
        seen.parts |= parts
        seen.named |= _named_in(coco)
        if run.predictions.digests:
            names = [i['file_name'] for i in _images_in(coco) if i.get('file_name')]
            seen.contents |= set(digest_images(run.image_folder(file), names).values())
    return seen


def _copied(predictions: Predictions) -> bool:
    """Whether images of the same content have several part ids, each of which would count as a part."""
    parts: dict[str, set] = {}
    for name, part in zip(predictions.names(), predictions.parts(), strict=True):
        if name in predictions.digests and name not in predictions.refused:  # blank frames have equal content
            parts.setdefault(predictions.digests[name], set()).add(part)
    return any(len(shown) > 1 for shown in parts.values())


def _parts(images: Sequence[Mapping], *rules: str | None) -> set[str | None]:
    """Return the parts of images, by their ids and by the rules of the data sets; None for an image without.

    The ids are in lower case: typed by hand, P07 and p07 are the same part.
    """
    found: set[str | None] = set()
    for image in images:
        by_rule = {part_by_rule(rule, image.get('file_name', '')) for rule in rules}
        found |= ({recorded_part(image)} | by_rule) - {None} or {None}
    return {part and part.casefold() for part in found}


def _is_still(file: str, sha256: str | None) -> bool:
    """Whether a file still has the recorded content; False if it cannot be read."""
    try:
        return sha256 is not None and digest(Path(file)) == sha256
    except OSError:
        return False


def _read(file: str) -> dict:
    """Read an annotation file; {} if it cannot be read."""
    try:
        return json.loads(Path(file).read_text())
    except (OSError, ValueError):
        return {}


def _images_in(coco: Mapping) -> list[Mapping]:
    """Return the image records of an annotated set; [] if it is not a COCO dict."""
    images = coco.get('images') if isinstance(coco, Mapping) else None
    return [image for image in images if isinstance(image, Mapping)] if isinstance(images, list) else []


def _parts_in(coco: Mapping, rule: str | None) -> set[str | None]:
    """Return the parts of an annotated set; None among them stands for unknown parts."""
    info = coco.get('info') if isinstance(coco, Mapping) else None
    own = info.get('group') if isinstance(info, Mapping) else None
    try:
        return _parts(_images_in(coco), rule, own) or {None}
    except TypeError:
        return {None}


def _named_in(coco: Mapping) -> set:
    """Return name, size and boxes of the images of an annotated set; empty if it is not a COCO dict."""
    try:
        return _named(coco, with_boxes=True)
    except (KeyError, TypeError, AttributeError):
        return set()
