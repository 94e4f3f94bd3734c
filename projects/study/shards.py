"""An archive inspected in shards, each a Snakemake job, and one table of all shards."""

import csv
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .launch import TOOL, carry_out

MARKERS = '.shards'  # below OUT, Snakemake's marks of done jobs; each shard's journal has its real state


def plan_shards(options: Sequence[str], out: Path, shards: int, minutes: int) -> list[dict[str, Any]]:
    """Return the jobs of an inspection, as `launch.carry_out` takes them.

    Args:
        options: Arguments of `tools/infer.py`, without --out and --shard.
        out: Folder of the shards' folders and, at the end, of the table.
        shards: Number of shards.
        minutes: Time limit of a shard on a cluster.
    """

    def job(name: str, tool: str, arguments: Sequence[str], needs: Sequence[str]) -> dict[str, Any]:
        command = shlex.join([sys.executable, str(TOOL.with_name(tool)), *arguments])
        if tool == 'infer.py':  # 3: no radiograph could be read, as if few damaged ones were left to do
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

    Each call starts every shard: a shard repeats no inspection, but inspects new files of the archive.

    Args:
        options: See `plan_shards`.
        out: See `plan_shards`; created if missing.
        shards: Number of shards.
        minutes: Time limit of a shard on a cluster.
        jobs: Number of jobs side by side; None for one here, and for the profile's number on a cluster.
        profile: Snakemake profile that says where the jobs go.
        further: Further options of Snakemake.

    Returns:
        The exit code: that of Snakemake, or 3 if no radiograph of the table could be read.
    """
    shutil.rmtree(out / MARKERS, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    plan = plan_shards(options, out, shards, minutes)
    where = ['--jobs', str(jobs)] if jobs else []
    where = ['--profile', profile, *where] if profile else ['--cores', str(jobs or 1)]
    code = carry_out(plan, out, [*where, *further])
    if code or not (out / MARKERS / 'table').exists():  # no table after a dry run
        return code
    with (out / 'images.csv').open(newline='', encoding='utf-8', errors='surrogateescape') as file:
        return 0 if len([row for row, _ in zip(csv.reader(file), range(2), strict=False)]) == 2 else 3
