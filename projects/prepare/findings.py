"""The image sets that a check looks at, and its findings."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from projects.radiograph.parts import recorded_part
from projects.radiograph.remote import join

ERROR, WARNING, NOTE = 'error', 'warning', 'note'
LEVELS = (ERROR, WARNING, NOTE)
TOPICS = ('leaks', 'parts', 'boxes', 'classes', 'files', 'window', 'anchors')


@dataclass
class Finding:
    """One finding of the check.

    Attributes:
        level: 'error' (training on it is wrong), 'warning' (look at it) or 'note' (good to know).
        topic: one of `TOPICS`.
        text: the fault, with its count.
        remedy: the remedy; may be empty.
        images: the images concerned, by path, each with a short note.
        pairs: pairs of paths that resemble each other, each with a short note.
    """

    level: str
    topic: str
    text: str
    remedy: str = ''
    images: dict[str, str] = field(default_factory=dict)
    pairs: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass
class ImageSet:
    """The images of one split, of the pretraining list, or of the image folder beyond them.

    Attributes:
        name: 'train', 'val', 'test', 'pretraining' or 'unlisted'; with a number if there are several.
        source: annotation file, list or folder, for messages.
        folder: image folder or URL.
        names: paths relative to `folder`.
        records: COCO image records in the order of `names`; empty for unlabelled sets.
        annotations: COCO annotations as the file has them; empty for unlabelled sets.
        classes: names of the classes after the severity map; empty for unlabelled sets.
        info: `info` of the file; empty without it.
        coco: result of `datasets.load_defects`; None for unlabelled sets or a refused file.
        window: argument of `LoadXray`.
        pipeline: transforms of the config.
    """

    name: str
    source: str
    folder: str
    names: list[str]
    records: list[dict] = field(default_factory=list)
    annotations: list[dict] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    info: dict = field(default_factory=dict)
    coco: dict | None = None
    window: dict = field(default_factory=lambda: dict(type='full'))
    pipeline: list = field(default_factory=list)

    @property
    def side(self) -> str:
        """The name without the number."""
        return self.name.split()[0]

    @property
    def paths(self) -> list[str]:
        """Full paths or URLs."""
        return [join(self.folder, name) for name in self.names]

    def groups(self, key: str) -> list[str | None]:
        """Return the part, region, series or folder of each image; None where the file does not state it."""
        if key == 'folder':
            return [str(PurePosixPath(name).parent) for name in self.names]
        return [recorded_part(record, key) for record in self.records] or [None] * len(self.names)


def with_boxes(s: ImageSet) -> list[dict]:
    """Return the image records of a labelled set that have a box."""
    ids = {annotation.get('image_id') for annotation in s.annotations}
    return [record for record in s.records if record.get('id') in ids]


def counted(items: Sequence, one: str, many: str = '') -> str:
    """Return `1 image`, `2 images`; `many` is an irregular plural."""
    plural = many or (f'{one}es' if one.endswith('x') else one if one.endswith('s') else f'{one}s')
    return f'{len(items)} {one if len(items) == 1 else plural}'


def few(names: Sequence[str], limit: int = 6) -> str:
    """The first names."""
    return ', '.join(names[:limit]) + (', …' if len(names) > limit else '')
