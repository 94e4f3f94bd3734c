"""Images with their truth and their detections, for the tests of the measures."""

from projects.measures.images import InspectedImage
from projects.measures.parts import Part


def image(detections=(), truth=(), image_id=1, part='p', **more):
    """Image with detections (x, y, side, score, label) and squares of truth (x, y, side, label)."""
    return InspectedImage(
        image_id=image_id,
        boxes=[[x, y, x + side, y + side] for x, y, side, _, _ in detections],
        scores=[score for *_, score, _ in detections],
        labels=[label for *_, label in detections],
        truth_boxes=[[x, y, x + side, y + side] for x, y, side, _ in truth],
        truth_labels=[label for *_, label in truth],
        part=part,
        **more,
    )


def parts_with(scores, truth='critical', hits=True):
    """Parts of one kind with these scores, found by a hit or by another detection alone."""
    return [Part(str(i), 1, truth, score, score if hits else None) for i, score in enumerate(scores)]
