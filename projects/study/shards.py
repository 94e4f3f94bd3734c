"""An archive inspected in shards, each a job of Snakemake's, and one table of all of them."""

import csv
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .launch import TOOL, carry_out

MARKERS = '.shards'  # below OUT: what Snakemake takes for done; what is inspected, the shards say themselves


def plan_shards(options: Sequence[str], out: Path, shards: int, minutes: int) -> list[dict[str, Any]]:
    """Return the jobs of an inspection, as `launch.carry_out` takes them.

    Args:
        options: What follows `tools/infer.py`, without --out and --shard.
        out: Where each shard gets its folder; below it lies the table in the end.
        shards: How many.
        minutes: That a shard may take on a cluster.
    """

    def job(name: str, tool: str, arguments: Sequence[str], needs: Sequence[str]) -> dict[str, Any]:
        command = shlex.join([sys.executable, str(TOOL.with_name(tool)), *arguments])
        if tool == 'infer.py':  # 3: none of those to do could be read, which may be the few damaged ones
            command = f'( {command} || [ $? -eq 3 ] )'
        marker = f'{MARKERS}/{name}'
        done = shlex.quote(str(out.resolve() / marker))
        return dict(
            name=name,
            needs=list(needs),
            marker=marker,
            priority=1,
            gpu=0,
            minutes=minutes,
            command=f'cd {shlex.quote(str(Path.cwd()))} && {command} && touch {done}',
        )

    jobs = [
        job(f'shard_{k}', 'infer.py', [*options, '--out', str(out), '--shard', f'{k}/{shards}'], [])
        for k in range(1, shards + 1)
    ]
    return [*jobs, job('table', 'merge_shards.py', [str(out)], [each['marker'] for each in jobs])]


def inspect_shards(
    options: Sequence[str],
    out: Path,
    shards: int,
    minutes: int,
    jobs: int | None,
    profile: str | None,
    further: Sequence[str] = (),
) -> int:
    """Inspect all shards, side by side or as jobs of a cluster, and merge them.

    Each shard is started again: it repeats nothing, but takes what is new in the archive.

    Args:
        options: See `plan_shards`, as are `out`, `shards` and `minutes`.
        out: Made where it is not there.
        shards: How many.
        minutes: Of a shard on a cluster.
        jobs: Side by side; None for one here, and as many as the profile says on a cluster.
        profile: A profile of Snakemake's, which says where the jobs go.
        further: Options of Snakemake's.

    Returns:
        The exit code: that of Snakemake, or 3 where no radiograph of the table could be read.
    """
    shutil.rmtree(out / MARKERS, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    plan = plan_shards(options, out, shards, minutes)
    where = ['--jobs', str(jobs)] if jobs else []
    where = ['--profile', profile, *where] if profile else ['--cores', str(jobs or 1)]
    code = carry_out(plan, out, [*where, *further])
    if code or not (out / MARKERS / 'table').exists():  # of a dry run
        return code
    with (out / 'images.csv').open(newline='', encoding='utf-8', errors='surrogateescape') as file:
        return 0 if len([row for row, _ in zip(csv.reader(file), range(2), strict=False)]) == 2 else 3
