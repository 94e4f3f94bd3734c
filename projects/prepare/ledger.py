"""The ledger of a conversion: its input, and the destination of each image, box and file."""

from collections import Counter
from dataclasses import dataclass, field

from projects.errors import MMXrayError


class ConvertError(MMXrayError, ValueError):
    """Data that cannot be converted: one line with the file, the expectation and the remedy."""


class UsageError(ConvertError):
    """A wrong argument of the converter, in the same form."""


@dataclass
class Counts:
    """Counts of one kind by destination: came + added = went + left.

    Attributes:
        name: the kind, such as 'boxes'.
        came: number found in the source.
        added: number made by the conversion (such as a box in a second tile), by reason.
        went: number written, by destination.
        left: number left out, by reason.
    """

    name: str
    came: int = 0
    added: Counter = field(default_factory=Counter)
    went: Counter = field(default_factory=Counter)
    left: Counter = field(default_factory=Counter)

    def check(self) -> None:
        """Raise RuntimeError if the counts do not balance, which is a bug of the converter."""
        if self.came + self.added.total() != self.went.total() + self.left.total():
            raise RuntimeError(f'the ledger of {self.name} does not balance: {self}')

    def __str__(self) -> str:
        """Return a line such as `boxes: 10 in = 7 train + 2 test + 1 left out (zero area: 1)`."""
        text = f'{self.name}: {self.came} in'
        for reason, count in sorted(self.added.items()):
            text += f' + {count} {reason}'
        parts = [f'{count} {where}' for where, count in self.went.items()]
        if self.left.total():
            reasons = ', '.join(f'{reason}: {count}' for reason, count in sorted(self.left.items()) if count)
            parts.append(f'{self.left.total()} left out ({reasons})')
        return f'{text} = {" + ".join(parts) or 0}'

    def as_dict(self) -> dict:
        """Return the counts as JSON values."""
        return {
            key: dict(v) if isinstance(v, Counter) else v for key, v in vars(self).items() if key != 'name'
        }


@dataclass
class Ledger:
    """The counts of one conversion, and its repairs.

    Attributes:
        title: title of the conversion.
        counts: counts by name.
        repairs: number of values corrected but kept, by reason.
        notes: useful notes, one line each.
    """

    title: str
    counts: dict[str, Counts] = field(default_factory=dict)
    repairs: Counter = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Counts:
        """Return the counts of a name, made on first use."""
        return self.counts.setdefault(name, Counts(name))

    def check(self) -> None:
        """Check all counts (`Counts.check`)."""
        for counts in self.counts.values():
            counts.check()

    def __str__(self) -> str:
        """Return the title, then one line per kind, repair and note that is not empty."""
        lines = [self.title, *(f'  {a}' for a in self.counts.values() if a.came or a.added)]
        lines += [f'  repaired: {reason}: {n}' for reason, n in sorted(self.repairs.items()) if n]
        lines += [f'  note: {note}' for note in self.notes]
        return '\n'.join(lines)

    def as_dict(self) -> dict:
        """Return the ledger as JSON values."""
        return {**{k: a.as_dict() for k, a in self.counts.items()}, 'repaired': dict(self.repairs)}
