"""A radiograph on the page: what is known of it, and that its file is still what was inspected."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from projects.line.runtime.archive import fitting_name
from projects.radiograph.files import sha256

LONGEST_PART = 100  # characters


@dataclass
class Item:
    """One radiograph on the page.

    Attributes:
        name: As shown.
        path: Its file.
        digest: SHA-256 of the file when it was inspected; '' where it cannot be read.
        state: 'waiting', 'found' or 'unreadable'.
        reason: Why it is unreadable.
        size: (height, width) in px.
        found: What the detector found {box [x1, y1, x2, y2], label, score}, best first; with masks
            also outlines [[[x, y], …], …].
        boxes: The same, or the inspector's own after a decision, which have a score of None.
        risk: Highest score of a rejecting class.
        flagged: Whether the second opinion says to look at it.
        decision: 'accept' or 'reject' once the inspector has decided.
        decided: Of that decision: `time`, `inspector`, and `folder`, the digest of the detector that the
            inspector saw; empty without one.
        revision: How often it was decided on, withdrawals among them.
        part: Id of the physical part: what the inspector gave, else what the rule of the data set that the
            detector was made with finds in the name; '' where it finds none, as a part that is not known.
        changed: Number of the last change of the list that was of this item.
        thumbnail: A small PNG; empty before it is inspected, and where it cannot be read.
    """

    name: str
    path: Path
    digest: str = ''
    state: str = 'waiting'
    reason: str = ''
    size: tuple[int, int] = (0, 0)
    found: list[dict[str, Any]] = field(default_factory=list)
    boxes: list[dict[str, Any]] = field(default_factory=list)
    risk: float = 0.0
    flagged: bool = False
    decision: str | None = None
    decided: dict[str, Any] = field(default_factory=dict)
    revision: int = 0
    part: str = ''
    changed: int = 0
    thumbnail: bytes = field(default=b'', repr=False)

    @property
    def file_name(self) -> str:
        """Name of the radiograph's copy beside the corrections."""
        return kept_name(self.name, self.digest)


def kept_name(name: str, digest: str) -> str:
    """Put a file's hash into its name: another file of the same name is another radiograph."""
    path = Path(name)
    return fitting_name(str(path.with_suffix('')), f'-{digest[:12]}{path.suffix}')


def as_text(name: str) -> str:
    """Return a file's name as JSON and pages take it: bytes that are no UTF-8 become question marks."""
    return name.encode(errors='replace').decode()


def check_unchanged(path: Path, digest: str) -> None:
    """Refuse a file that is no longer what was inspected: findings and decision would be of another.

    Raises:
        ValueError: Its hash is not `digest`, or it cannot be read.
    """
    try:
        now = sha256(path)
    except OSError as error:
        raise ValueError(f'its file can no longer be read ({error.strerror}): open it again') from None
    if now != digest:
        raise ValueError('its file changed since it was inspected: open it again')
