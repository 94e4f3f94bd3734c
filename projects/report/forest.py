"""A forest plot: the difference of each arm to its baseline, with its interval over the test parts."""

import io
import textwrap
from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

from .charts import COLOURS, STYLE, as_inline_svg
from .compare import Contrast, Group
from .paper import label

MOST = 40  # rows; further comparisons are in the table
# Sized for a phone, with letters of nine pixels and more.
INCHES, CHARACTERS = 4.8, 26


def forest(groups: Sequence[Group]) -> dict | None:
    """Draw the headline comparison of every arm: a dot, its interval, and zero.

    Returns:
        dict: `title` and `svg`; None without a comparison.
    """
    found = [(g, c) for g in groups for c in g.contrasts if c.measure in ('AP50', 'mAP')]
    if not found:
        return None
    shown = found[:MOST]
    title = 'Difference to the baseline on the same test images, with its 95 % interval over the parts'
    if any(contrast.parts is None or contrast.parts.low is None for _, contrast in shown):
        title += '; hollow: too few parts for an interval'
    if len(found) > MOST:
        title += f'; the first {MOST} of {len(found)}'
    with matplotlib.rc_context({**STYLE, 'svg.hashsalt': 'forest'}):
        names = [textwrap.fill(_name(g, c, len(groups) > 1), CHARACTERS) for g, c in shown]
        lines = sum(name.count('\n') + 1 for name in names)
        figure = Figure(figsize=(INCHES, 0.8 + 0.18 * len(shown) + 0.16 * lines), layout='constrained')
        axes = figure.add_subplot()
        for row, (_, contrast) in enumerate(shown):
            _draw_row(axes, row, contrast)
        axes.axvline(0, color='#555555', lw=0.9)
        axes.set_yticks(range(len(shown)), names)
        axes.set(ylim=(len(shown) - 0.5, -0.5), xlabel='AP50 or mAP, arm minus baseline')
        axes.grid(visible=False, axis='y')
        out = io.StringIO()
        figure.savefig(out, format='svg', metadata={'Date': None})
    return dict(title=title, svg=as_inline_svg(out.getvalue(), title))


def _draw_row(axes, row: int, contrast: Contrast) -> None:
    parts = contrast.parts
    value = contrast.seeds.difference if parts is None else parts.difference
    known = parts is not None and parts.low is not None
    color = COLOURS[0]
    if known:
        axes.plot([parts.low, parts.high], [row, row], color=color, lw=2, solid_capstyle='butt')
    axes.plot(value, row, 'o', ms=6, color=color, markerfacecolor=color if known else 'white')


def _name(group: Group, contrast: Contrast, several: bool) -> str:
    name = f'{label(contrast.candidate)} – {contrast.baseline.name}'
    return f'{name} ({group.dataset}, {group.backbone})' if several else name
