"""Coverage of intervals, bounds and powers by simulation: python -m projects.measures.coverage."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import optimize, special, stats

from .bounds import clustered_rate, proof_power
from .comparison import NO_DIFFERENCE, compare
from .images import Bools, Floats, Ints
from .parts import Part
from .pod import fit_pod
from .proof import choose_threshold, judge_parts

Row = list[str]

# Mean logit of a hit, advantage of the second arm in logits, and whether few parts carry many flaws.
ARMS = {
    'equal arms, flaws of medium difficulty': (0.5, 0.0, False),
    'equal arms, easy flaws': (2.5, 0.0, False),
    'equal arms, few parts carry many flaws': (2.0, 0.0, True),
    'second arm better': (1.0, 0.7, False),
}


def _draw_arms(
    generator: np.random.Generator, parts: int, base: float, shift: float, skewed: bool
) -> tuple[Ints, Ints, Ints]:
    """Draw the flaws of each part and the hits of two detectors on them."""
    flaws = 1 + (generator.geometric(0.25, parts) if skewed else generator.poisson(1.5, parts))
    ease = generator.normal(base, 1, parts)
    hits = [
        generator.binomial(flaws, special.expit(ease + extra + generator.normal(0, 0.8, parts)))
        for extra in (0.0, shift)
    ]
    return flaws, hits[0], hits[1]


def cover_comparison(sets: int, seed: int, sizes: Sequence[int] = (15, 20, 30)) -> Iterator[Row]:
    """Compare two detectors by recall on drawn parts.

    Args:
        sets: Simulated data sets per row.
        seed: Seed of the draws.
        sizes: Numbers of parts.

    Yields:
        Case, parts, share of sets whose interval misses the true difference, the same share for plain
        percentiles, share of sets in which a difference is shown.
    """
    for name, (base, shift, skewed) in ARMS.items():
        generator = np.random.default_rng(seed)
        flaws, first, second = _draw_arms(generator, 400_000, base, shift, skewed)
        truth = float((second.sum() - first.sum()) / flaws.sum()) if shift else 0.0
        for parts in sizes:
            missed = plain = shown = 0
            for number in range(sets):
                flaws, first, second = _draw_arms(generator, parts, base, shift, skewed)
                found, total = np.concatenate([first, second]), np.concatenate([flaws, flaws])

                def recall(positions: Ints, found: Ints = found, total: Ints = total) -> float:
                    return float(found[positions].sum() / total[positions].sum())

                result = compare(list(range(parts)), recall, [True] * parts, resamples=500, seed=number)
                missed += not (result.low or 0) <= truth <= (result.high or 0)
                shown += result.verdict != NO_DIFFERENCE
                drawn = generator.integers(parts, size=(500, parts))
                ratios = (second - first)[drawn].sum(1) / flaws[drawn].sum(1)
                low, high = np.quantile(ratios, [0.025, 0.975])
                plain += not low <= truth <= high
            yield [name, str(parts), *(f'{count / sets:.1%}' for count in (missed, plain, shown))]


@dataclass(frozen=True)
class Truth:
    """A true POD as a function of size and ease of the part, and the number of parts that carry the flaws.

    Without parts all flaws have the same ease, and `ease` is not drawn.
    """

    pod: Callable[[Floats, Floats], Floats]
    parts: int | None = None

    def draw(self, generator: np.random.Generator, flaws: int) -> tuple[Floats, Bools, list[int] | None]:
        """Draw sizes, uniform in ln(size) from 3 to 40, hits, and the part of each flaw."""
        size = np.exp(generator.uniform(np.log(3), np.log(40), flaws))
        if self.parts is None:
            return size, generator.random(flaws) < self.pod(size, np.zeros(flaws)), None
        part = np.arange(flaws) % self.parts
        ease = generator.standard_normal(self.parts)[part]
        return size, generator.random(flaws) < self.pod(size, ease), part.tolist()

    def a90(self) -> float:
        """Return the size with a POD of 90 % over all parts; infinite where no size reaches it."""
        ease = stats.norm.ppf((np.arange(2000) + 0.5) / 2000)

        def excess(size: float) -> float:
            return float(self.pod(np.full(ease.shape, size), ease).mean()) - 0.9

        return float(optimize.brentq(excess, 3, 500)) if excess(1e6) > 0 else np.inf


CURVES = {
    'logit, ln(size)': Truth(lambda size, _: special.expit(3 * np.log(size / 10))),
    'probit, ln(size)': Truth(lambda size, _: stats.norm.cdf(1.7 * np.log(size / 10))),
    'logit, size': Truth(lambda size, _: special.expit(0.35 * (size - 10))),
    'almost a step, ln(size)': Truth(lambda size, _: special.expit(30 * np.log(size / 10))),
    'levels off at 95 %': Truth(lambda size, _: 0.95 * special.expit(4 * np.log(size / 8))),
    'levels off at 85 %': Truth(lambda size, _: 0.85 * special.expit(4 * np.log(size / 8))),
}
ALIKE = {
    f'logit, ln(size), alike within {parts} parts': Truth(
        lambda size, ease: special.expit(3 * np.log(size / 10) + 1.2 * ease), parts
    )
    for parts in (20, 40)
}


def cover_pod(
    sets: int, seed: int, sizes: Sequence[int] = (60, 150), curves: Mapping[str, Truth] = CURVES
) -> Iterator[Row]:
    """Fit POD curves to drawn flaws.

    Args:
        sets: Simulated data sets per row.
        seed: Seed of the draws.
        sizes: Numbers of flaws.
        curves: True POD curves, by name.

    Yields:
        True curve, flaws, share of sets with an a90/95, share of sets whose a90/95 lies below the true a90,
        share of sets with an a90/95 and no failed check.
    """
    for name, truth in curves.items():
        generator = np.random.default_rng(seed)
        true = truth.a90()
        for flaws in sizes:
            printed = wrong = clean = 0
            for _ in range(sets):
                size, hits, parts = truth.draw(generator, flaws)
                fit = fit_pod(size, hits, parts=parts, points=2)
                if fit.a90_95 is not None:
                    printed += 1
                    wrong += fit.a90_95 < true
                    clean += not fit.problems
            yield [name, str(flaws), *(f'{count / sets:.1%}' for count in (printed, wrong, clean))]


def cover_proof(sets: int, seed: int) -> Iterator[Row]:
    """Choose a threshold on drawn val parts and prove it on drawn test parts.

    Args:
        sets: Simulated data sets per row.
        seed: Seed of the draws.

    Yields:
        Critical parts of val and of test, printed power, share of proven sets, and the power of the highest
        threshold that val proves.
    """
    for val, test in ((100, 200), (200, 200), (300, 600), (1000, 1000)):
        generator = np.random.default_rng(seed)
        proven = 0
        powers = []
        for _ in range(sets):
            choice = choose_threshold(_parts(generator.random(val)), 0.05, test)
            powers.append(choice.power)
            assert choice.threshold is not None
            proven += judge_parts(_parts(generator.random(test)), 0.05, choice.threshold).proven
        highest = max(k for k in range(val) if stats.beta.ppf(0.95, k + 1, val - k) <= 0.05)
        yield [
            str(val),
            str(test),
            f'{np.mean(powers):.1%}',
            f'{proven / sets:.1%}',
            f'{proof_power(highest, val, test, 0.05):.1%}',
        ]


def _parts(scores: Floats) -> list[Part]:
    return [Part(str(i), 1, 'critical', float(s), float(s)) for i, s in enumerate(scores)]


def cover_false_calls(sets: int, seed: int) -> Iterator[Row]:
    """Count drawn false calls per image: one to four images per part, 0.3 calls per image.

    Args:
        sets: Simulated data sets per row.
        seed: Seed of the draws.

    Yields:
        Similarity of the images of a part, parts, share of sets whose interval misses the true rate.
    """
    cases = {'independent': 0.0, 'alike within a part': 1.0, 'few parts carry most calls': 4.0}
    for name, spread in cases.items():
        for parts in (15, 40):
            generator = np.random.default_rng(seed)
            missed = 0
            for _ in range(sets):
                level = generator.gamma(1 / spread, spread, parts) if spread else np.ones(parts)
                images = generator.integers(1, 5, parts)
                result = clustered_rate(generator.poisson(0.3 * level * images).tolist(), images.tolist())
                missed += not (result.low or 0) <= 0.3 <= (result.high or 0)
            yield [name, str(parts), f'{missed / sets:.1%}']


_POD = [
    'true curve',
    'flaws',
    'a90/95 is printed',
    'and lies below the true a90',
    'and no check is beside it',
]
TABLES: dict[str, tuple[str, Row, Callable[[int, int], Iterator[Row]]]] = {
    'comparison': (
        'Comparison of two arms',
        ['case', 'parts', 'interval misses', 'plain percentiles miss', 'difference shown'],
        cover_comparison,
    ),
    'pod': ('a90/95', _POD, cover_pod),
    'pod-alike': ('a90/95, flaws alike within a part', _POD, partial(cover_pod, curves=ALIKE)),
    'proof': (
        'Power of a threshold, escape rate 5 %',
        [
            'critical parts of val',
            'of test',
            'power printed',
            'proven',
            'power of the highest threshold val proves',
        ],
        cover_proof,
    ),
    'false-calls': ('False calls per image', ['images', 'parts', 'interval misses'], cover_false_calls),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables as Markdown; return the exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m projects.measures.coverage',
        description=(__doc__ or '').split(':')[0],
        epilog='example: python -m projects.measures.coverage pod --sets 1000',
    )
    parser.add_argument('tables', nargs='*', metavar='TABLE', help=f'{", ".join(TABLES)} (all)')
    parser.add_argument('--sets', type=int, default=400, help='simulated data sets of each row (400)')
    parser.add_argument('--seed', type=int, default=0, help='of the draws (0)')
    args = parser.parse_args(argv)
    unknown = sorted(set(args.tables) - set(TABLES))
    if unknown or args.sets < 1:
        parser.error(
            f'{", ".join(unknown) or args.sets}: expected tables of {", ".join(TABLES)}, --sets above 0'
        )
    for table in args.tables or TABLES:
        title, header, cover = TABLES[table]
        print(f'\n{title}, {args.sets} simulated sets a row, seed {args.seed}\n', flush=True)
        print('| ' + ' | '.join(header) + ' |\n|' + '---|' * len(header), flush=True)
        for row in cover(args.sets, args.seed):
            print('| ' + ' | '.join(row) + ' |', flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
