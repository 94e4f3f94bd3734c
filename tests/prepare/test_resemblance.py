"""Near duplicates by a tree are those that comparing all with all finds, and n copies are n pairs."""

import numpy as np
import pytest

from projects.benchmark.archive import look_alikes
from projects.prepare import resemblance
from projects.prepare.findings import ImageSet
from projects.prepare.leaks import check_leaks
from projects.prepare.resemblance import Looks, Matches, near_matches
from projects.prepare.scan import Scan


def all_with_all(left, right):
    found = Matches(len(right))
    resemblance._all_with_all(left, right, np.arange(len(right)), found)
    return found


def rows(looks, chosen):
    return Looks(list(looks.small[chosen].reshape(-1, 32, 32)), looks.hashes[chosen])


@pytest.mark.parametrize('noise', [1.0, 4.0])
def test_the_tree_misses_nothing(monkeypatch, noise):
    monkeypatch.setattr(resemblance, '_FEW', 0)
    left, right = look_alikes(3000, 0, noise), look_alikes(600, 1, noise)
    mixed = np.r_[right.small, left.small[100:200]].reshape(-1, 32, 32)
    right = Looks(list(mixed), np.r_[right.hashes, left.hashes[100:200]])
    found, expected = near_matches(left, right), all_with_all(left, right)
    assert ((found.index < 0) == (expected.index < 0)).all()
    assert 100 <= (found.index >= 0).sum() < len(right)
    assert (found.index[600:] == np.arange(100, 200)).all()
    hit = found.index >= 0
    np.testing.assert_allclose(found.correlation[hit], expected.correlation[hit], atol=1e-5)


def test_what_crowds_around_an_image_is_compared_all_with_all(monkeypatch):
    """One scene, frames apart by noise alone: their components are alike, the frames are not."""
    monkeypatch.setattr(resemblance, '_FEW', 0)
    rng = np.random.default_rng(0)
    scene = rng.integers(80, 170, (32, 32))

    def frames(count):
        noisy = np.clip(scene + rng.normal(0, 3.0, (count, 32, 32)), 0, 255).astype(np.uint8)
        return Looks(list(noisy), [0] * count)

    left, right = frames(600), frames(40)
    asked = []
    whole = resemblance._all_with_all
    monkeypatch.setattr(
        resemblance, '_all_with_all', lambda *args: asked.append(len(args[2])) or whole(*args)
    )
    found = near_matches(left, right)
    assert asked == [40]
    monkeypatch.undo()
    assert (found.index == all_with_all(left, right).index).all()


def test_hashes_that_differ_are_no_near_duplicates(monkeypatch):
    left = look_alikes(50, 0)
    other = Looks(list(left.small.reshape(-1, 32, 32)), left.hashes ^ np.uint64(0b1111111))
    for few in (resemblance._FEW, 0):
        monkeypatch.setattr(resemblance, '_FEW', few)
        assert (near_matches(left, left).index == np.arange(50)).all()
        assert (near_matches(left, other).index != np.arange(50)).all()


def probe_of(look, k, bits):
    pixels = look.small[k].reshape(32, 32)
    return Scan(
        low=0,
        high=9,
        height=32,
        width=32,
        small=pixels,
        dhash=int(look.hashes[k]),
        file_hash=bits,
        pixel_hash=bits,
    )


def test_equal_images_are_groups_and_not_the_square_of_pairs():
    look = look_alikes(1, 0)
    names = {side: [f'{side}/{k}.png' for k in range(200)] for side in ('train', 'test', 'unlisted')}
    sets = [
        ImageSet(side, side, 'x', own, classes=('a',) * (side != 'unlisted')) for side, own in names.items()
    ]
    probes = {path: probe_of(look, 0, b'same') for s in sets for path in s.paths}
    findings = check_leaks(sets, probes, 1)
    pairs = [(finding.text, len(finding.pairs)) for finding in findings if finding.pairs]
    assert [count for _, count in pairs] == [200, 199, 199, 199, 400]
    assert pairs[0][0].startswith('200 images of test byte-equal to one of train')
