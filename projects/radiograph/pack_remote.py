"""Packing into a store behind a URL: each shard is written locally and uploaded, so a kill costs one shard.

The unfinished store lies in the local folder of `blocks.py`. A closed shard is uploaded first, its lines of
the index second; a shard counts once its lines are uploaded. A run on another machine resumes from these
lines, so that the loss of the local folder costs one shard. The whole index and a head marked as finished
come last. The files are byte for byte those of a local store.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from .blocks import cache_folder
from .claim import CLAIM, Claim
from .files import locked
from .pack import pack
from .recipe import Recipe, StoreError
from .remote import join, list_files, read_bytes, remove, upload, write_bytes
from .store import HEAD, LINES, Store, again, open_store, shard_name


def pack_to_url(
    source: str | Path,
    url: str,
    recipe: Recipe,
    group: str | None = None,
    workers: int = 1,
    progress: Callable[[Iterator[Any], int], Iterator[Any]] = lambda results, total: results,
) -> tuple[Store, dict[str, str]]:
    """Pack radiographs into a store behind a URL, or resume a run that was killed, here or elsewhere.

    Args:
        source: see `pack.pack`.
        url: URL of the store; one process at a time writes to it, see `claim`.
        recipe: see `pack.pack`.
        group: see `pack.pack`.
        workers: see `pack.pack`.
        progress: see `pack.pack`.

    Raises:
        StoreError: see `pack.pack`.
        RemoteError: the URL cannot be read or written.
    """
    url = url.rstrip('/')
    if url.startswith(('http://', 'https://')):
        raise StoreError(f'{url}: expected a URL to write to, such as s3://bucket/packed; give another OUT')
    place = cache_folder() / 'packing' / hashlib.sha256(url.encode()).hexdigest()[:32]
    place.mkdir(parents=True, exist_ok=True)
    with locked(place, StoreError(f'{url}: another process is packing into it; wait for it')):
        there = set(list_files(url)) - {CLAIM}
        strangers = sorted(there) if HEAD not in there else []
        if strangers:
            raise StoreError(f'{url}: expected a new folder, found {strangers[0]}; give another OUT')
        draft = place / 'store'
        with Claim(url, place) as claim:
            there = set(list_files(url)) - {CLAIM}  # files that another machine left
            left_out = _pack(source, url, draft, recipe, group, workers, progress, there, claim)
        shutil.rmtree(draft)
    open_store.cache_clear()
    return open_store(url), left_out


def _pack(
    source: str | Path,
    url: str,
    draft: Path,
    recipe: Recipe,
    group: str | None,
    workers: int,
    progress: Callable[[Iterator[Any], int], Iterator[Any]],
    there: set[str],
    claim: Claim,
) -> dict[str, str]:
    """Pack into a URL that this process has claimed; return the reason for each file that was left out."""
    _take_up(draft, url, there)

    def begin(results: Iterator[Any], total: int) -> Iterator[Any]:
        # The head is written before any radiograph is decoded, so that missing write access fails now.
        if HEAD not in there:
            write_bytes(join(url, HEAD), (draft / HEAD).read_bytes())
            there.add(HEAD)
        return progress(claim.renewed(results), total)

    def closed(number: int) -> None:
        claim.check()
        _upload_shard(draft, url, number)
        if number:
            (draft / shard_name(number - 1)).unlink(missing_ok=True)

    _, left_out = pack(source, draft, recipe, group, workers, begin, closed)
    claim.check()
    _finish(draft, url, HEAD in there)
    return left_out


def _finish(draft: Path, url: str, begun: bool) -> None:
    """Upload the last shard, the whole index and the finished head; remove the parts of the index."""
    head = (draft / HEAD).read_bytes()
    if not begun or head != read_bytes(join(url, HEAD)):
        last = shard_name(int(np.fromfile(draft / 'index.bin', LINES)['shard'][-1]))
        for name in (last, 'names.bin', 'index.bin'):
            if (draft / name).exists():  # the shards of a finished store are not local
                upload(draft / name, join(url, name))
        write_bytes(join(url, HEAD), head)
    for name in list_files(url):
        if name.startswith(('index-', 'names-')):
            remove(join(url, name))


def _upload_shard(draft: Path, url: str, number: int) -> None:
    """Upload a shard, then its lines of the index."""
    lines = np.fromfile(draft / 'index.bin', LINES)
    own = lines[lines['shard'] == number]
    first, last = int(own['text'][0]), own[-1]
    end = int(last['text']) + int(last['name_bytes']) + int(last['part_bytes'])
    upload(draft / shard_name(number), join(url, shard_name(number)))
    write_bytes(join(url, f'names-{number:05d}.bin'), (draft / 'names.bin').read_bytes()[first:end])
    write_bytes(join(url, f'index-{number:05d}.bin'), own.tobytes())


def _take_up(draft: Path, url: str, there: set[str]) -> None:
    """Prepare the local files to resume from; they come from the URL where it holds more than this folder."""
    draft.mkdir(parents=True, exist_ok=True)
    if HEAD not in there:
        # The remote store was removed or never begun: only a first, unfinished local shard still counts.
        finished = (draft / HEAD).exists() and json.loads((draft / HEAD).read_text())['finished']
        if finished or (draft / shard_name(1)).exists():
            _empty(draft)
        return
    head = read_bytes(join(url, HEAD))
    if json.loads(head)['finished']:
        _empty(draft)
        for name in (HEAD, 'index.bin', 'names.bin'):
            (draft / name).write_bytes(head if name == HEAD else read_bytes(join(url, name)))
        return
    numbers = sorted(int(name[6:11]) for name in there if name.startswith('index-'))
    missing = [n for n in numbers if not {shard_name(n), f'names-{n:05d}.bin'} <= there]
    if missing or numbers != list(range(len(numbers))):
        raise StoreError(f'{url}: an unfinished store with shards missing; {again(url)}')
    known = np.empty(0, LINES)
    with suppress(OSError):
        known = np.fromfile(draft / 'index.bin', LINES)
    if (draft / HEAD).exists() and len(known) and known['shard'][-1] >= max(numbers, default=0):
        return
    _empty(draft)
    (draft / HEAD).write_bytes(head)
    for what in ('index', 'names'):
        parts = [read_bytes(join(url, f'{what}-{n:05d}.bin')) for n in numbers]
        (draft / f'{what}.bin').write_bytes(b''.join(parts))
    if numbers:  # packing checks whether the last shard is whole
        (draft / shard_name(numbers[-1])).write_bytes(read_bytes(join(url, shard_name(numbers[-1]))))


def _empty(draft: Path) -> None:
    shutil.rmtree(draft)
    draft.mkdir(parents=True)
