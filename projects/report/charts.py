"""Charts of a report as SVG text, small enough for a telephone at their own size.

Matplotlib draws them, not a library in the browser: it is a dependency already, and its SVG has some
kilobytes instead of a megabyte of script. SVG can be printed, needs no network, and every browser opens it.
"""

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from projects.measures.flaws import ceiled
from projects.measures.images import CRITICAL
from projects.measures.parts import PartCurve, floored
from projects.measures.ranking import precision_recall

from .compare import Arm, Group
from .measured import Measured
from .paper import label
from .runs import Curves

matplotlib.use('svg')

# Okabe and Ito's colours, which colour-blind readers can distinguish; not yellow, which is faint on white.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#000000')
STYLES = ('-', '--', '-.', ':')
POINTS = 200  # of a curve: more would not be visible
WRAP = 56  # characters of a line below a chart
POD_LEVELS = (0, 0.1, 0.5, 0.9, 1)
STYLE = {
    'svg.fonttype': 'none',
    'font.family': 'sans-serif',
    'font.size': 9,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'grid.color': '#dddddd',
    'grid.linewidth': 0.6,
    'legend.frameon': False,
    'legend.fontsize': 8,
    'lines.linewidth': 1.6,
}


def _draw(name: str, title: str, x: str, y: str, plot) -> dict:
    """Draw one chart.

    Returns:
        dict: `title`, `svg`.
    """
    # The salt keeps the identifiers of charts in one page apart.
    with matplotlib.rc_context({**STYLE, 'svg.hashsalt': name}):
        figure = Figure(figsize=(4.2, 3.1), layout='constrained')
        axes = figure.add_subplot()
        plot(axes)
        axes.set(xlabel=x, ylabel=y)
        for line in axes.lines:
            if len(line.get_xdata()) == 1 and line.get_marker() in ('', 'None'):
                line.set(marker='o', markersize=4)  # a line through one point would not be seen
        handles, labels = axes.get_legend_handles_labels()
        if len(labels) > 1:
            # Below the axes, which keep their size however many and long the names are.
            labels = [textwrap.fill(name, WRAP) for name in labels]
            inches = sum(9.6 * (name.count('\n') + 1) + 4 for name in labels) / 72
            figure.set_figheight(3.1 + inches)
            figure.legend(handles, labels, loc='outside lower left')
        out = io.StringIO()
        figure.savefig(out, format='svg', metadata={'Date': None})
    return dict(title=title, svg=as_inline_svg(out.getvalue(), title))


def as_inline_svg(svg: str, title: str) -> str:
    """Return an SVG file as an element of a page: without size, with a title for screen readers."""
    svg = svg[svg.index('<svg') :]
    svg = re.sub(r'<metadata>.*?</metadata>', '', svg, flags=re.DOTALL)
    alt = title.replace('&', '&amp;').replace('"', '&quot;').replace('<', '&lt;')
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', f'role="img" aria-label="{alt}"', svg, count=1)


def _look(number: int) -> dict:
    return dict(color=COLOURS[number % len(COLOURS)], linestyle=STYLES[number // len(COLOURS) % len(STYLES)])


def _thin(x, y):
    if len(x) <= POINTS:
        return x, y
    keep = np.unique(np.linspace(0, len(x) - 1, POINTS).round().astype(int))
    return np.asarray(x)[keep], np.asarray(y)[keep]


def _firsts(group: Group) -> list[tuple[Arm, Measured]]:
    """Return the first seed of each arm, at the share of the labels with most arms (the largest of ties)."""
    fractions = [arm.fraction for arm in group.arms]
    chosen = max(set(fractions), key=lambda f: (fractions.count(f), f))
    return [(arm, arm.members[0]) for arm in group.arms if arm.fraction == chosen]


def seed_of(measured: Sequence[Measured]) -> str:
    """Return in words the seeds of a picture that shows one run of each arm; '' if no seed is known."""
    seeds = [m.run.seed for m in measured]
    if seeds.count(None) == len(seeds):
        return ''
    names = [str('–' if seed is None else seed) for seed in (seeds[:1] if len(set(seeds)) == 1 else seeds)]
    return f' (seed {", ".join(names)})'


def charts_of(group: Group, part_curves: Mapping[Path, PartCurve]) -> list[dict]:
    """Draw the charts of a group of runs: label fractions, learning, PR, FROC, parts, POD or calibration.

    Args:
        group: The runs.
        part_curves: Curves of the runs whose parts are known, by folder.
    """
    charts = []
    if len({arm.fraction for arm in group.arms}) > 1:
        charts.append(_fractions(group))
    charts += _learning(group)
    firsts = _firsts(group)
    if group.task == 'detection':
        charts += [_precision_recall(group, firsts), _froc(group, firsts)]
        charts += _parts(group, firsts, part_curves)
        charts += [*_pods(group, firsts), *_contrast_pods(group, firsts)]
    else:
        charts.append(_reliability(group, firsts))
    return charts


def _fractions(group: Group) -> dict:
    def plot(axes):
        for number, name in enumerate(dict.fromkeys(arm.name for arm in group.arms)):
            arms = [arm for arm in group.arms if arm.name == name]
            x = [arm.fraction for arm in arms]
            mean = np.array([arm.headline.mean for arm in arms])
            std = np.array([arm.headline.std or 0 for arm in arms])
            axes.plot(x, mean, marker='o', markersize=4, label=name, **_look(number))
            axes.fill_between(x, mean - std, mean + std, alpha=0.15, color=_look(number)['color'], lw=0)
        axes.set_xscale('log')
        ticks = sorted({arm.fraction for arm in group.arms})
        axes.set_xticks(ticks, [f'{tick} %' for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)

    title = f'{group.unit} by share of the labels (band: standard deviation over seeds)'
    return _draw(f'fractions {group.name}', title, 'labels', f'test {group.unit}', plot)


def _learning(group: Group) -> list[dict]:
    members = [(arm, m) for arm in group.arms for m in arm.members]
    charts = []
    for side, key, what in (('train', 'loss', 'training loss'), ('val', group.unit, f'val {group.unit}')):
        if not any(key in getattr(m.run.curves, side) for _, m in members):
            continue

        def plot(axes, side=side, key=key):
            names = list(dict.fromkeys((arm.name, arm.fraction) for arm, _ in members))
            shown = set()
            for arm, measured in members:
                points = getattr(measured.run.curves, side).get(key)
                if not points:
                    continue
                name = (arm.name, arm.fraction)
                axes.plot(
                    *_thin(*zip(*points)),
                    label=None if name in shown else label(arm),
                    alpha=0.85,
                    **_look(names.index(name)),
                )
                shown.add(name)

        x = 'iteration' if side == 'train' else 'epoch'
        charts.append(_draw(f'{what} {group.name}', what[0].upper() + what[1:], x, what, plot))
    return charts


def _precision_recall(group: Group, firsts) -> dict:
    critical = firsts[0][1].run.predictions.classes[CRITICAL]

    def plot(axes):
        for number, (arm, measured) in enumerate(firsts):
            recall, precision = precision_recall(measured.run.predictions.inspected)
            axes.plot(*_thin(recall, precision), label=label(arm), **_look(number))
        axes.set(xlim=(0, 1), ylim=(0, 1.02))

    title = f'Precision and recall of {critical} boxes at IoU 0.5'
    title += seed_of([measured for _, measured in firsts])
    return _draw(f'pr {group.name}', title, 'recall', 'precision', plot)


def _froc(group: Group, firsts) -> dict:
    critical = firsts[0][1].run.predictions.classes[CRITICAL]

    def plot(axes):
        for number, (arm, measured) in enumerate(firsts):
            curve = measured.froc
            if curve.recall:
                x, y = _thin(np.maximum(curve.false_alarms, 0.01), curve.recall)
                axes.step(x, y, where='post', label=label(arm), **_look(number))
        axes.set_xscale('log')
        axes.set(xlim=(0.01, 10), ylim=(0, 1.02))
        axes.set_xticks([0.01, 0.1, 0.5, 1, 10], ['0.01', '0.1', '0.5', '1', '10'])
        axes.minorticks_off()

    title = f'FROC: recall of {critical} boxes by false alarms per image'
    title += seed_of([measured for _, measured in firsts])
    return _draw(f'froc {group.name}', title, 'false alarms per image', 'recall', plot)


def _parts(group: Group, firsts, curves: Mapping[Path, PartCurve]) -> list[dict]:
    """Draw escape and false-reject rate over the threshold, one chart per arm, with the operating point."""
    charts = []
    for arm, measured in firsts:
        curve = curves.get(measured.run.folder)
        if curve is None or not (curve.critical or curve.defect_free):
            continue
        rates = [
            ('critical parts that escape', curve.escape, curve.escape_upper, COLOURS[1], '-'),
            ('defect-free parts rejected', curve.false_reject, curve.false_reject_upper, COLOURS[0], '--'),
        ]

        def plot(axes, curve=curve, at=measured.parts.threshold, rates=rates):
            marked = curve.thresholds.index(at)
            for words, values, bounds, color, line in rates:
                if values is None:
                    continue
                # A part is rejected at thresholds up to its score, so a rate holds up to its threshold.
                last = [k for k in range(len(values) - 1) if values[k] != values[k + 1]]  # of a step
                corners = sorted({0, *last, len(values) - 1})
                x, low, high = (np.take(v, corners) for v in (curve.thresholds, values, bounds))
                axes.step(x, low, where='pre', label=words, color=color, linestyle=line)
                axes.fill_between(x, low, high, step='pre', alpha=0.12, color=color, lw=0)
                axes.plot(at, values[marked], marker='o', markersize=5, color=color)
            axes.axvline(at, color='#777777', lw=0.8, ls=':', label=f'threshold of the table, {floored(at)}')
            axes.set(xlim=(0, 1), ylim=(-0.02, 1.02))

        title = f'{label(arm)}{seed_of([measured])}: parts over the threshold '
        title += f'(band: up to the {curve.confidence:.0%} bound)'
        for what, values in (('escape', curve.escape), ('false reject', curve.false_reject)):
            title += f'; {what} not estimable, as no part is of that kind' if values is None else ''
        name = f'parts {arm.name} {group.name}'
        charts.append(_draw(name, title, 'score that rejects a part', 'share of the parts', plot))
    return charts


def _pods(group: Group, firsts) -> list[dict]:
    charts = []
    for name in firsts[0][1].run.predictions.classes:
        drawn = [(arm, m.pods[name]) for arm, m in firsts if name in m.pods and m.pods[name].fit.curve]
        if not drawn:
            continue

        def plot(axes, drawn=drawn):
            for number, (arm, pod) in enumerate(drawn):
                points = [p for p in pod.fit.curve if p.size is not None]
                sizes, look = [p.size for p in points], _look(number)
                bound = 'none' if pod.fit.a90_95 is None else ceiled(pod.fit.a90_95)
                a90 = f' (a90 {pod.fit.a90:.3g}, a90/95 {bound})' if pod.fit.a90 else ''
                axes.plot(sizes, [p.pod for p in points], label=label(arm) + a90, **look)
                axes.fill_between(
                    sizes,
                    [p.low for p in points],
                    [p.high for p in points],
                    alpha=0.12,
                    color=look['color'],
                    lw=0,
                )
            axes.axhline(0.9, color='#777777', lw=0.8, ls=':')
            axes.set_ylim(0, 1.02)

        unit = drawn[0][1].unit
        title = f'Probability of detecting a {name} flaw by its size (band: likelihood-ratio bounds)'
        title += seed_of([m for _, m in firsts])
        x = f'equivalent diameter, {unit}'
        charts.append(_draw(f'pod {name} {group.name}', title, x, 'probability of detection', plot))
    return charts


def _contrast_pods(group: Group, firsts) -> list[dict]:
    """Draw POD against size and contrast, one chart per class and arm, with the flaws of the fit."""
    charts = []
    for name in firsts[0][1].run.predictions.classes:
        for arm, measured in firsts:
            fits = [pod for key, pod in measured.pods.items() if key.startswith(f'{name}, at contrast ')]
            if not fits or not fits[0].fit.coefficients:
                continue

            def plot(axes, fit=fits[0].fit, flaws=measured.flaws[name]):
                sizes, contrasts = np.array([(flaw.size, flaw.contrast) for flaw in flaws]).T
                hits = np.array([flaw.hit for flaw in flaws])
                across, up = (np.geomspace(v.min() / 1.05, v.max() * 1.05, 40) for v in (sizes, contrasts))
                pod = fit.predict(*np.meshgrid(across, up))
                axes.contourf(across, up, pod, levels=POD_LEVELS, cmap='Greys_r', alpha=0.35)
                levels = [level for level in POD_LEVELS if pod.min() < level < pod.max()]
                if levels:
                    lines = axes.contour(across, up, pod, levels=levels, colors='#555555', linewidths=0.8)
                    axes.clabel(lines, fmt=lambda level: f'{level:.0%}', fontsize=8)
                for mask, marker, color, words in (
                    (hits, 'o', COLOURS[0], 'found'),
                    (~hits, 'x', COLOURS[1], 'missed'),
                ):
                    x, y = _thin(sizes[mask], contrasts[mask])
                    axes.plot(x, y, ls='', ms=3.5, marker=marker, color=color, label=words)
                axes.set(xscale='log', yscale='log')
                axes.grid(visible=False)
                axes.minorticks_off()
                for ticks, shown in ((axes.set_xticks, across), (axes.set_yticks, up)):
                    marks = shown[3:-3:11]  # four
                    ticks(marks, [f'{mark:.2g}' for mark in marks])

            title = f'{label(arm)}: probability of detecting a {name} flaw by its size and contrast'
            title += seed_of([measured])
            x = f'equivalent diameter, {fits[0].unit}'
            charts.append(_draw(f'pod {name} {arm.name} {group.name}', title, x, 'contrast', plot))
    return charts


def _reliability(group: Group, firsts) -> dict:
    def plot(axes):
        axes.plot([0, 1], [0, 1], color='#777777', lw=0.8, ls=':')
        for number, (arm, measured) in enumerate(firsts):
            bins = measured.calibration
            points = [(c, a) for c, a in zip(bins.confidences, bins.accuracies) if c is not None]
            words = f'{label(arm)} (ECE {bins.error:.3f})'
            axes.plot(*zip(*points), marker='o', markersize=3, label=words, **_look(number))
        axes.set(xlim=(0, 1), ylim=(0, 1.02))

    title = 'Calibration: accuracy by the score of the predicted class'
    title += seed_of([measured for _, measured in firsts])
    return _draw(f'calibration {group.name}', title, 'score', 'accuracy', plot)


def pretraining_charts(curves: Sequence[tuple[str, Curves]]) -> list[dict]:
    """Draw loss, collapse level and kNN accuracy of pretraining runs; numbers replace their long names.

    Args:
        curves: Name and curves of each run.
    """
    wanted = {}
    for _, one in curves:
        for name in one.train | one.val:
            short = name.rsplit('/', 1)[-1]
            if short == 'loss' or 'collapse' in short or 'knn' in short:
                wanted.setdefault(name, short.replace('_', ' '))
    charts = []
    for name, words in wanted.items():

        def plot(axes, name=name):
            for number, (run, one) in enumerate(curves):
                points = one.train.get(name) or one.val.get(name)
                if points:
                    who = f'{number + 1}: {run.split("_")[0]}'
                    axes.plot(*_thin(*zip(*points)), label=who, **_look(number))

        x = 'iteration' if any(name in one.train for _, one in curves) else 'epoch'
        charts.append(_draw(f'pretraining {name}', f'Pretraining: {words}', x, words, plot))
    return charts
