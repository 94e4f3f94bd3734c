"""Inspecting an archive: shards, restarts that repeat nothing, bad files set aside with their reason.

A shard's folder holds `journal.jsonl` with one line per radiograph, written once it is inspected. The journal
gives `coco.json`, `detections.csv`, `images.csv` and `quarantine.csv`. These are written whole, now and then
during the inspection and at its end; `done.json` marks a complete shard. The archive itself is only read.
"""

import hashlib
import json
import os
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2

from projects.radiograph.files import locked
from projects.radiograph.image import ImagingError
from projects.radiograph.listing import SUFFIXES, files_below, is_companion, may_be_dicom

from .inspector import Inspection, Inspector
from .pictures import overlay
from .tables import ArchiveError as ArchiveError
from .tables import rows_of, text_draft, write_tables

JOURNAL, RUN, DONE = 'journal.jsonl', 'run.json', 'done.json'
TABLES_SECONDS = 30.0  # least time between two writings of the tables while a shard is inspected
TABLES_RATIO = 20  # least ratio of that time to the duration of a writing, which grows with the journal
LONGEST_NAME = 230  # bytes; file systems allow 255, and a draft's name is longer
# Fields of the metadata that do not change a finding.
_ASIDE = (
    *('origin', 'calibration', 'parity', 'curve', 'threshold', 'threshold_reason', 'engines'),
    *('cost', 'max_false_reject', 'reference'),
)


Report = Callable[[str, Path, Inspection, Path], object]
"""Takes name and file of a radiograph, its inspection, and the file of its report."""


class NothingFoundError(ArchiveError):
    """There is no radiograph."""


@dataclass
class Summary:
    """Counts of a shard's radiographs.

    Attributes:
        radiographs: All in the journal, including those of an earlier run.
        rejected: Rejected, of all.
        quarantined: Set aside, of all.
        earlier: Inspected in an earlier run.
        tried: Inspected in this run.
        failed: Set aside, of those tried.
        flagged: Flagged by the second opinion, of all.
    """

    radiographs: int
    rejected: int
    quarantined: int
    earlier: int
    tried: int
    failed: int
    flagged: int = 0


def find_images(
    source: Path, passed_over: Callable[[list[str]], object] = lambda names: None
) -> tuple[Path, list[str]]:
    """List files below a folder that are or may be radiographs, sorted; or list one file.

    Each listed file is inspected, or set aside with its reason: somebody has to look at the part of a damaged
    copy. The list has files with a radiograph's suffix; files that begin as DICOM does, and all other files
    of their suffix; and files that cannot be read. Files without a suffix, or with a number as suffix, are
    listed except text and hidden files. `DICOMDIR` and macOS's `._` files are never listed.

    Args:
        source: The folder or file.
        passed_over: Called with the names of the other files.

    Returns:
        The root, and the paths relative to it.

    Raises:
        ArchiveError: Nothing is there, a folder cannot be listed, or a link leads nowhere: its target may
            have been a folder of radiographs.
    """
    if source.is_file():
        return source.parent, [source.name]
    try:
        # Follow links; a folder that cannot be read is an error, as its parts would escape.
        kinds = {name: _kind(source / name) for name in files_below(source, dangling=True)}
    except ImagingError as error:
        raise ArchiveError(str(error)) from None
    except OSError as error:
        raise ArchiveError(
            f'{error.filename}: expected a file or a folder ({error.strerror}); mend or remove it'
        ) from None
    suffixes = {Path(name).suffix.lower() for name, kind in kinds.items() if kind == 'DICOM'}
    found: list[str] = []
    others: list[str] = []
    for name, kind in kinds.items():
        of_suffix = kind == 'other' and Path(name).suffix.lower() in suffixes
        (found if kind in ('listed', 'DICOM') or of_suffix else others).append(name)
    passed_over(others)
    if not found:
        raise NothingFoundError(
            f'{source}: expected a radiograph or a folder with some ({", ".join(SUFFIXES)}), found none; '
            'correct the path'
        )
    return source, found


def _kind(path: Path) -> str:
    """Return how a file of an archive is treated.

    Returns:
        'listed'; 'DICOM', listed with all other files of its suffix; 'other'; or 'none', never listed.

    Raises:
        ArchiveError: The file is a link that leads nowhere; its target may have been a folder of radiographs.
    """
    if is_companion(path):
        return 'none'
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return 'listed'
    try:
        with path.open('rb') as stream:
            head = stream.read(132)
    except OSError:
        if path.is_symlink() and not path.exists():
            raise ArchiveError(
                f'{path}: links to {path.readlink()}, expected a file or a folder there, whose parts would '
                'escape; mount or copy it, or remove the link'
            ) from None
        return 'listed'
    dicom = head[128:] == b'DICM'
    if not may_be_dicom(suffix):
        return 'DICOM' if dicom else 'other'
    text = head and not re.search(rb'[\0-\x08\x0e-\x1a\x1c-\x1f]', head)
    return 'listed' if dicom or not text and not path.name.startswith('.') else 'other'


def check_apart(source: Path, out: Path) -> None:
    """Refuse an output folder inside the archive: its pictures would be inspected as radiographs.

    Raises:
        ArchiveError: `out` lies inside the folder `source`.
    """
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise ArchiveError(
            f'{out}: lies inside {source}, expected another place, as its pictures would be inspected as '
            'radiographs; give another --out'
        )


def parse_shard(text: str) -> tuple[int, int]:
    """Read 'i/n' with 1 <= i <= n.

    Raises:
        ArchiveError: The text is not of this form.
    """
    index, slash, count = text.partition('/')
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise ArchiveError(f"shard '{text}': expected i/n with 1 <= i <= n, such as 2/8")
    return int(index), int(count)


def shard_of(name: str, count: int) -> int:
    """Return the shard, from 1, of a radiograph by its name alone: added radiographs do not move others."""
    return zlib.crc32(os.fsencode(name)) % count + 1


def inspect_archive(
    inspector: Inspector,
    root: Path,
    names: list[str],
    out: Path,
    shard: tuple[int, int] = (1, 1),
    overlays: str = 'rejected',
    progress: Callable[[Iterator[Any], int, int], Iterable[Any]] = lambda rows, earlier, total: rows,
    report: Report | None = None,
) -> Summary:
    """Inspect one shard of an archive, or continue an earlier run of the shard.

    A radiograph is inspected again if its file has changed since or could not be read.

    Args:
        inspector: The detector.
        root: The archive.
        names: Paths of all its radiographs, relative to it.
        out: Folder of all shards; this one writes to `<out>/shard-<i>-of-<n>`.
        shard: (i, n), i from 1: do the radiographs of shard i, see `shard_of`.
        overlays: 'none', 'rejected' or 'all': the radiographs whose pictures are written to `overlays/`.
        progress: Takes the iterator of results, the number done in an earlier run and the total number;
            returns an iterator of the same items, for a progress bar.
        report: Writes a report of a radiograph to a file in `reports/`, before the journal records the
            radiograph.

    Raises:
        ArchiveError: The folder belongs to a run with another detector, engine, threshold or archive, another
            process uses it, or its journal is damaged.
    """
    index, count = shard
    folder = out / f'shard-{index}-of-{count}'
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, ArchiveError(f'{folder}: another process is inspecting this shard; wait for it')):
        try:
            return _inspect_shard(inspector, root, names, folder, shard, overlays, progress, report)
        except OSError as error:
            raise ArchiveError(
                f'{folder}: not written ({error.strerror or error}); make room there, then run the same '
                'command again: it goes on where it stopped'
            ) from None


def _inspect_shard(
    inspector: Inspector,
    root: Path,
    names: list[str],
    folder: Path,
    shard: tuple[int, int],
    overlays: str,
    progress: Callable[[Iterator[Any], int, int], Iterable[Any]],
    report: Report | None,
) -> Summary:
    """Inspect a shard whose folder is locked; see `inspect_archive`."""
    _claim(folder, inspector, root)
    (folder / DONE).unlink(missing_ok=True)
    mine = [name for name in names if shard_of(name, shard[1]) == shard[0]]
    done = _keep_valid(folder, root, set(mine))
    todo = [name for name in mine if name not in done]
    stamps: dict[str, list[int] | None] = {}
    failed = 0

    def files() -> Iterator[Path]:
        for name in todo:
            stamps[name] = stamp_of(root / name)  # before it is read
            yield root / name

    def counts() -> Summary:
        return _conclude(folder, inspector, len(mine) - len(todo), len(todo), failed)

    written, took = time.monotonic(), 0.0
    with (folder / JOURNAL).open('a') as journal:
        results = zip(todo, inspector.stream(files()), strict=True)
        for name, outcome in progress(results, len(mine) - len(todo), len(mine)):
            picture = folder / 'overlays' / fitting_name(name, '.png')
            if isinstance(outcome, Inspection) and (
                overlays == 'all' or overlays == 'rejected' and outcome.verdict == 'reject'
            ):
                _write_picture(picture, outcome, inspector.threshold)
            else:
                picture.unlink(missing_ok=True)  # of an earlier state of the file
            if report and isinstance(outcome, Inspection):
                report(name, root / name, outcome, folder / 'reports' / fitting_name(name, '.sr.dcm'))
            # After its picture: a line in the journal means that the radiograph is complete.
            journal.write(json.dumps(_row(name, outcome, stamps.pop(name))) + '\n')
            journal.flush()
            failed += isinstance(outcome, ImagingError)
            if time.monotonic() - written > max(TABLES_SECONDS, TABLES_RATIO * took):
                begin = time.monotonic()
                counts()
                written = time.monotonic()
                took = written - begin
    summary = counts()
    # Last: a shard without `done.json` is incomplete, and merge.py refuses it.
    done_with = dict(radiographs=summary.radiographs, opinion=bool(inspector.opinion), head=_head(inspector))
    with text_draft(folder / DONE) as file:
        file.write(json.dumps(done_with) + '\n')
    return summary


def fitting_name(name: str, end: str) -> str:
    """Append `end` to a path; a hash replaces the end of a last part that is too long for a file system."""
    path = Path(name)
    coded, room = os.fsencode(path.name), LONGEST_NAME - len(os.fsencode(end))
    if len(coded) <= room:
        return name + end
    digest = hashlib.sha256(coded).hexdigest()[:16]
    return str(path.with_name(coded[: room - len(digest) - 1].decode(errors='ignore') + f'-{digest}{end}'))


def stamp_of(path: Path) -> list[int] | None:
    """Return size in bytes and time of change in ns of a file; None if there is no such file."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return [facts.st_size, facts.st_mtime_ns]


def _keep_valid(folder: Path, root: Path, names: set[str]) -> set[str]:
    """Remove from a journal the radiographs to inspect again; returns the radiographs that remain.

    Rows of files that are no longer in the archive stay.
    """
    journal = folder / JOURNAL
    done: set[str] = set()
    stale: set[str] = set()
    for row in rows_of(journal):
        name = row['image']
        again = name in names and ('error' in row or row.get('stamp') != stamp_of(root / name))
        (stale if again else done).add(name)
    if stale:
        with text_draft(journal) as file:
            for row in rows_of(journal):
                if row['image'] not in stale:
                    file.write(json.dumps(row) + '\n')
    return done


def _claim(folder: Path, inspector: Inspector, root: Path) -> None:
    """Record the settings of a shard, or refuse to mix two runs; cut off an incomplete last line."""
    exported = inspector.exported
    settings = dict(
        archive=str(root.resolve()),
        engine=inspector.engine,
        threshold=inspector.threshold,
        checkpoint=exported.origin.get('sha256'),
        model=exported.origin.get('model_sha256'),
        **{key: value for key, value in asdict(exported).items() if key not in _ASIDE},
    )
    path = folder / RUN
    if path.is_file():
        try:
            earlier = json.loads(path.read_text())
        except ValueError:
            earlier = None
        if earlier != json.loads(json.dumps(settings)):
            raise ArchiveError(
                f'{folder}: holds results of another detector, engine, threshold or archive ({RUN}); give '
                'another --out'
            )
    with text_draft(path) as file:
        file.write(json.dumps(settings, indent=1) + '\n')
    journal = folder / JOURNAL
    if journal.is_file():
        with journal.open('rb+') as file:
            end = file.seek(0, os.SEEK_END)
            while end:  # back in steps, until a line ends
                start = max(end - 2**20, 0)
                file.seek(start)
                last = file.read(end - start).rfind(b'\n')
                end = start + last + 1 if last >= 0 else start
                if last >= 0:
                    break
            file.truncate(end)


def _row(name: str, outcome: Inspection | ImagingError, stamp: list[int] | None) -> dict[str, Any]:
    if isinstance(outcome, ImagingError):
        return dict(image=name, error=str(outcome))
    masks = {}
    if outcome.masks is not None:
        masks['masks'] = [mask.rle(outcome.pixels.shape) for mask in outcome.masks]
    opinion = {} if outcome.unusual is None else dict(unusual=outcome.unusual, flagged=outcome.flagged)
    return dict(
        opinion,
        image=name,
        stamp=stamp,
        height=outcome.pixels.shape[0],
        width=outcome.pixels.shape[1],
        verdict=outcome.verdict,
        risk=outcome.risk,
        folder=outcome.folder,
        # float32 in full precision: every number can be read back exactly.
        boxes=outcome.boxes.tolist(),
        scores=outcome.scores.tolist(),
        labels=outcome.labels.tolist(),
        **masks,
    )


def _conclude(folder: Path, inspector: Inspector, earlier: int, tried: int, failed: int) -> Summary:
    """Write the tables of a shard from its journal."""
    counts = Summary(0, 0, 0, earlier, tried, failed)
    for row in rows_of(folder / JOURNAL):
        counts.radiographs += 1
        counts.quarantined += 'error' in row
        counts.rejected += row.get('verdict') == 'reject'
        counts.flagged += bool(row.get('flagged'))
    write_tables(folder, [folder / JOURNAL], _head(inspector), bool(inspector.opinion))
    return counts


def _head(inspector: Inspector) -> dict[str, Any]:
    """Return `info` and `categories` of a COCO file of results."""
    return dict(
        info=dict(
            description='detections',
            threshold=inspector.threshold,
            folder=inspector.digest,
            origin=inspector.exported.origin,
        ),
        categories=[dict(id=k + 1, name=name) for k, name in enumerate(inspector.exported.classes)],
    )


def _write_picture(path: Path, inspection: Inspection, threshold: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coded, content = cv2.imencode('.png', overlay(inspection, threshold))
    if not coded:
        raise ArchiveError(f'{path}: the overlay could not be coded as PNG; run with --overlays none')
    path.write_bytes(content.tobytes())
