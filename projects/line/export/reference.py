"""The reference of the drift charts: gray levels, scores and rejects of the validation radiographs."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from projects.line.runtime import Exported
from projects.line.runtime.charts import LEVELS
from projects.line.runtime.drift import FEWEST, GRAYS
from projects.radiograph.gray_levels import Levels
from projects.radiograph.parts import recorded_part


def reference_of(
    exported: Exported, truth: dict[str, Any], levels: Sequence[Levels], found: Sequence[tuple]
) -> dict[str, Any]:
    """Describe the validation radiographs, see `Exported.reference`.

    Args:
        exported: The folder's metadata with its threshold.
        truth: COCO dict of the validation radiographs.
        levels: Gray levels of each radiograph.
        found: Boxes, scores and labels that the folder finds on each radiograph.

    Returns:
        The reference; empty if there are fewer than 10 parts (radiographs if the parts are unknown).
    """
    parts = [recorded_part(image) for image in truth['images']]
    units = len(parts) if None in parts else len(set(parts))
    if min(units, len(levels)) < FEWEST:
        return {}
    rejecting = [exported.classes.index(name) for name in exported.rejecting]
    names = {category['id']: category['name'] for category in truth['categories']}
    critical = {a['image_id'] for a in truth['annotations'] if names[a['category_id']] in exported.rejecting}
    rows: dict[str, list[float]] = dict(sound=[], critical=[])
    for image, (_, scores, labels) in zip(truth['images'], found, strict=True):
        risk = float(max(np.asarray(scores)[np.isin(labels, rejecting)], default=0.0))
        rows['critical' if image['id'] in critical else 'sound'].append(risk)
    return dict(
        radiographs=len(levels),
        units=units,
        gray={key: _described([level[key] for level in levels]) for key in GRAYS},
        risk={
            kind: dict(
                count=len(risks),
                accepted=_described([risk for risk in risks if risk < exported.threshold]),
                rejected=_described([risk for risk in risks if risk >= exported.threshold]),
            )
            for kind, risks in rows.items()
        },
    )


def _described(values: Sequence[float]) -> dict[str, Any]:
    """Summarise values by count, mean, standard deviation and quantiles."""
    if not values:
        return dict(count=0, mean=None, spread=None, quantiles=[])
    levels = (np.arange(LEVELS) + 0.5) / LEVELS
    return dict(
        count=len(values),
        mean=round(float(np.mean(values)), 6),
        spread=round(float(np.std(values, ddof=1)), 6) if len(values) > 1 else 0.0,
        quantiles=[round(v, 6) for v in np.quantile(values, levels, method='hazen').tolist()],
    )
