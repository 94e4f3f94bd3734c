"""A radiograph on the page: its facts, and the check that its file is unchanged since the inspection."""

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
        name: Displayed name.
        path: Path of the file.
        digest: SHA-256 of the file when it was inspected; '' if it cannot be read.
        state: 'waiting', 'found' or 'unreadable'.
        reason: Why it is unreadable.
        size: (height, width) in px.
        found: The detector's findings {box [x1, y1, x2, y2], label, score}, best first; with masks also
            outlines [[[x, y], …], …].
        boxes: The detector's findings or, after a decision, the inspector's boxes, with a score of None.
        risk: Highest score of a rejecting class.
        flagged: Whether the second opinion asks an inspector to look at the radiograph.
        decision: 'accept' or 'reject' once the inspector has decided.
        decided: Facts of the decision: `time`, `inspector`, and `folder`, the digest of the detector that the
            inspector saw; empty without a decision.
        revision: Number of decisions, including withdrawals.
        part: Id of the physical part, from the inspector or else by the part rule of the detector's data set
            from the name; '' if unknown.
        changed: Number of this item's last change in the list.
        thumbnail: A small PNG; empty before the inspection and for an unreadable file.
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
    """Return a file's name as text for JSON and pages: bytes that are not UTF-8 become question marks."""
    return name.encode(errors='replace').decode()


def check_unchanged(path: Path, digest: str) -> None:
    """Refuse a file that has changed since its inspection: findings and decision would belong to another.

    Raises:
        ValueError: The file's hash is not `digest`, or the file cannot be read.
    """
    try:
        now = sha256(path)
    except OSError as error:
        raise ValueError(f'its file can no longer be read ({error.strerror}): open it again') from None
    if now != digest:
        raise ValueError('its file changed since it was inspected: open it again')
