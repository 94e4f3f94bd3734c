import csv
import json

import cv2
import numpy as np
import pytest
import tifffile

from projects.benchmark.archive import look_alikes
from projects.prepare.curation import diversity
from projects.prepare.curation.curate import archive_names, span_of
from projects.prepare.curation.thin import near_groups
from projects.prepare.ledger import UsageError
from projects.prepare.resemblance import NEAR_BITS, NEAR_CORRELATION
from projects.prepare.scan import scan_image
from projects.radiograph.pack import pack
from projects.radiograph.recipe import Recipe
from projects.xray.datasets import XrayImages
from tools import curate as tool


@pytest.fixture
def archive(tmp_path):
    """Two series of parts, copies with noise of some, and frames that show nothing."""
    rng, root = np.random.default_rng(0), tmp_path / 'archive'
    for series, count in (('A', 12), ('B', 4)):
        (root / series).mkdir(parents=True)
        for k in range(count):
            cv2.imwrite(str(root / series / f'{k:02d}.png'), _part(rng))
    for k in range(3):  # a frame taken four times
        image = cv2.imread(str(root / 'A' / '00.png'), cv2.IMREAD_UNCHANGED).astype(float)
        noisy = np.clip(image + rng.normal(0, 40, image.shape), 0, 65535).astype(np.uint16)
        cv2.imwrite(str(root / 'A' / f'again{k}.png'), noisy)
    cv2.imwrite(str(root / 'A' / 'constant.png'), np.full((96, 96), 700, np.uint16))
    noise = rng.normal(20000, 30, (96, 96)).astype(np.uint16)
    cv2.imwrite(str(root / 'B' / 'noise.png'), noise)
    cv2.imwrite(str(root / 'B' / 'Dark_01.png'), _part(rng))
    (root / 'B' / 'torn.png').write_bytes((root / 'A' / '00.png').read_bytes()[:400])
    return root


def _part(rng):
    image = cv2.resize(rng.random((5, 5)), (96, 96), interpolation=cv2.INTER_CUBIC)
    return (np.clip(image, 0, 1) * 50000 + rng.normal(500, 30, image.shape)).clip(0, 65535).astype(np.uint16)


def run(tmp_path, archive, text):
    settings, out = tmp_path / 'curate.yaml', tmp_path / 'curated.txt'
    settings.write_text(f'archive: {archive}\n{text}')
    code = tool.main([str(settings), str(out), '--workers', '1'])
    return code, out


RULES = """calibration: '(?i)(^|/)(dark|flat)[^/]*$'
blank: 0.02
near_duplicates: 1
series: {by: '^([^/]+)/', most: 8}
"""


def test_everything_stays_or_goes_with_a_reason(tmp_path, archive, capsys):
    code, out = run(tmp_path, archive, RULES)
    assert code == 0
    kept = out.read_text().splitlines()
    rows = list(csv.DictReader((tmp_path / 'curated.dropped.csv').open()))
    reasons = {row['file']: (row['reason'], row['because']) for row in rows}
    assert sorted([*kept, *reasons]) == sorted(archive_names(str(archive))) and len(rows) == len(reasons)
    assert reasons['B/Dark_01.png'] == ('calibration frame', "name has '/Dark_01.png'")
    assert reasons['A/constant.png'][0] == reasons['B/noise.png'][0] == 'blank'
    assert reasons['B/torn.png'][0] == 'unreadable' and 'expected' in reasons['B/torn.png'][1]
    for k in range(3):
        assert reasons[f'A/again{k}.png'][0] == 'near duplicate'
        assert reasons[f'A/again{k}.png'][1].startswith('of A/00.png, correlation ')
    beyond = [name for name, (kind, _) in reasons.items() if kind == 'beyond its series share']
    assert len(beyond) == 4 and all(name.startswith('A/') for name in beyond)
    assert [name for name in kept if name.startswith('A/')][0] == 'A/00.png' and 'A/11.png' in kept
    ledger = json.loads((tmp_path / 'curated.ledger.json').read_text())
    assert ledger['radiographs']['came'] == 23 and ledger['radiographs']['went'] == dict(kept=12)
    assert ledger['radiographs']['left'] == {
        'calibration frame': 1,
        'unreadable': 1,
        'blank': 2,
        'near duplicate': 3,
        'beyond its series share': 4,
    }
    assert (
        'radiographs: 23 in = 12 kept + 11 left out (beyond its series share: 4, ' in capsys.readouterr().out
    )
    # What pretraining configs read.
    dataset = XrayImages(ann_file=str(out), data_prefix=str(archive), pipeline=[])
    assert [item['img_path'] for item in (dataset.get_data_info(k) for k in range(len(dataset)))] == [
        f'{archive}/{name}' for name in kept
    ]


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
def test_what_one_sees_of_a_part_is_not_what_a_few_columns_show(tmp_path, dtype):
    """Of a large archive 64 pixels an image are kept: all over it, not those of one column of 1,024."""
    white = 1.0 if dtype == 'float32' else np.iinfo(dtype).max
    image = np.full((1024, 1024), white, dtype)
    image[300:600, 300:500] = _part(np.random.default_rng(0))[:1, :1].astype(float) / 65535 * 0.1 * white
    path = str(tmp_path / 'part.tif')
    tifffile.imwrite(path, image)
    found = scan_image(path, dict(type='percentile', low=0, high=100), 64)
    assert span_of(found) > 0.5 and found.bright == white and found.dark < 0.2 * white
    assert 0.5 * 0.057 < (found.sample < white).mean() < 2 * 0.057  # of 5.7 % of the area
    cv2.imwrite(str(tmp_path / 'blank.png'), np.full((1024, 1024), 9, np.uint16))
    assert span_of(scan_image(str(tmp_path / 'blank.png'), dict(type='full'), 64)) == 0


def test_it_is_the_same_again_and_some_copies_may_stay(tmp_path, archive):
    _, out = run(tmp_path, archive, RULES)
    first = [path.read_bytes() for path in sorted(tmp_path.glob('curated.*'))]
    run(tmp_path, archive, RULES)
    assert [path.read_bytes() for path in sorted(tmp_path.glob('curated.*'))] == first and len(first) == 3
    run(tmp_path, archive, 'near_duplicates: 3\n')
    kept = out.read_text().splitlines()
    assert len([name for name in kept if 'again' in name]) == 2 and 'A/constant.png' in kept


def test_a_packed_store_takes_the_place_of_the_folder(tmp_path, archive):
    for name in ('A/constant.png', 'B/torn.png'):
        (archive / name).unlink()
    _, out = run(tmp_path, archive, 'near_duplicates: 1\n')
    expected = out.read_text()
    pack(archive, tmp_path / 'packed', Recipe(0, 16))
    assert run(tmp_path, tmp_path / 'packed', 'near_duplicates: 1\n')[0] == 0
    assert out.read_text() == expected


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('blank: 2', 'blank: expected a share from 0 to 1'),
        ('blank: true', 'blank: expected a share'),
        ('near_duplicates: 0', 'near_duplicates: expected a whole number'),
        ('series: {by: "("}', 'expected `by` and `most` in series'),
        ('series: {by: "(", most: 3}', 'series.by: expected a regular expression'),
        ('series: {by: "^X", most: 3}', '23 images have no series by'),
        ('duplicates: 1', "found ['duplicates']"),
        ('sample: {count: 3}', 'sample.features: expected an .npz file'),
        ('sample: {count: 3, features: none.npz}', 'none.npz: expected an .npz file with'),
        (
            'sample: {count: 3, features: {config: a.py, checkpoint: none.pth}}',
            'none.pth: no such checkpoint',
        ),
        ('calibration: "."', 'nothing stays: radiographs: 23 in'),
        ('archive: [', 'expected YAML'),
    ],
)
def test_bad_settings_are_one_line(tmp_path, archive, capsys, text, message):
    code, out = run(tmp_path, archive, text)
    errors = capsys.readouterr().err
    assert code == 2 and message in errors and errors.count('\n') == 1 and not out.exists()


def test_an_empty_archive_is_one_line(tmp_path, capsys):
    (tmp_path / 'none').mkdir()
    assert run(tmp_path, tmp_path / 'none', '')[0] == 2
    assert 'no radiograph there; correct `archive`' in capsys.readouterr().err
    with pytest.raises(UsageError):
        archive_names(str(tmp_path / 'absent'))


@pytest.mark.parametrize(('count', 'noise'), [(300, 1.0), (2600, 0.2), (2600, 1.0)])
def test_groups_are_exact(count, noise):
    looks = look_alikes(count, 3, noise)
    stands, likeness = near_groups(looks)
    stays = np.flatnonzero(stands == np.arange(count))
    assert 1 < len(stays) < count and (stands[stands] == stands).all()
    whole = looks.standardised(slice(None))
    near = (whole @ whole.T >= NEAR_CORRELATION) & (
        np.bitwise_count(looks.hashes[:, None] ^ looks.hashes) <= NEAR_BITS
    )
    assert near[stays][:, stays].sum() == len(stays)  # each resembles itself alone
    gone = np.setdiff1d(np.arange(count), stays)
    assert near[gone, stands[gone]].all() and (likeness[gone] >= NEAR_CORRELATION).all()


class TestDiversity:
    @pytest.fixture
    def features(self):
        """A large cloud, a small one and a single image far away."""
        rng = np.random.default_rng(0)
        centres = np.eye(8)[[0, 1, 2]]
        return np.concatenate(
            [c + rng.normal(0, 0.05, (n, 8)) for c, n in zip(centres, (300, 30, 1), strict=True)]
        )

    @pytest.mark.parametrize('by', ['farthest', 'kmeans'])
    def test_what_is_rare_is_taken_and_nothing_twice(self, features, by):
        chosen = diversity.choose(features, 12, by, 0, clusters=3)
        assert len(set(chosen.tolist())) == 12 and (np.diff(chosen) > 0).all()
        assert 330 in chosen and (chosen < 300).sum() >= 5 and ((chosen >= 300) & (chosen < 330)).sum() >= 5
        assert (diversity.choose(features, 12, by, 0, clusters=3) == chosen).all()

    def test_the_farthest_points_cover_better_than_chance(self, features):
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        radius = lambda chosen: (2 - 2 * (features @ features[chosen].T).max(1)).max()  # noqa: E731
        chosen = diversity.choose(features, 10, 'farthest', 1)
        drawn = [np.random.default_rng(k).choice(331, 10, replace=False) for k in range(20)]
        assert radius(chosen) < min(map(radius, drawn))
        assert (diversity.choose(features, 400, 'farthest', 1) == np.arange(331)).all()

    def test_copies_are_chosen_once_each(self):
        assert diversity.choose(np.ones((9, 4)), 5, 'farthest', 2).tolist() != [0, 0, 0, 0, 0]
        assert len(set(diversity.choose(np.ones((9, 4)), 5, 'farthest', 2).tolist())) == 5


def test_a_sample_by_given_features(tmp_path, archive):
    names = archive_names(str(archive))
    features = np.eye(len(names))[[0] * 20 + [1, 2, 3]]
    np.savez(tmp_path / 'f.npz', names=names[::-1], features=features)
    sample = f'sample: {{count: 4, seed: 1, features: {tmp_path}/f.npz}}\n'
    code, out = run(tmp_path, archive, sample)
    kept = out.read_text().splitlines()
    assert code == 0 and len(kept) == 4 and set(names[:3]) < set(kept)
    np.savez(tmp_path / 'f.npz', names=names[1:], features=features[1:])
    assert run(tmp_path, archive, sample)[0] == 2
