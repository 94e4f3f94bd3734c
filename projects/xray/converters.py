"""Turning other annotation formats into COCO JSON, with a ledger that accounts for every image and box."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path


class ConvertError(ValueError):
    """Data that cannot be converted: one line with the file, what was expected, and the remedy."""


class UsageError(ConvertError):
    """A wrong argument of the converter, in the same form."""


@dataclass
class Account:
    """What came in of one kind, and where each of it went: came + added = went + left.

    Attributes:
        name: of what, such as 'boxes'.
        came: number found in the source.
        added: number made by the conversion (such as a box cut by a tile's edge), by reason.
        went: number written, by destination.
        left: number left out, by reason.
    """

    name: str
    came: int = 0
    added: Counter = field(default_factory=Counter)
    went: Counter = field(default_factory=Counter)
    left: Counter = field(default_factory=Counter)

    def check(self) -> None:
        """Raise RuntimeError unless the account balances, which is a defect of the converter."""
        if self.came + self.added.total() != self.went.total() + self.left.total():
            raise RuntimeError(f'the ledger of {self.name} does not balance: {self}')

    def __str__(self) -> str:
        """One line such as `boxes: 10 in = 7 train + 2 test + 1 left out (zero area: 1)`."""
        text = f'{self.name}: {self.came} in'
        for reason, count in sorted(self.added.items()):
            text += f' + {count} {reason}'
        parts = [f'{count} {where}' for where, count in self.went.items()]
        if self.left.total():
            reasons = ', '.join(f'{reason}: {count}' for reason, count in sorted(self.left.items()) if count)
            parts.append(f'{self.left.total()} left out ({reasons})')
        return f'{text} = {" + ".join(parts) or 0}'

    def as_dict(self) -> dict:
        """The account as JSON values."""
        return {
            key: dict(v) if isinstance(v, Counter) else v for key, v in vars(self).items() if key != 'name'
        }


@dataclass
class Ledger:
    """The accounts of one conversion, and what was repaired on the way.

    Attributes:
        title: what was converted.
        accounts: by name.
        repairs: number of values corrected but kept, by reason.
    """

    title: str
    accounts: dict[str, Account] = field(default_factory=dict)
    repairs: Counter = field(default_factory=Counter)

    def __getitem__(self, name: str) -> Account:
        """The account of that name, opened on first use."""
        return self.accounts.setdefault(name, Account(name))

    def check(self) -> None:
        """Check every account (`Account.check`)."""
        for account in self.accounts.values():
            account.check()

    def __str__(self) -> str:
        """Title, then one line per account and repair."""
        lines = [self.title, *(f'  {account}' for account in self.accounts.values())]
        lines += [f'  repaired: {reason}: {count}' for reason, count in sorted(self.repairs.items())]
        return '\n'.join(lines)

    def as_dict(self) -> dict:
        """The ledger as JSON values."""
        return {**{k: a.as_dict() for k, a in self.accounts.items()}, 'repaired': dict(self.repairs)}


def clip_box(box: Iterable[float], width: int, height: int) -> tuple[list[float], bool]:
    """Clip a box [x, y, w, h] in px to its image.

    Returns:
        The clipped box (its width or height may be 0) and whether it reached outside.
    """
    x, y, w, h = box
    x1, y1 = min(max(x, 0), width), min(max(y, 0), height)
    x2, y2 = min(max(x + w, 0), width), min(max(y + h, 0), height)
    clipped = [x1, y1, x2 - x1, y2 - y1]
    return clipped, clipped != [x, y, w, h]


def place(source: Path, target: Path) -> None:
    """Put a file at `target`: a hard link where the file system allows it, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        if target.samefile(source):
            return
        target.unlink()
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_coco(path: Path, images: list[dict], categories: list[str], info: dict) -> None:
    """Write one split as COCO JSON.

    Args:
        path: file to write.
        images: per image its COCO fields without id, and `boxes`: a list of dicts with `bbox` [x, y, w, h]
            in px, `category` (a name) and further annotation fields.
        categories: names; ids follow from 1.
        info: COCO `info`.
    """
    ids = {name: k for k, name in enumerate(categories, 1)}
    coco: dict = dict(info=info, images=[], annotations=[])
    coco['categories'] = [dict(id=k, name=name) for name, k in ids.items()]
    for image_id, image in enumerate(images, 1):
        coco['images'].append(dict(id=image_id, **{k: v for k, v in image.items() if k != 'boxes'}))
        for box in image['boxes']:
            extra = {k: v for k, v in box.items() if k != 'category'}
            area = round(box['bbox'][2] * box['bbox'][3], 4)
            annotation = dict(
                id=len(coco['annotations']) + 1,
                image_id=image_id,
                category_id=ids[box['category']],
                **dict(area=area, iscrowd=0) | extra,
            )
            coco['annotations'].append(annotation)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(coco))
