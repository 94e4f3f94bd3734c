"""projects/xray/synthetic.py against the physics it claims, and its boxes against the pixels."""

import numpy as np
import pytest

from projects.synthetic import parts as synthetic_parts
from projects.synthetic import physics
from projects.synthetic import plan as synthetic_plan
from projects.synthetic import view as synthetic_view
from projects.synthetic.defects import KINDS
from projects.synthetic.parts import Part
from projects.synthetic.physics import Spectrum
from projects.synthetic.plan import plan
from projects.synthetic.projection import make_pose, path_lengths
from projects.synthetic.view import make_part, render
from projects.xray.classes import CASTINGS

MONO = Spectrum((0.05,), (1.0,))
DARKER = ('core_break', 'dense_inclusion', 'flash')


def bare_part(*features, field=40.0):
    return Part('aluminium', field, list(features), [], 0.01, np.ones((16, 16), np.float32), {})


def part_with(name, size=256, tries=8):
    """A part in which a defect of this type can be seen, its view's seed, and that view."""
    for k in range(tries):
        part = make_part([3, k, len(name)], (name,), size)
        radiograph = render(part, [4, k], size, 16)
        if radiograph.defects:
            return part, [4, k], radiograph
    raise AssertionError(f'{name}: no visible defect in {tries} parts')


def test_log_attenuation_is_linear_in_thickness():
    thickness = np.linspace(0, 60, 30)
    assert np.allclose(-np.log(physics.transmission(thickness, MONO)) / 0.05, thickness, atol=1e-3)


@pytest.mark.parametrize('material', list(physics.SPECTRA))
def test_several_energies_harden_the_beam(material):
    thickness = np.array([1.0, 5, 10, 20, 40])
    passed = physics.transmission(thickness, physics.SPECTRA[material])
    assert np.all(np.diff(-np.log(passed) / thickness) < 0)
    assert physics.transmission(np.zeros(1), physics.SPECTRA[material]) == pytest.approx(1)


def test_ellipsoid_chord():
    a, b, c = 40.0, 25.0, 3.0
    chord = physics.ellipsoid_chord((121, 121), (60, 60), (a, b, c), np.pi / 6)
    assert chord[60, 60] == pytest.approx(2 * c)
    assert chord.sum() == pytest.approx(4 / 3 * np.pi * a * b * c, rel=2e-3)
    # half-way along the long axis: 2c·sqrt(1 - 1/4)
    x, y = 60 + 20 * np.cos(np.pi / 6), 60 + 20 * np.sin(np.pi / 6)
    assert chord[round(y), round(x)] == pytest.approx(2 * c * np.sqrt(0.75), rel=0.01)
    assert chord[60, 0] == 0


@pytest.mark.parametrize('sigma', [0.6, 1.0, 1.5])
def test_unsharpness_of_an_edge(sigma):
    edge = np.where(np.arange(64) < 32, 100.0, 900.0).astype(np.float32)
    spread = np.diff(physics.geometric_blur(np.tile(edge, (9, 1)), sigma)[4].astype(float))
    at = np.arange(63)
    centre = (spread * at).sum() / spread.sum()
    assert np.sqrt((spread * (at - centre) ** 2).sum() / spread.sum()) == pytest.approx(sigma, rel=0.05)


def test_scatter_raises_and_flattens():
    signal = np.full((256, 256), 1000, np.float32)
    assert np.allclose(physics.add_scatter(signal, 0.8, 40), 1800, rtol=1e-3)
    signal[126:130, 126:130] = 1100
    scattered = physics.add_scatter(signal, 0.8, 40)
    contrast = scattered[128, 128] / scattered[20, 20] - 1
    assert contrast == pytest.approx(0.1 / 1.8, rel=0.02)


@pytest.mark.parametrize('mean', [5, 40, 400, 10000])
def test_noise_variance_follows_the_mean(mean):
    noisy = physics.add_noise(np.full((300, 300), mean, np.float32), np.random.default_rng(0))
    assert noisy.mean() == pytest.approx(mean, rel=0.01)
    assert noisy.var() == pytest.approx(mean, rel=0.03)
    assert noisy.min() >= 0


def test_scintillator_correlates_and_electronics_add():
    signal = np.full((300, 300), 1000, np.float32)
    blurred = physics.add_noise(signal, np.random.default_rng(0), blur=0.8)
    assert blurred.var() < 300
    neighbours = np.corrcoef(blurred[:, 1:].ravel(), blurred[:, :-1].ravel())[0, 1]
    assert neighbours > 0.4
    read_out = physics.add_noise(signal, np.random.default_rng(0), electronic=20)
    assert read_out.var() == pytest.approx(1000 + 400, rel=0.03)


@pytest.mark.parametrize(
    ('bits', 'dtype'), [(8, np.uint8), (12, np.uint16), (14, np.uint16), (16, np.uint16)]
)
def test_digitiser_rounds_and_clips(bits, dtype):
    levels = physics.digitise(np.array([[-50.0, 10.3, 10.6, 1e6]], np.float32), 1.0, 2.0, bits)
    assert levels.dtype == dtype
    assert levels.tolist() == [[0, 12, 13, 2**bits - 1]]


def test_union_of_metal_and_a_drilled_hole():
    plate = synthetic_parts._feature(synthetic_parts._box((0, 0), 30, 30), 0, 10)
    boss = synthetic_parts._feature(
        synthetic_parts._circle((0, 0), 8), 5, 18
    )  # shares 5 mm of height with the plate
    hole = synthetic_parts._drilled(synthetic_parts._circle((10, 10), 2), 18)
    thickness, height = path_lengths(bare_part(plate, boss, hole), make_pose(), 200, 0.2)
    assert thickness[100, 100] == pytest.approx(18, abs=0.05)
    assert thickness[100, 160] == pytest.approx(10, abs=0.05)
    assert thickness[149, 149] == pytest.approx(0, abs=0.05)
    assert thickness[3, 3] == 0
    assert height[100, 160] == pytest.approx(5, abs=0.05)


def test_a_tilted_view_keeps_the_volume_and_lengthens_the_path():
    disc = bare_part(synthetic_parts._feature(synthetic_parts._circle((0, 0), 10), 0, 12))
    flat, _ = path_lengths(disc, make_pose(), 200, 0.2)
    tilted, _ = path_lengths(disc, make_pose(rotation=0.4, tilt=0.2, direction=0.0), 200, 0.2)
    assert tilted.sum() == pytest.approx(flat.sum(), rel=0.01)
    assert tilted[100, 106] == pytest.approx(12 / np.cos(0.2), rel=0.01)
    # along the tilt the disc shortens and its top is displaced by 12·sin(tilt); nothing changes across
    along, across = (np.ptp(np.flatnonzero((tilted > 0.5).any(axis))) * 0.2 for axis in (0, 1))
    assert along == pytest.approx(20 * np.cos(0.2) + 12 * np.sin(0.2), abs=0.8)
    assert across == pytest.approx(20, abs=0.5)


def test_a_diverging_beam_magnifies_what_is_nearer_to_the_tube():
    pose = make_pose(distance=500)
    assert np.allclose(pose.project(np.array([[10.0, 0]]), 0), [[10, 0]])
    assert np.allclose(pose.project(np.array([[10.0, 0]]), 100), [[12.5, 0]])


def test_types_are_the_scheme():
    assert list(KINDS) == list(CASTINGS)


@pytest.mark.parametrize('name', list(KINDS))
def test_every_type_shows_where_its_box_says(name):
    part, seed, radiograph = part_with(name)
    flaws, part.flaws = part.flaws, []
    sound = render(part, seed, 256, 16)
    assert len(flaws) == 1 and sound.defects == []
    (defect,) = radiograph.defects
    assert defect.type == name and defect.contrast >= synthetic_view.MIN_CONTRAST
    x, y, width, height = defect.bbox
    assert x >= 0 and y >= 0 and x + width <= 256 and y + height <= 256
    assert defect.mask.shape == (height, width)
    # tight: the footprint touches every side of its box
    assert all(
        side.any() for side in (defect.mask[0], defect.mask[-1], defect.mask[:, 0], defect.mask[:, -1])
    )
    # what changed in the picture lies in the box, except for unsharpness: the noise is the same in both
    change = radiograph.pixels.astype(float) - sound.pixels
    near = np.zeros((256, 256), bool)
    near[max(y - 4, 0) : y + height + 4, max(x - 4, 0) : x + width + 4] = True
    assert (change[near] ** 2).sum() > 0.85 * (change**2).sum()
    inside = change[y : y + height, x : x + width][defect.mask]
    assert (inside.mean() < 0) == (name in DARKER)


def test_what_cannot_be_seen_is_neither_drawn_nor_annotated():
    part, seed, _ = part_with('gas_pore')
    part.exposure['quanta'] = 1.0
    faint = render(part, seed, 256, 12)
    part.flaws = []
    assert faint.defects == []
    assert np.array_equal(faint.pixels, render(part, seed, 256, 12).pixels)


def test_contrast_is_the_largest_relative_change_of_the_expected_signal():
    path = physics.ellipsoid_chord((81, 81), (40, 40), (32, 32, 1.0))  # a sphere of 2 mm radius, 2 mm path
    flaw = synthetic_parts.Flaw('gas_pore', path, (0, 0, 0), 0.0)
    thickness = np.full((128, 128), 20, np.float32)
    part = bare_part()
    part.exposure.update(quanta=1e5, spr=0.5, unsharpness=0.5)
    part.flaws.append(flaw)
    defect = synthetic_view._draw_flaw(thickness, part, 0, make_pose(), MONO, full=2.0)
    # exp(mu·d) - 1, divided by 1 + SPR (recomputed: the scatter is the window's mean primary signal)
    assert defect.contrast == pytest.approx((np.exp(0.05 * 2) - 1) / 1.5, rel=0.02)
    assert thickness.min() == pytest.approx(18, abs=0.01)
    assert abs(defect.bbox[2] - 32) <= 1 and abs(defect.bbox[3] - 32) <= 1


def test_views_of_a_part_show_the_same_defects_elsewhere():
    part = make_part(5, ('blowhole', 'crack'), 256)
    first, second = render(part, [5, 1], 256), render(part, [5, 2], 256)
    assert (
        sorted(d.type for d in first.defects)
        == sorted(d.type for d in second.defects)
        == ['blowhole', 'crack']
    )
    assert [d.bbox for d in first.defects] != [d.bbox for d in second.defects]


@pytest.mark.parametrize('bits', [8, 12, 14, 16])
def test_bits_are_used(bits):
    pixels = render(make_part(1, size=256), 1, 256, bits).pixels
    assert pixels.shape == (256, 256) and pixels.max() < 2**bits
    assert np.ptp(pixels.astype(int)) > 0.4 * 2**bits


def test_large_images_take_the_coarse_geometry_and_odd_sizes():
    radiograph = render(make_part(2, ('blowhole',), 601), 2, 601, 8)
    assert radiograph.pixels.shape == (601, 601)


def test_same_seed_same_picture():
    view = plan(12, 0)[3]
    first, again = synthetic_plan.draw(view, 0, size=192), synthetic_plan.draw(view, 0, size=192)
    assert np.array_equal(first.pixels, again.pixels)
    assert [d.bbox for d in first.defects] == [d.bbox for d in again.defects]
    for other in (synthetic_plan.draw(view, 1, size=192), synthetic_plan.draw(view, 0, kind=1, size=192)):
        assert not np.array_equal(first.pixels, other.pixels)


def test_plan_gives_every_split_its_share_of_critical_parts():
    for seed in range(5):
        views = plan(600, seed, extra=8)
        critical = {v.part for v in views if any(CASTINGS[name] == 'critical' for name in v.types)}
        for name in ('train', 'val', 'test'):
            parts = {v.part for v in views if v.split == name}
            assert len(parts & critical) / len(parts) == pytest.approx(len(critical) / (600 / 3), abs=0.02)


@pytest.mark.parametrize('images', [0, 1, 7, 60, 601])
def test_plan_splits_by_part_and_keeps_sound_parts(images):
    views = plan(images, 3)
    assert len(views) == images
    split = {}
    for view in views:
        assert split.setdefault(view.part, view.split) == view.split
    assert sum(not view.types for view in views) >= 0.4 * images
    if images < 60:
        return
    defective = {view.part for view in views if view.types}
    assert len(defective) <= 0.6 * len(split)
    for name, share in (('train', 0.6), ('val', 0.2), ('test', 0.2)):
        parts = {part for part, where in split.items() if where == name}
        assert len(parts) / len(split) == pytest.approx(share, abs=0.08)
        assert len(parts & defective) / len(parts) == pytest.approx(len(defective) / len(split), abs=0.1)
    wanted = {name for view in views for name in view.types}
    assert wanted == set(KINDS) if images > 100 else len(wanted) > 8
    assert plan(images, 3) == views != plan(images, 4)
