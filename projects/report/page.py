"""The report of a comparison: one HTML page that opens from disk, report.json and CSV tables."""

import csv
import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import jinja2

from projects.config.configs import differences
from projects.measures.parts import PartCurve, gather_parts, part_curve
from projects.radiograph.files import write_whole

from . import gallery
from .charts import charts_of, pretraining_charts, seed_of
from .compare import Contrast, Group, gather
from .forest import forest
from .headline import headline, without_statement
from .measured import Measured, Settings, rejects_minor
from .paper import label
from .proof import statement_of
from .runs import Run, read_curves
from .tables import folded, pretraining_name, tables_of
from .verdict import describe, verdict

CHUNK = 200  # pictures per file beside the page: about a megabyte at most


def write_report(
    out: Path,
    runs: Sequence[Run],
    left_out: Sequence[str],
    settings: Settings,
    items: int = 500,
    command: str = '',
    latency: str = '',
    groups: Sequence[Group] | None = None,
) -> dict:
    """Measure and compare the runs, and write the report.

    Args:
        out: Folder of `index.html`, `report.json`, `*.csv`, `pictures/` and `real/`; created if missing.
        runs: Runs from `read_runs`.
        left_out: A line for each run that is left out.
        settings: Settings of the proof.
        items: Largest number of pictures in the page; pictures of further escapes go to `pictures/`. With 0
            there are no pictures. The tables list all items.
        command: Command that wrote the report.
        latency: Output of `tools/benchmark.py infer`.
        groups: Result of `gather` if the runs were measured already.

    Returns:
        dict: The content of report.json.
    """
    groups = gather(runs, settings) if groups is None else groups
    found = gallery.collect(groups)
    escapes = sum(item.kind in gallery.ESCAPES for item in found)
    # Pictures of escapes beyond the page's limit lie beside the page.
    records, unreadable = gallery.thumbnails(
        gallery.choose(found, max(items, escapes) if items else 0), out / 'real'
    )
    records, beside = records[:items], records[items:]
    part_curves = _part_curves(groups, settings)
    everything = tables_of(groups, part_curves, latency)
    sentences = verdict(groups)
    pretraining = _pretraining(runs)
    problems = [p for run in runs for p in run.curves.problems] + [
        p for _, c in pretraining for p in c.problems
    ]
    summary = dict(
        verdict=sentences,
        settings=dataclasses.asdict(settings),
        left_out=list(left_out),
        problems=[*problems, *unreadable],
        runs=[_run_record(m, part_curves) for g in groups for a in g.arms for m in a.members],
        comparisons=[_contrast_record(g, c) for g in groups for c in g.contrasts],
        pictures=dict(in_page=len(records), beside=len(beside)),
        command=command,
    )
    write_whole(out / 'report.json', json.dumps(_plain(summary), indent=1, allow_nan=False) + '\n')
    _write_tables(out, everything, found)
    page = _render(
        groups,
        part_curves,
        verdict=sentences,
        tables=[folded(table) for table in everything if table['rows']],
        pretraining=pretraining_charts(pretraining),
        pretrainings=[name for name, _ in pretraining],
        items=_script(records),
        choices=_script(_choices([*records, *beside])),
        chunks=_script(_write_chunks(out / 'pictures', beside)),
        shown=len(records),
        beside=len(beside),
        escapes=escapes,
        alarms=len(found) - escapes,
        left_out=left_out,
        problems=summary['problems'],
        command=command,
    )
    write_whole(out / 'index.html', page)
    return summary


def _render(groups: Sequence[Group], part_curves: dict[Path, PartCurve], verdict, **context) -> str:
    """Return the page: the proof on top, then the verdict, tables, pictures and charts."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    proof = headline(groups)
    return environment.get_template('page.html.j2').render(
        verdict=[verdict[0], without_statement(verdict[1], proof)],
        headline=proof,
        forest=forest(groups),
        groups=[
            dict(group=group, charts=charts_of(group, part_curves), matrices=_matrices(group))
            for group in groups
        ],
        notes=[f'{m.run.name}: {n}' for g in groups for a in g.arms for m in a.members for n in m.notes],
        diffs=[diff for group in groups for diff in _diffs(group)],
        **context,
    )


def _write_tables(out: Path, tables: Sequence[dict], found: Sequence[gallery.Item]) -> None:
    """Write the tables that have rows, and every escape and false alarm, as CSV."""
    for table in tables:
        file = out / f'{table["file"]}.csv'
        if table['rows']:
            _write_csv(file, table['header'], table['rows'])
        else:
            file.unlink(missing_ok=True)  # of an earlier report on other runs
    columns = ('kind', 'group', 'arm', 'seed', 'fraction', 'file', 'part', 'type', 'size', 'score')
    _write_csv(
        out / 'escapes_and_false_alarms.csv',
        [*columns, 'x1', 'y1', 'x2', 'y2'],
        [[*(getattr(item, c) for c in columns), *item.box] for item in found],
    )


def _script(value) -> str:
    """Return JSON that is safe inside a script element."""
    return json.dumps(value, separators=(',', ':')).replace('<', '\\u003c')


def _choices(records: Sequence[dict]) -> dict[str, list[str]]:
    """Return the choices of the gallery's filters, including those of pictures beside the page."""
    return {
        key: sorted({str(record[key]) for record in records})
        for key in ('kind', 'group', 'arm', 'type', 'part')
    }


def _write_chunks(folder: Path, records: Sequence[dict]) -> list[dict]:
    """Write pictures as scripts: without a server, a page can load scripts from disk, but not JSON.

    Returns:
        File and number of pictures of each script. The name holds a digest of the content, so that a page
        never loads the pictures of another report.
    """
    for stale in folder.glob('pictures-*.js'):
        stale.unlink()
    chunks = []
    for start in range(0, len(records), CHUNK):
        part = records[start : start + CHUNK]
        script = f'addPictures({_script(part)});\n'
        name = f'pictures-{hashlib.sha256(script.encode()).hexdigest()[:16]}.js'
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(script)
        chunks.append(dict(file=f'{folder.name}/{name}', pictures=len(part)))
    return chunks


def _plain(value):
    """Return a value in JSON's types: dataclasses become objects, and numbers that are not finite null."""
    if dataclasses.is_dataclass(value):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _write_csv(path: Path, header, rows) -> None:
    with path.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _part_curves(groups: Sequence[Group], settings: Settings) -> dict[Path, PartCurve]:
    """Return escape and false-reject rate over the threshold of each run whose parts are known, by folder."""
    return {
        m.run.folder: part_curve(
            gather_parts(m.matched, rejects_minor(m.run, settings)), also=[0, m.parts.threshold, 1]
        )
        for group in groups
        for arm in group.arms
        for m in arm.members
        if m.parts
    }


def _run_record(measured: Measured, part_curves) -> dict:
    run = measured.run
    return dict(
        run=run.name,
        arm=run.arm,
        dataset=run.dataset,
        backbone=run.backbone,
        fraction=run.fraction,
        seed=run.seed,
        pretraining=run.weights,
        **{k: run.result.get(k) for k in ('config', 'checkpoint', 'commit', 'hardware', 'date', 'versions')},
        metrics=run.result['metrics'],
        threshold=measured.threshold,
        threshold_fixed=measured.fixed,
        on_val=measured.on_val,
        chosen_on_val=measured.chosen,
        detection=measured.detection,
        recall_by_rule=measured.recalls,
        froc=measured.froc,
        false_calls=measured.false_calls,
        strata=measured.strata,
        population=run.predictions.population,
        statement=statement_of(measured) if measured.detection else None,
        exported=run.exported,
        parts=measured.parts,
        parts_threshold_fixed=measured.parts_fixed,
        part_curve=part_curves.get(run.folder),
        pod=measured.pods,
        confusion=measured.confusion,
        calibration=measured.calibration,
        notes=measured.notes,
        data=dict(test=run.predictions.ann_file, sha256=run.predictions.sha256),
    )


def _contrast_record(group: Group, contrast: Contrast) -> dict:
    return dict(
        group=group.name,
        fraction=contrast.candidate.fraction,
        measure=contrast.measure,
        baseline=contrast.baseline.name,
        candidate=contrast.candidate.name,
        pretrainings=dict(baseline=contrast.baseline.pretrainings, candidate=contrast.candidate.pretrainings),
        parts=contrast.parts,
        seeds=contrast.seeds,
        reason=contrast.reason,
        words=describe(contrast),
    )


# ---------------------------------------------------------------------------------- confusion, diffs, curves


def _matrices(group: Group) -> list[dict]:
    """Return the confusion of the first seed of each arm: title, header, rows."""
    matrices = []
    for arm in group.arms:
        measured = arm.members[0]
        classes = measured.run.predictions.classes
        if measured.confusion:
            header = ['truth', *(f'called {name}' for name in classes)]
            rows = [[name, *map(str, row)] for name, row in zip(classes, measured.confusion)]
        else:
            header = ['truth', 'found', *(['called another'] if len(classes) > 1 else []), 'missed']
            rows = []
            for name, f in measured.detection.by_severity.items():
                wrong = [str(f.wrong_severity)] if len(classes) > 1 else []
                rows.append([name, str(f.found), *wrong, str(f.missed)])
        title = label(arm) + seed_of([measured])
        matrices.append(dict(title=title, header=header, rows=rows))
    return matrices


def _diffs(group: Group) -> list[dict]:
    """Return the differences of the configs of every pair of arms."""
    firsts = {arm.name: arm.members[0].run for arm in group.arms[::-1]}
    pairs = itertools.combinations(sorted((n, r) for n, r in firsts.items() if r.config), 2)
    return [
        dict(
            title=f'{group.name}: {a} and {b}',
            header=['key', a, b],
            rows=[
                [key, repr(x), repr(y)] for key, (x, y) in differences(first.config, second.config).items()
            ],
        )
        for (a, first), (b, second) in pairs
    ]


def _pretraining(runs: Sequence[Run]) -> list[tuple[str, object]]:
    folders = dict.fromkeys(run.pretraining for run in runs if run.pretraining)
    return [(pretraining_name(folder), read_curves(folder)) for folder in folders]
