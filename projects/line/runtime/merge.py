"""One table of an archive that was inspected in shards, once all shards are complete."""

import json
import re
from pathlib import Path
from typing import Any

from .archive import DONE, JOURNAL, RUN, Summary
from .tables import ArchiveError, rows_of, write_tables

_KEYS = {'radiographs', 'opinion', 'head'}  # of a completed shard
_SHARD = re.compile(r'shard-([1-9][0-9]*)-of-([1-9][0-9]*)')


def merge_shards(out: Path) -> Summary:
    """Write the tables of all shards below a folder as one table, into the folder itself.

    Args:
        out: `--out` of the inspections, with `shard-1-of-n` to `shard-n-of-n`.

    Returns:
        Counts of the table.

    Raises:
        ArchiveError: Shards are missing, incomplete, of several divisions or runs, or share a radiograph; or
            there is no room. An earlier table then remains unchanged.
    """
    shards = _shards(out)
    done, count = _agreed(shards), Summary(0, 0, 0, 0, 0, 0)
    seen: set[str] = set()
    for folder in shards:
        before = len(seen)
        for row in rows_of(folder / JOURNAL):
            if row['image'] in seen:
                raise ArchiveError(
                    f'{folder}: {row["image"]} was inspected twice, expected each radiograph in one shard; '
                    'give another --out and inspect again'
                )
            seen.add(row['image'])
            count.radiographs += 1
            count.quarantined += 'error' in row
            count.rejected += row.get('verdict') == 'reject'
            count.flagged += bool(row.get('flagged'))
        completed = _read(folder / DONE)['radiographs']
        if len(seen) - before != completed:
            raise ArchiveError(
                f'{folder}: {len(seen) - before} radiographs in its journal, expected {completed} as at its '
                'completion; inspect the shard again'
            )
    try:
        write_tables(out, [folder / JOURNAL for folder in shards], done['head'], done['opinion'])
    except OSError as error:
        raise ArchiveError(
            f'{out}: expected room for the table ({error.strerror}); make some, and merge again'
        ) from None
    return count


def _shards(out: Path) -> list[Path]:
    """Return the folders of all shards, in their order."""
    found = {}
    for folder in out.glob('shard-*'):
        if (named := _SHARD.fullmatch(folder.name)) and folder.is_dir():
            found[int(named[2]), int(named[1])] = folder
    divisions = sorted({count for count, _ in found})
    if not found:
        raise ArchiveError(f'{out}: no shard-1-of-n, expected --out of tools/infer.py; correct the path')
    if len(divisions) > 1:
        shown = ' and of '.join(map(str, divisions))
        raise ArchiveError(f'{out}: shards of {shown}, expected one division; move the others away')
    count = divisions[0]
    missing = [
        f'{k}/{count}'
        for k in range(1, count + 1)
        if (count, k) not in found or not (found[count, k] / DONE).is_file()
    ]
    if missing:
        shown = ', '.join(missing[:5]) + (', …' if len(missing) > 5 else '')
        raise ArchiveError(
            f'{out}: {len(missing)} of {count} shards missing or not complete ({shown}); run tools/infer.py '
            f'again with --shard {missing[0]}: it goes on where it stopped'
        )
    return [found[count, k] for k in range(1, count + 1)]


def _agreed(shards: list[Path]) -> dict[str, Any]:
    """Return the content of the first shard's `done.json`, after a check that all shards belong together."""
    done = _read(shards[0] / DONE)
    run = _read(shards[0] / RUN)
    for folder in shards[1:]:
        if _read(folder / RUN) != run or _read(folder / DONE)['head'] != done['head']:
            raise ArchiveError(
                f'{folder}: of another detector, engine, threshold or archive than {shards[0].name} ({RUN}); '
                'inspect all shards alike'
            )
    return done


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict) or path.name == DONE and content.keys() != _KEYS:
            raise ValueError
        if path.name == DONE and not all(isinstance(c['name'], str) for c in content['head']['categories']):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ArchiveError(f'{path}: damaged; inspect the shard again') from None
    return content
