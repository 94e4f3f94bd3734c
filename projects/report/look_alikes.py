"""Whether a check looked for lossy copies and crops of test images, which no digest finds."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from projects.runs.digests import digest, read_json

from .runs import Run

RECORD = 'dataset.json'  # of tools/check_dataset.py
SIDES = ('train, test', 'val, test')


@dataclass
class LookAlikes:
    """The result of a check for test images that resemble images of training or val.

    Attributes:
        images: Number of such test images; None without a check.
        sentence: The result and the remedy.
        note: The result in a few words.
    """

    images: int | None
    sentence: str
    note: str


def find_look_alikes(run: Run) -> LookAlikes:
    """Return the result of the newest check that covers the annotation files of a run.

    tools/check_dataset.py writes its record to the folder of the run or to another folder of `work_dirs`.
    """
    covering = [(str(r.get('date')), path, r) for path, r in _records(run) if _covers(r, run)]
    if not covering:
        return LookAlikes(
            None,
            'Lossy copies and crops of these images in training or val were not looked for: no check of '
            'these annotation files is on record (tools/check_dataset.py CONFIG).',
            'near duplicates not looked for',
        )
    date, path, record = max(covering, key=lambda found: found[0])
    images = sum(record['resembling'].get(sides, 0) for sides in SIDES)
    of = f'(near duplicates and crops; tools/check_dataset.py, {date[:10]})'
    if not images:
        return LookAlikes(
            0, f'No image resembles one of training or val {of}.', 'no near duplicates in training or val'
        )
    return LookAlikes(
        images,
        f'{images} of these images resemble one of training or val {of}: look at the pairs in '
        f'{path.with_suffix(".html")} before you rely on this. A copy on both sides voids the proof; other '
        'parts of one design may look alike.',
        f'{images} images resemble one of training or val: look at them',
    )


def _records(run: Run) -> Iterator[tuple[Path, Mapping]]:
    """Yield the available records of checks, with their files."""
    for path in (run.folder / RECORD, *sorted(Path('work_dirs').glob(f'*/{RECORD}'))):
        try:
            record = read_json(path)
        except (OSError, UnicodeDecodeError):
            continue
        if isinstance(record, Mapping) and isinstance(record.get('resembling'), Mapping):
            yield path, record


def _covers(record: Mapping, run: Run) -> bool:
    """Whether a check read the very annotation files of training, val and test."""
    files, _ = run.train_files()
    whole = run.facts.get('labels_sha256') or {}  # file of a share -> the file from which it was drawn
    trained = [{sha256 or digest(Path(file)), whole.get(file)} for file, sha256 in files.items()]
    on_val = [run.val.sha256] if run.val else list(run.val_files().values())
    try:
        read = {
            side: {s['sha256'] for s in record['sets'] if s['name'].split()[0] == side} - {None}
            for side in ('train', 'val', 'test')
        }
    except (KeyError, TypeError, AttributeError):
        return False
    return (
        run.predictions.sha256 in read['test']
        and bool(trained and on_val)
        and all(any_of & read['train'] for any_of in trained)
        and all(sha256 in read['val'] for sha256 in on_val)
    )
