"""The runtime on the line: folder, verdict, tiles, streams, archive; neither PyTorch nor OpenMMLab needed."""

import ctypes
import gc
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tracemalloc
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from helpers.disk import largest_file
from helpers.exported import SIDE, bright_spot_graph, export_to, spot
from helpers.radiograph_files import dicom

from projects.line.runtime import FolderError, Inspector, folder
from projects.line.runtime import archive as runtime_archive
from projects.line.runtime.archive import ArchiveError, find_images, inspect_archive, parse_shard
from projects.line.runtime.pictures import overlay
from projects.radiograph.files import sha256
from projects.radiograph.gray_levels import band_of, measure
from projects.radiograph.image import ImagingError, Radiograph
from projects.radiograph.read import read
from tools import infer


@pytest.fixture
def exported(tmp_path):
    return export_to(tmp_path / 'exported')


@pytest.mark.parametrize('engine', ['openvino', 'onnxruntime'])
def test_both_engines_give_boxes_severities_scores_and_verdict(exported, engine):
    inspect = Inspector(exported, engine)
    inspection = inspect(spot(20, 30))
    assert inspection.boxes.tolist() == [[16, 26, 24, 34]]
    assert (inspection.severities, inspection.scores.tolist(), inspection.verdict, inspection.risk) == (
        ['critical'],
        [1],
        'reject',
        1,
    )
    # A minor defect does not reject, nor a critical one below the threshold.
    assert inspect(spot(40, 30)).verdict == 'accept'
    assert inspect(spot(40, 30)).severities == ['minor']
    assert inspect(spot(20, 30, 200)).verdict == 'accept'
    assert set(inspection.seconds) == {'decode', 'window', 'network', 'merge'}


def test_a_frame_unlike_those_of_validation_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    frames = [rng.integers(60, 200, (SIDE, SIDE), dtype=np.uint8) for _ in range(12)]
    band = band_of([measure(frame) for frame in frames])
    inspect = Inspector(export_to(tmp_path / 'exported', gray_levels=band))
    assert inspect(frames[0]).verdict in ('accept', 'reject')
    with pytest.raises(
        ImagingError, match='^array: not like what this detector was proven on: .*percentile 50 is 8, exp'
    ):
        inspect(frames[0] >> 4)
    assert Inspector(export_to(tmp_path / 'any'))(frames[0] >> 4).verdict == 'accept'
    # What is calibrated on is not held against the band.
    assert inspect.input_of(frames[0] >> 4)[0].shape == (1, 1, SIDE, SIDE)


def test_the_threshold_decides_at_equality(exported):
    image = spot(20, 30, 204)  # 204 / 255 = 0.8
    score = Inspector(exported)(image).risk
    assert Inspector(exported, threshold=score)(image).verdict == 'reject'
    assert Inspector(exported, threshold=min(score + 1e-3, 1))(image).verdict == 'accept'


def test_boxes_come_back_in_px_of_the_stored_image(exported):
    image = np.full((SIDE // 2, SIDE), 100, np.uint8)  # 64 x 32: the border below is the mean
    image[16, 10] = 255
    assert Inspector(exported)(image).boxes.tolist() == [[6, 12, 14, 20]]
    small = np.full((32, 32), 100, np.uint8)
    small[10:12, 10:12] = 255
    (box,) = Inspector(exported)(small).boxes
    assert np.abs((box[:2] + box[2:]) / 2 - 10.75).max() < 1
    assert (box[2:] - box[:2]).tolist() == [4, 4]


def test_a_16_bit_file_is_windowed_in_its_own_depth(tmp_path):
    window = dict(type='absolute', low=0, high=4095)
    path = export_to(tmp_path / 'dark', window=window, depths=['16-bit unsigned'])
    file = tmp_path / 'dark.png'
    cv2.imwrite(str(file), spot(20, 30, 4095, dtype=np.uint16))
    inspect = Inspector(path)
    inspection = inspect(file)
    assert inspection.scores.tolist() == [1]
    assert inspection.bits == 16
    for same in (file.read_bytes(), read(file), cv2.imread(str(file), cv2.IMREAD_UNCHANGED)):
        assert inspect(same).boxes.tolist() == inspection.boxes.tolist()


def test_an_image_of_another_depth_than_validated_is_refused_and_set_aside(tmp_path):
    # Under this window the brightest pixel of an 8-bit file is nearly black, and its defect would escape.
    window = dict(type='absolute', low=0, high=4095)
    path = export_to(tmp_path / 'deep', window=window, depths=['16-bit unsigned'])
    for other, case in (
        (spot(20, 30), '8-bit unsigned'),
        (spot(20, 30, dtype=np.int16), '16-bit signed'),
        (Radiograph(spot(20, 30, 4095, dtype=np.uint16), 12, 0, 4095), '12-bit unsigned'),
        (Radiograph(spot(20, 30, dtype=np.float32), 32, np.nan, np.nan), '32-bit float'),
    ):
        with pytest.raises(ImagingError, match=f'expected 16-bit unsigned.*found {case}'):
            Inspector(path)(other)
    (tmp_path / 'images').mkdir()
    cv2.imwrite(str(tmp_path / 'images' / 'a.png'), spot(20, 30))
    cv2.imwrite(str(tmp_path / 'images' / 'b.png'), spot(20, 30, 4095, dtype=np.uint16))
    assert infer.main([str(path), str(tmp_path / 'images'), '--out', str(tmp_path / 'out')]) == 0
    bad, good = rows(tmp_path / 'out' / 'shard-1-of-1')
    assert bad['error'].endswith('or export the detector again with such images in its validation set')
    assert good['verdict'] == 'reject'
    # An untrained detector, exported to measure time, was validated on nothing.
    assert Inspector(export_to(tmp_path / 'any', depths=[]))(spot(20, 30)).verdict == 'reject'


def test_a_file_of_several_frames_is_never_judged_by_its_first(exported, tmp_path):
    frames = np.stack([spot(40, 30), spot(20, 30)])  # the defect is on the second
    tifffile.imwrite(tmp_path / 'two.tif', frames, photometric='minisblack')
    with pytest.raises(ImagingError, match='two.tif: holds 2 frames, expected one'):
        Inspector(exported)(tmp_path / 'two.tif')
    with pytest.raises(ImagingError, match='holds 2 frames'):
        Inspector(exported)((tmp_path / 'two.tif').read_bytes())
    # Who names the frame gets it.
    assert Inspector(exported)(read(tmp_path / 'two.tif', frame=1)).verdict == 'reject'
    assert infer.main([str(exported), str(tmp_path / 'two.tif'), '--out', str(tmp_path / 'out')]) == 3
    (row,) = rows(tmp_path / 'out' / 'shard-1-of-1')
    assert 'two.tif: holds 2 frames' in row['error']


def test_a_large_image_is_tiled_at_its_own_scale_and_merged(exported):
    image = spot(100, 150, side=200)
    inspection = Inspector(exported)(image)
    at = [box.tolist() for box, score in zip(inspection.boxes, inspection.scores, strict=True) if score == 1]
    # Once per severity at most, though several overlapping tiles see it.
    assert at
    assert all(box == [96, 146, 104, 154] for box in at)
    assert len(at) == len(
        {label for label, s in zip(inspection.labels, inspection.scores, strict=True) if s == 1}
    )
    # A quarter larger than the radiographs of validation: still in one piece.
    assert len(Inspector(exported)(spot(60, 60, side=80)).boxes) == 1


def test_tiles_are_resized_as_the_radiographs_of_validation(tmp_path):
    """Whatever the rule for a whole image says of their shape: validation has lying and standing ones."""
    path = export_to(tmp_path / 'square', input=[SIDE, SIDE], scale=[64, 48], native=[96, 128])
    seen = []

    def detector(array, extent):
        seen.append(extent.tolist())
        return np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)

    Inspector.of(folder.read(path), detector)(spot(20, 30, side=300)[:, :200])
    assert len(seen) == 6
    assert all(extent == [64, 64] for extent in seen)  # 128 px of the image, at a half


@pytest.mark.parametrize('scale', [0.0, -0.5, float('inf'), 2, [64], [64, 0], [0.5, 0.5], '64'])
def test_a_scale_that_is_neither_a_size_nor_a_factor_is_refused(tmp_path, scale):
    with pytest.raises(folder.FolderError, match='^scale = .*, expected two whole numbers of px'):
        export_to(tmp_path / 'wrong', scale=scale)
    assert folder.read(export_to(tmp_path / 'right', scale=0.5)).scale == 0.5


def test_a_panel_may_reuse_its_memory(exported):
    buffer = np.full((SIDE, SIDE), 100, np.uint8)

    def frames():
        for k in range(6):
            buffer[:] = spot(8 + 8 * k, 30)
            yield buffer

    inspect = Inspector(exported)
    inspection = list(inspect.stream(frames()))
    assert [one.boxes[0, 0] for one in inspection] == [4 + 8 * k for k in range(6)]
    assert [int(one.pixels.argmax() % SIDE) for one in inspection] == [
        int(spot(8 + 8 * k, 30).argmax() % SIDE) for k in range(6)
    ]
    one = inspect(buffer)
    buffer[:] = 0
    assert one.pixels.max() == 255


def tiled(exported, record):
    """Inspect an image of two tiles, x 0..64 and 48..112, of which a detector says what is given.

    Args:
        record: For each tile its boxes x1 y1 x2 y2 in px of the image, with a score each.
    """
    image = np.full((SIDE, 112), 100, np.uint8)
    image[0, [0, 48]] = 0, 1  # how the detector knows which tile it sees

    def detector(array, extent):
        tile = int(array[0, 0, 0, 0])
        boxes = np.array([box for box, _ in record[tile]], np.float32).reshape(-1, 4) - [48 * tile, 0] * 2
        scores = np.array([score for _, score in record[tile]], np.float32)
        return boxes.astype(np.float32), scores, np.zeros(len(scores), np.int64)

    return Inspector.of(folder.read(exported), detector)(image)


def test_two_pores_in_one_tile_stay_two(exported):
    # The smaller lies 60 % within the larger, but at an IoU of .29 the detector's own NMS left both.
    pores = [([4, 10, 24, 30], 0.9), ([12, 10, 32, 22], 0.8)]
    result = tiled(exported, [pores, []])
    assert result.boxes.tolist() == [box for box, _ in pores]


def test_a_chain_of_weak_boxes_does_not_grow(exported):
    # Each lies half within the one before, in turn of one tile and of the other.
    chain = [([50, 5 * k, 60, 5 * k + 10], 0.9 if not k else 0.06) for k in range(10)]
    result = tiled(exported, [chain[0::2], chain[1::2]])
    assert result.boxes[0].tolist() == [50, 0, 60, 10]
    assert (result.boxes[:, 3] - result.boxes[:, 1]).max() == 10


def test_a_defect_cut_by_the_border_of_a_tile_becomes_one(exported):
    result = tiled(exported, [[([40, 20, 64, 30], 0.7)], [([48, 20, 80, 30], 0.8)]])
    assert result.boxes.tolist() == [[40, 20, 80, 30]]
    assert result.scores.tolist() == [np.float32(0.8)]
    # Whole in both tiles: the better one, as the detector's NMS would have it.
    result = tiled(exported, [[([50, 20, 60, 30], 0.7)], [([51, 20, 61, 30], 0.8)]])
    assert result.boxes.tolist() == [[51, 20, 61, 30]]
    # Whole in both and half overlapping: two, as they would be in one tile.
    result = tiled(exported, [[([50, 20, 60, 30], 0.7)], [([50, 25, 60, 35], 0.8)]])
    assert len(result.boxes) == 2


def test_tiles_are_in_memory_one_at_a_time(exported):
    earlier = []

    def detector(array, extent):
        gc.collect()
        assert [ref for ref in earlier if ref() is not None] == []
        earlier.append(weakref.ref(array))
        return np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)

    gc.freeze()  # what this process holds anyway is not looked through at each tile
    try:
        content = Inspector.of(folder.read(exported), detector)(spot(20, 30, side=200))
    finally:
        gc.unfreeze()
    assert len(earlier) == 16
    assert (content.verdict, content.boxes.shape) == ('accept', (0, 4))


def test_a_stream_keeps_order_bounds_memory_and_survives_bad_images(exported, tmp_path):
    bad = tmp_path / 'bad.png'
    bad.write_bytes(b'no radiograph')
    taken, most = [], 0

    def images():
        for k in range(12):
            taken.append(k)
            yield bad if k == 5 else spot(8 + k, 30)

    inspect = Inspector(exported, streams=2, threads=2)
    for k, inspection in enumerate(inspect.stream(images())):
        most = max(most, len(taken) - k)
        if k == 5:
            assert isinstance(inspection, ImagingError)
            assert 'bad.png' in str(inspection)
        else:
            assert inspection.boxes[0].tolist() == [4 + k, 26, 12 + k, 34]
    assert k == 11
    assert most <= 2 * 2 + 1


@pytest.mark.parametrize(
    'image',
    [np.zeros((4, 4, 3), np.uint8), np.zeros((0, 5), np.uint8), np.zeros((4, 4)), np.zeros((4, 4), np.int32)],
    ids=['colour', 'empty', 'float', 'int32'],
)
def test_pixels_of_unknown_meaning_are_refused(exported, image):
    with pytest.raises(ImagingError, match='expected'):
        Inspector(exported)(image)


@pytest.mark.parametrize('level', [0, 100, 255])
def test_a_blank_image_is_no_sound_part(exported, tmp_path, level):
    """Tube off, shutter closed, panel saturated: nothing is found on it, and every part would pass."""
    file = tmp_path / 'blank.png'
    cv2.imwrite(str(file), np.full((SIDE, SIDE), level, np.uint8))
    inspect = Inspector(exported)
    inspection = inspect.attempt(file)
    assert isinstance(inspection, ImagingError)
    assert str(inspection) == (
        f'{file}: holds no picture: all pixels are {level}; check tube, shutter and panel, and take it again'
    )
    with pytest.raises(ImagingError, match=f'^array: .* {level};'):
        inspect(np.full((SIDE, SIDE), level, np.uint8))
    cv2.imwrite(str(file), spot(40, 30, abs(level - 1)))
    assert inspect(file).verdict == 'accept'


def test_noise_that_the_window_makes_blank_is_no_sound_part(tmp_path):
    window = dict(type='absolute', low=100, high=4000)
    path = export_to(tmp_path / 'deep', window=window, depths=['16-bit unsigned'])
    noise = np.random.default_rng(0).integers(0, 20, (SIDE, SIDE)).astype(np.uint16)
    for panel, levels in ((noise, '0 to 19'), (noise + 4050, '4050 to 4069')):
        with pytest.raises(ImagingError, match=f'all pixels of {levels} are one gray under .*4000') as error:
            Inspector(path)(panel)
        assert 'check tube, shutter, panel and window,' in str(error.value)
    assert len(Inspector(path)(noise * 200).boxes) == 1


# ------------------------------------------------------------------------------------------------ folder


def test_a_folder_reads_back_as_written(exported):
    content = folder.read(exported)
    assert (content.threshold, content.classes, list(content.files)) == (
        0.9,
        ['critical', 'minor'],
        ['model.onnx'],
    )


@pytest.mark.parametrize(
    ('damage', 'expected'),
    [
        (lambda f: (f / 'model.onnx').unlink(), 'model.onnx: expected this file'),
        (lambda f: (f / 'model.onnx').write_bytes((f / 'model.onnx').read_bytes()[:-1]), 'checksum'),
        (lambda f: (f / 'metadata.json').unlink(), 'expected an exported detector'),
        (lambda f: (f / 'metadata.json').write_text('{'), 'expected JSON'),
        (lambda f: (f / 'metadata.json').write_text('[]'), 'export format'),
        (
            lambda f: (f / 'metadata.json').write_text(
                (f / 'metadata.json').read_text().replace('"threshold": 0.9', '"threshold": 0.1')
            ),
            'checksum does not fit',
        ),
    ],
    ids=['no graph', 'torn graph', 'no metadata', 'torn metadata', 'other JSON', 'edited threshold'],
)
def test_a_damaged_folder_is_refused_in_one_line(exported, tmp_path, capsys, damage, expected):
    damage(exported)
    with pytest.raises(FolderError, match=expected):
        Inspector(exported)
    cv2.imwrite(str(tmp_path / 'a.png'), spot(20, 30))
    assert infer.main([str(exported), str(tmp_path / 'a.png'), '--out', str(tmp_path / 'out')]) == 1
    errors = capsys.readouterr().err
    assert expected in errors
    assert errors.count('\n') == 1
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'changes',
    [
        dict(threshold=2),
        dict(input=[0, 64]),
        dict(rejecting=['crack']),
        dict(window=dict(type='gamma')),
        dict(std=0.0),
        dict(iou=0.0),
        dict(depths=[8]),
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_values_that_the_runtime_cannot_use_are_refused(tmp_path, changes):
    with pytest.raises(FolderError):
        export_to(tmp_path / 'bad', **changes)


def test_an_absent_engine_is_named(tmp_path):
    path = export_to(tmp_path / 'one', engines=dict(onnxruntime='model.onnx'))
    with pytest.raises(FolderError, match="no graph for 'openvino'"):
        Inspector(path)
    assert Inspector(path, 'onnxruntime')(spot(20, 30)).verdict == 'reject'


def test_only_the_files_of_the_engine_are_read(tmp_path):
    path = export_to(tmp_path / 'two', engines=dict(openvino='model.onnx', onnxruntime='other.onnx'))
    content = folder.read(path)
    (path / 'other.onnx').write_bytes((path / 'model.onnx').read_bytes())
    folder.write(path, content)
    (path / 'other.onnx').write_bytes(b'damaged')
    assert Inspector(path)(spot(20, 30)).verdict == 'reject'
    for read_it in (lambda: Inspector(path, 'onnxruntime'), lambda: folder.read(path)):
        with pytest.raises(FolderError, match='other.onnx: .*checksum'):
            read_it()


def test_a_compiled_graph_is_kept_beside_the_folder_and_checked_before_it_is_used(exported, tmp_path):
    before = {file.name: file.read_bytes() for file in exported.iterdir()}
    image = spot(20, 30)
    first = Inspector(exported)(image)
    (kept,) = (tmp_path / '.exported.cache').iterdir()
    assert {file.name: file.read_bytes() for file in exported.iterdir()} == before
    content, written = kept.read_bytes(), kept.stat().st_mtime_ns
    assert Inspector(exported)(image).boxes.tolist() == first.boxes.tolist()
    assert kept.stat().st_mtime_ns == written
    # A flipped bit, a file cut short, an empty one: compiled again, and kept again.
    flipped = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
    for damaged in (flipped, content[: len(content) // 2], b''):
        kept.write_bytes(damaged)
        assert Inspector(exported)(image).boxes.tolist() == first.boxes.tolist()
        assert kept.read_bytes() != damaged
    # Another detector in the same place does not meet the first one's.
    record = folder.read(exported)
    bright_spot_graph(exported / 'model.onnx', white=510.0)
    folder.write(exported, record)
    assert Inspector(exported)(image).scores.tolist() == [0.5]
    (other,) = (tmp_path / '.exported.cache').iterdir()
    assert other.name != kept.name


def test_a_compiled_graph_that_somebody_else_put_there_is_not_used(exported, tmp_path, monkeypatch):
    """Who may write beside the folder cannot change what the detector says."""
    image = spot(20, 30)
    assert Inspector(exported)(image).scores.tolist() == [1]
    (kept,) = (tmp_path / '.exported.cache').iterdir()
    blind = export_to(tmp_path / 'blind')
    record = folder.read(blind)
    bright_spot_graph(blind / 'model.onnx', white=255_000.0)
    folder.write(blind, record)
    with monkeypatch.context() as other:  # another user, who compiles a graph that finds nothing
        other.setenv('XDG_STATE_HOME', str(tmp_path / 'theirs'))
        assert Inspector(blind)(image).risk < 0.01
        (theirs,) = (tmp_path / '.blind.cache').iterdir()
    content = theirs.read_bytes()
    digest = hashlib.sha256(content[32:]).digest()
    own = Inspector(blind) and next((tmp_path / '.blind.cache').iterdir()).read_bytes()
    for put in (content, digest + content[32:], own):  # own: of another graph of the same user
        kept.write_bytes(put)
        assert Inspector(exported)(image).scores.tolist() == [1]


def test_without_a_secret_of_its_own_nothing_is_kept(exported, tmp_path, monkeypatch):
    state = tmp_path / 'state'
    monkeypatch.setenv('XDG_STATE_HOME', str(state))
    (state / 'mmxray').mkdir(parents=True)
    (state / 'mmxray' / 'cache.key').write_bytes(bytes(32))
    (state / 'mmxray' / 'cache.key').chmod(0o644)  # others know it
    assert Inspector(exported)(spot(20, 30)).verdict == 'reject'
    assert not (tmp_path / '.exported.cache').exists()


@pytest.mark.parametrize('name', ['../other/model.onnx', '/etc/model.onnx', 'a\\model.onnx', '..', '', 'c:m'])
def test_an_engine_does_not_lead_out_of_the_folder(exported, name):
    path = exported / 'metadata.json'
    content = json.loads(path.read_text())
    del content['checksum']
    content['engines']['openvino'] = name
    path.write_text(json.dumps(content | dict(checksum=folder._checksum(content))))
    with pytest.raises(FolderError, match='expected names without a folder'):
        Inspector(exported)


def test_graphs_that_nothing_hashes_are_refused(exported):
    path = exported / 'metadata.json'
    content = json.loads(path.read_text())
    del content['checksum']
    content['files'] = {}
    path.write_text(json.dumps(content | dict(checksum=folder._checksum(content))))
    with pytest.raises(FolderError, match='names no checksum of model.onnx'):
        Inspector(exported)
    content['files'] = {'model.onnx': sha256(exported / 'model.onnx')}
    path.write_text(json.dumps(content | dict(checksum=folder._checksum(content))))
    assert Inspector(exported)(spot(20, 30)).folder == folder.digest_of(folder.read(exported))
    (exported / 'model.bin').write_bytes(b'weights')
    with pytest.raises(FolderError, match='model.bin: is not of this export'):
        Inspector(exported)


def test_a_folder_is_taken_only_with_the_signature_of_a_key(exported, tmp_path, capsys):
    """Signed as the documentation says, by openssl."""

    def openssl(*arguments):
        subprocess.run(['openssl', *map(str, arguments)], check=True, capture_output=True)

    for name in ('ours', 'other'):
        openssl('genpkey', '-algorithm', 'ed25519', '-out', tmp_path / f'{name}.pem')
        openssl('pkey', '-in', tmp_path / f'{name}.pem', '-pubout', '-out', tmp_path / f'{name}.pub')

    def sign(name):
        key, result = tmp_path / f'{name}.pem', exported / 'metadata.json'
        openssl('pkeyutl', '-sign', '-inkey', key, '-rawin', '-in', result, '-out', f'{result}.sig')

    key = tmp_path / 'ours.pub'
    with pytest.raises(FolderError, match='metadata.json.sig: expected a signature'):
        Inspector(exported, key=key)
    sign('other')
    with pytest.raises(FolderError, match='does not fit metadata.json and ours.pub'):
        Inspector(exported, key=key)
    sign('ours')
    assert Inspector(exported, key=key)(spot(20, 30)).verdict == 'reject'
    cv2.imwrite(str(tmp_path / 'a.png'), spot(20, 30))
    command = [str(exported), str(tmp_path / 'a.png'), '--out', str(tmp_path / 'out'), '--key']
    assert infer.main([*command, str(key)]) == 0
    assert f'detector {folder.digest_of(folder.read(exported))}' in capsys.readouterr().out
    # Changed by somebody who writes fitting checksums too.
    result = folder.read(exported)
    result.threshold = 1.0
    folder.write(exported, result)
    assert 'metadata.json.sig' not in folder.read(exported).files
    with pytest.raises(FolderError, match='the folder was changed, or another signed it'):
        Inspector(exported, key=key)
    for bad in (tmp_path / 'none', tmp_path / 'ours.pem', exported / 'metadata.json'):
        assert infer.main([*command, str(bad)]) == 1
        result = capsys.readouterr().err
        assert 'expected a public ed25519 key in PEM' in result
        assert result.count('\n') == 1


def test_where_nothing_can_be_kept_a_graph_is_compiled_each_time(exported, tmp_path):
    (tmp_path / '.exported.cache').write_text('in the way')
    assert Inspector(exported)(spot(20, 30)).verdict == 'reject'
    assert (tmp_path / '.exported.cache').read_text() == 'in the way'


def test_a_graph_that_is_none_is_one_line(tmp_path):
    path = export_to(tmp_path / 'none')
    content = folder.read(path)
    (path / 'model.onnx').write_bytes(b'no graph')
    folder.write(path, content)
    with pytest.raises(ValueError, match='does not load it .*; export again'):
        Inspector(path)


BLOCKED = """
import importlib.abc, socket, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {'torch', 'torchvision', 'mmengine', 'mmcv', 'mmdet', 'mmpretrain'}:
            raise ImportError(f'{name} is not on the line')

def refuse(*args):
    raise OSError('the line has no network')

sys.meta_path.insert(0, Block())
socket.socket.connect = refuse
sys.path.insert(0, sys.argv[1])
from tools import infer
code = infer.main(sys.argv[2:])
assert not [name for name in sys.modules if name.startswith('openvino_telemetry.')]
sys.exit(code)
"""


def test_the_runtime_imports_neither_torch_nor_openmmlab(repo, exported, tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), spot(20, 30))
    out = tmp_path / 'out'
    command = [sys.executable, '-c', BLOCKED, str(repo), str(exported), str(tmp_path / 'a.png')]
    done = subprocess.run(
        [*command, '--out', str(out)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    (row,) = rows(out / 'shard-1-of-1')
    # The same answer as from Python, in this process.
    inspection = Inspector(exported)(tmp_path / 'a.png')
    assert (row['boxes'], row['scores']) == (inspection.boxes.tolist(), inspection.scores.tolist())


# ----------------------------------------------------------------------------------------------- archive


def rows(shard):
    return [json.loads(line) for line in (shard / 'journal.jsonl').read_text().splitlines()]


@pytest.fixture
def archive(tmp_path):
    root = tmp_path / 'archive'
    for k in range(7):
        path = root / f'day{k % 2}' / f'{k}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), spot(10 + 8 * k, 30))
    (root / 'day0' / 'torn.tif').write_bytes(b'II*\0')
    (root / 'notes.txt').write_text('not a radiograph')
    return root


def test_a_full_disk_names_the_folder_and_the_remedy_and_the_next_run_goes_on(
    exported, archive, tmp_path, capsys
):
    command = [str(exported), str(archive), '--out', str(tmp_path / 'out'), '--overlays', 'none']
    Inspector(exported)  # its graph is kept
    with largest_file(1800):
        assert infer.main(command) == 1
    shard = tmp_path / 'out' / 'shard-1-of-1'
    errors = capsys.readouterr().err.splitlines()[-1]
    assert errors == (
        f'error: {shard}: not written (File too large); make room there, then run the same command again: it '
        'goes on where it stopped'
    )
    lines = (shard / 'journal.jsonl').read_bytes().splitlines(keepends=True)
    before = sum(line.endswith(b'\n') and b'"error"' not in line for line in lines)
    assert 0 < before < 7
    assert infer.main(command) == 0
    assert f'8 radiographs, {before} of them in an earlier run' in capsys.readouterr().out
    assert len((shard / 'images.csv').read_text().splitlines()) == 8


def test_results_appear_while_it_runs(exported, archive, tmp_path, monkeypatch):
    monkeypatch.setattr(runtime_archive, 'TABLES_SECONDS', 0)
    monkeypatch.setattr(runtime_archive, 'TABLES_RATIO', 0)
    shard, seen = tmp_path / 'out' / 'shard-1-of-1', []

    def progress(rows, earlier, total):
        for row in rows:
            if (shard / 'images.csv').is_file():
                coco = json.loads((shard / 'coco.json').read_text())
                seen.append((len((shard / 'images.csv').read_text().splitlines()) - 1, len(coco['images'])))
            yield row

    root, names = find_images(archive)
    inspect_archive(Inspector(exported), root, names, tmp_path / 'out', progress=progress)
    assert seen
    assert all(rows == images for rows, images in seen)
    assert seen[0][0] < seen[-1][0]


def test_where_nothing_can_be_read_the_exit_status_says_so(exported, archive, tmp_path, capsys):
    torn = tmp_path / 'torn'
    torn.mkdir()
    (torn / 'a.png').write_bytes(b'')
    cv2.imwrite(str(torn / 'b.png'), spot(20, 30, dtype=np.uint16))  # the wrong panel depth
    assert infer.main([str(exported), str(torn), '--out', str(tmp_path / 'out')]) == 3
    result = f'error: {torn}: none of the 2 radiographs to do could be read'
    assert result in capsys.readouterr().err
    assert [row['image'] for row in rows(tmp_path / 'out' / 'shard-1-of-1')] == ['a.png', 'b.png']
    cv2.imwrite(str(torn / 'a.png'), spot(20, 30))
    assert infer.main([str(exported), str(torn), '--out', str(tmp_path / 'out')]) == 0
    # A share that no radiograph falls to is done.
    assert infer.main([str(exported), str(torn), '--out', str(tmp_path / 'out'), '--shard', '1/9']) == 0
    # What an earlier run has read says nothing of this one.
    shutil.copy(torn / 'b.png', torn / 'c.png')
    assert infer.main([str(exported), str(torn), '--out', str(tmp_path / 'out')]) == 3
    assert result in capsys.readouterr().err


def test_an_archive_becomes_coco_csv_and_overlays_and_bad_files_are_set_aside(exported, archive, tmp_path):
    out = tmp_path / 'out'
    assert infer.main([str(exported), str(archive), '--out', str(out)]) == 0
    shard = out / 'shard-1-of-1'
    coco = json.loads((shard / 'coco.json').read_text())
    assert [i['file_name'] for i in coco['images']] == sorted(
        str(p.relative_to(archive)) for p in archive.rglob('*.png')
    )
    assert coco['annotations'][0]['bbox'] == [6, 26, 8, 8]
    rejected = {i['file_name'] for i in coco['images'] if i['verdict'] == 'reject'}
    assert 0 < len(rejected) < 7
    assert {str(p.relative_to(shard / 'overlays'))[:-4] for p in shard.rglob('overlays/**/*.png')} == rejected
    picture = cv2.imread(str(next(shard.rglob('overlays/**/*.png'))))
    assert picture.shape == (SIDE, SIDE, 3)
    assert (picture[..., 0] != picture[..., 2]).any()
    reason = (shard / 'quarantine.csv').read_text().splitlines()
    assert len(reason) == 2
    assert reason[1].startswith('day0/torn.tif,')
    assert len((shard / 'detections.csv').read_text().splitlines()) == 8
    assert sorted(p.name for p in archive.rglob('*') if p.is_file()).count('torn.tif') == 1


def test_shards_share_the_archive_without_overlap(exported, archive, tmp_path):
    inspect, (root, names) = Inspector(exported), find_images(archive)
    for k in (1, 2, 3):
        inspect_archive(inspect, root, names, tmp_path / 'out', (k, 3), overlays='none')
    found = [row['image'] for k in (1, 2, 3) for row in rows(tmp_path / 'out' / f'shard-{k}-of-3')]
    assert sorted(found) == names
    assert not list((tmp_path / 'out').rglob('overlays'))


def test_a_restart_repeats_nothing_and_mends_a_torn_line(exported, archive, tmp_path):
    inspect, (root, names) = Inspector(exported), find_images(archive)
    inspect_archive(inspect, root, names, tmp_path / 'whole')
    whole = (tmp_path / 'whole' / 'shard-1-of-1' / 'journal.jsonl').read_text()

    seen = []

    def killed(results, earlier, total):
        for result in results:
            seen.append(result[0])
            if len(seen) == 4:
                raise KeyboardInterrupt
            yield result

    out = tmp_path / 'out'
    with pytest.raises(KeyboardInterrupt):
        inspect_archive(inspect, root, names, out, progress=killed)
    journal = out / 'shard-1-of-1' / 'journal.jsonl'
    assert len(rows(journal.parent)) == 3
    with journal.open('a') as file:
        file.write('{"image": "day0/')
    assert not (journal.parent / 'coco.json').exists()
    seen.clear()
    bars = []

    def counted(results, earlier, total):
        bars.append((earlier, total))
        return (seen.append(result[0]) or result for result in results)

    inspection = inspect_archive(inspect, root, names, out, progress=counted)
    assert len(seen) == len(names) - 3
    assert bars == [(3, 8)]
    assert (inspection.radiographs, inspection.earlier, inspection.quarantined) == (8, 3, 1)
    assert journal.read_text() == whole


def test_results_are_the_same_numbers_everywhere(exported, tmp_path):
    image = np.full((48, 48), 100, np.uint8)  # resized by 4 / 3: no coordinate is round
    image[30, 10] = 201
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    inspection = Inspector(exported)(tmp_path / 'a.png')
    assert infer.main([str(exported), str(tmp_path / 'a.png'), '--out', str(tmp_path / 'out')]) == 0
    shard = tmp_path / 'out' / 'shard-1-of-1'
    (row,) = rows(shard)
    assert (row['boxes'], row['scores'], row['risk']) == (
        inspection.boxes.tolist(),
        inspection.scores.tolist(),
        inspection.risk,
    )
    (found,) = json.loads((shard / 'coco.json').read_text())['annotations']
    x1, y1, x2, y2 = inspection.boxes[0].tolist()
    assert (found['bbox'], found['score']) == ([x1, y1, x2 - x1, y2 - y1], inspection.scores[0])
    assert (shard / 'detections.csv').read_text().splitlines()[1].split(',')[2] == str(
        float(inspection.scores[0])
    )
    assert (shard / 'images.csv').read_text().splitlines()[
        1
    ] == f'a.png,{inspection.verdict},{inspection.risk}'


def test_a_score_just_below_the_threshold_counts_nowhere(exported):
    box = np.array([[10, 10, 40, 40]], np.float32), np.float32([0.9]), np.array([0])
    inspect = Inspector.of(folder.read(exported), lambda image, extent: box)
    inspection = inspect(spot(20, 30))
    assert (inspect.threshold, inspection.risk) == (0.9, float(np.float32(0.9)))  # 0.899999976158…
    assert inspection.verdict == 'accept'
    assert (overlay(inspection, 0.9) == overlay(inspection, 1.0)).all()
    assert (
        Inspector.of(folder.read(exported), lambda *_: box, inspection.risk)(spot(20, 30)).verdict == 'reject'
    )


def test_dicom_and_16_bit_tiff_are_inspected(tmp_path):
    window = dict(type='absolute', low=0, high=4095)
    path = export_to(tmp_path / 'deep', window=window, depths=['12-bit unsigned', '16-bit unsigned'])
    (tmp_path / 'archive').mkdir()
    image = spot(20, 30, 4095, dtype=np.uint16)
    (tmp_path / 'archive' / 'a.dcm').write_bytes(dicom(image, 12))
    tifffile.imwrite(tmp_path / 'archive' / 'b.tif', image, photometric='minisblack')
    (tmp_path / 'archive' / 'c.dcm').write_bytes(dicom(np.stack([image] * 2), 12, frames=2))
    assert infer.main([str(path), str(tmp_path / 'archive'), '--out', str(tmp_path / 'out')]) == 0
    first, second, several = rows(tmp_path / 'out' / 'shard-1-of-1')
    for row in (first, second):
        assert (row['verdict'], row['boxes'], row['scores']) == ('reject', [[16, 26, 24, 34]], [1])
    assert 'holds 2 frames' in several['error']


def test_whatever_goes_wrong_with_one_radiograph_sets_it_aside(exported, archive, tmp_path):
    def detector(image, extent):
        if image[0, 0, 30, 26] == 255:
            raise MemoryError
        if image[0, 0, 30, 34] == 255:
            raise RuntimeError('the engine\ngave up')
        return np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)

    root, names = find_images(archive)
    inspect = Inspector.of(folder.read(exported), detector)
    inspection = inspect_archive(inspect, root, names, tmp_path / 'out')
    assert (inspection.radiographs, inspection.quarantined) == (8, 3)
    errors = {row['image']: row['error'] for row in rows(tmp_path / 'out' / 'shard-1-of-1') if 'error' in row}
    assert 'MemoryError' in errors['day0/2.png']
    assert 'RuntimeError: the engine gave up' in errors['day1/3.png']


def test_what_was_found_does_not_come_back_as_radiographs(exported, archive, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        infer.main([str(exported), str(archive), '--out', str(archive / 'found')])
    assert stop.value.code == 2
    assert f'{archive}/found: lies inside {archive}, expected another place' in capsys.readouterr().err
    assert not (archive / 'found').exists()


def test_added_radiographs_do_not_move_others_to_another_shard(exported, archive, tmp_path):
    inspect = Inspector(exported)

    def shares():
        root, names = find_images(archive)
        for k in (1, 2):
            inspect_archive(inspect, root, names, tmp_path / 'out', (k, 2), overlays='none')
        return [[row['image'] for row in rows(tmp_path / 'out' / f'shard-{k}-of-2')] for k in (1, 2)]

    first = shares()
    for k in range(5):
        cv2.imwrite(str(archive / 'day0' / f'0{k}.png'), spot(10, 30))  # before the others in the list
    second = shares()
    assert [more[: len(share)] for share, more in zip(first, second, strict=True)] == first
    assert sorted(sum(second, [])) == find_images(archive)[1]


def test_a_damaged_journal_is_one_line(exported, archive, tmp_path, capsys):
    arguments = [str(exported), str(archive), '--out', str(tmp_path / 'out')]
    assert infer.main(arguments) == 0
    journal = tmp_path / 'out' / 'shard-1-of-1' / 'journal.jsonl'
    lines = journal.read_bytes().splitlines(keepends=True)
    for damaged in (
        b'{"image": "day0/0.png"\n',
        b'\xff\xfe\n',
        b'[]\n',
        b'{"image": "a", "verdict": "accept"}\n',
    ):
        journal.write_bytes(lines[0] + damaged + lines[2])
        capsys.readouterr()
        assert infer.main(arguments) == 1
        errors = capsys.readouterr().err
        assert f'{journal}: line 2 is damaged' in errors
        assert errors.count('\n') == 1
    # As it says: without the line, its radiograph is inspected again.
    journal.write_bytes(lines[0] + lines[2])
    assert infer.main(arguments) == 0
    assert sorted(journal.read_bytes().splitlines()) == sorted(line.strip() for line in lines)


def test_a_torn_line_of_any_length_is_cut_off(exported, archive, tmp_path):
    root, names = find_images(archive)
    inspect = Inspector(exported)
    inspect_archive(inspect, root, names, tmp_path / 'out')
    journal = tmp_path / 'out' / 'shard-1-of-1' / 'journal.jsonl'
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"image": "' + b'x' * 3 * 2**20)
    inspect_archive(inspect, root, names, tmp_path / 'out')
    assert sorted(journal.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_a_file_that_changed_or_could_not_be_read_is_inspected_again(exported, archive, tmp_path):
    inspect, (root, names) = Inspector(exported), find_images(archive)
    inspect_archive(inspect, root, names, tmp_path / 'out')
    shard = tmp_path / 'out' / 'shard-1-of-1'
    before = {row['image']: row for row in rows(shard)}
    worst = max((row for row in before.values() if 'error' not in row), key=lambda row: row['risk'])['image']
    assert (shard / 'overlays' / f'{worst}.png').is_file()
    cv2.imwrite(str(archive / worst), spot(20, 30, 101))  # another part under its name
    tifffile.imwrite(archive / 'day0' / 'torn.tif', spot(20, 30), photometric='minisblack')  # copied again
    (archive / 'day1' / '1.png').unlink()  # moved away: what was found stays
    again = []
    inspection = inspect_archive(
        inspect,
        *find_images(archive),
        tmp_path / 'out',
        progress=lambda results, *_: (again.append(result[0]) or result for result in results),
    )
    assert sorted(again) == sorted([worst, 'day0/torn.tif'])
    assert (inspection.radiographs, inspection.quarantined, inspection.earlier) == (8, 0, 5)
    after = {row['image']: row for row in rows(shard)}
    assert len(rows(shard)) == 8
    assert after[worst]['verdict'] == 'accept'
    assert not (shard / 'overlays' / f'{worst}.png').exists()
    assert after['day0/torn.tif']['verdict'] == 'reject'
    rest = before.keys() - set(again)
    assert {name: after[name] for name in rest} == {name: before[name] for name in rest}
    assert len((shard / 'images.csv').read_text().splitlines()) == 9


def test_a_shard_is_inspected_by_one_process_at_a_time(exported, archive, tmp_path):
    inspect, (root, names) = Inspector(exported), find_images(archive)

    def second(results, *_):
        with pytest.raises(ArchiveError, match='another process is inspecting this shard'):
            inspect_archive(inspect, root, names, tmp_path / 'out')
        return results

    inspect_archive(inspect, root, names, tmp_path / 'out', progress=second)
    assert len(rows(tmp_path / 'out' / 'shard-1-of-1')) == len(names)


def test_a_rejected_radiograph_with_a_long_name_gets_its_picture(exported, archive, tmp_path):
    for name in ('ü' * 125 + '.png', 'u' * 251 + '.png'):
        shutil.copy(archive / 'day0' / '2.png', archive / name)
    inspect = Inspector(exported)
    inspection = inspect_archive(inspect, *find_images(archive), tmp_path / 'out', overlays='all')
    pictures = list((tmp_path / 'out').rglob('overlays/**/*.png'))
    assert len(pictures) == inspection.radiographs - inspection.quarantined == 9


def test_a_folder_that_cannot_be_listed_is_not_passed_over(exported, archive, tmp_path, monkeypatch, capsys):
    (tmp_path / 'more').mkdir()
    cv2.imwrite(str(tmp_path / 'more' / 'a.png'), spot(20, 30))
    (archive / 'link').symlink_to(tmp_path / 'more')
    assert 'link/a.png' in find_images(archive)[1]
    scandir = os.scandir

    def refuse(place='.'):
        if str(place).rstrip('/').endswith('day1'):
            raise PermissionError(13, 'Permission denied', place)
        return scandir(place)

    monkeypatch.setattr(os, 'scandir', refuse)  # as root, nothing is forbidden
    assert infer.main([str(exported), str(archive), '--out', str(tmp_path / 'out')]) == 1
    errors = capsys.readouterr().err
    assert re.search(r'day1/?: expected a readable folder \(Permission denied\)', errors)
    assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_the_tables_of_a_large_archive_are_written_line_by_line(exported, tmp_path):
    root, inspect = tmp_path / 'archive', Inspector(exported)
    root.mkdir()
    shard = tmp_path / 'out' / 'shard-1-of-1'
    inspect_archive(inspect, root, [], tmp_path / 'out')
    names = [f'{k}.png' for k in range(800)]
    row = dict(height=64, width=64, verdict='reject', risk=0.95, boxes=[[1.0, 2.0, 3.0, 5.0]] * 50)
    row |= dict(scores=[0.95] * 50, labels=[0] * 50)
    (shard / 'journal.jsonl').write_text(''.join(json.dumps(dict(image=name) | row) + '\n' for name in names))
    tracemalloc.start()
    inspect_archive(inspect, root, names, tmp_path / 'out')
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < (shard / 'coco.json').stat().st_size / 4
    coco = json.loads((shard / 'coco.json').read_text())
    assert (len(coco['images']), len(coco['annotations'])) == (800, 40_000)
    assert coco['annotations'][-1] == dict(
        id=40_000, image_id=800, category_id=1, bbox=[1, 2, 2, 3], area=6, iscrowd=0, score=0.95
    )


def test_a_name_that_is_no_text_is_kept(exported, archive, tmp_path):
    odd = os.fsdecode(b'day0/\xff.png')
    cv2.imwrite(str(archive / 'day0' / 'x.png'), spot(12, 30))
    (archive / 'day0' / 'x.png').rename(archive / odd)
    root, names = find_images(archive)
    inspect_archive(Inspector(exported), root, names, tmp_path / 'out')
    shard = tmp_path / 'out' / 'shard-1-of-1'
    assert odd in [image['file_name'] for image in json.loads((shard / 'coco.json').read_text())['images']]
    assert b'day0/\xff.png,reject' in (shard / 'images.csv').read_bytes()


def test_results_of_two_detectors_are_not_mixed(exported, archive, tmp_path):
    root, names = find_images(archive)
    inspect_archive(Inspector(exported), root, names, tmp_path / 'out')
    # The same graph, told otherwise how to read a radiograph.
    window = export_to(tmp_path / 'window', window=dict(type='absolute', low=0, high=200))
    for other in (
        Inspector(exported, threshold=0.2),
        Inspector(exported, 'onnxruntime'),
        Inspector(window),
    ):
        with pytest.raises(ArchiveError, match='another detector, engine, threshold or archive'):
            inspect_archive(other, root, names, tmp_path / 'out')


@pytest.mark.parametrize('text', ['0/2', '3/2', '1', 'a/b', '1/0', '-1/2'])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(ArchiveError, match='expected i/n'):
        parse_shard(text)


def test_an_archive_without_radiographs_is_refused(exported, tmp_path, capsys):
    (tmp_path / 'empty').mkdir()
    assert infer.main([str(exported), str(tmp_path / 'empty'), '--out', str(tmp_path / 'out')]) == 1
    assert 'found none' in capsys.readouterr().err
    assert not Path(tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'arguments',
    [
        ['one'],
        ['a', 'b', 'c', 'd'],
        ['a', 'b', '--threshold', '2'],
        ['a', 'b', '--streams', '0'],
        ['a', 'b', '--shard', '9/8'],
        # Of an exported folder alone.
        ['config', 'checkpoint', 'images', '--threads', '2'],
        ['config', 'checkpoint', 'images', '--streams', '2'],
        ['config', 'checkpoint', 'images', '--engine', 'openvino'],
    ],
    ids=' '.join,
)
def test_wrong_use_of_infer_exits_2(arguments):
    with pytest.raises(SystemExit) as stop:
        infer.main([*arguments, '--out', 'out'])
    assert stop.value.code == 2


def test_dicom_without_a_suffix_is_inspected_too(tmp_path):
    """Archives name their files so; one that is passed over is a part that nobody looked at."""
    for name in ('IM000001', '1.2.840.7'):
        (tmp_path / name).write_bytes(bytes(128) + b'DICM')
    (tmp_path / 'notes').write_text('no radiograph')
    assert find_images(tmp_path) == (tmp_path, ['1.2.840.7', 'IM000001'])


def test_what_may_be_a_radiograph_is_inspected_or_set_aside_with_its_reason(exported, tmp_path, capsys):
    root = tmp_path / 'archive'
    root.mkdir()
    whole = dicom(spot(20, 30), 8)
    (root / 'IM000001').write_bytes(whole)
    (root / 'IM000002').write_bytes(b'')  # a torn copy
    (root / 'IM000003').write_bytes(whole[:90])  # within the preamble
    (root / '1.2.840.7').write_bytes(b'')
    (root / 'IM000004').symlink_to('/proc/self/mem')  # cannot be read, not even by root
    (root / 'part.ima').write_bytes(whole)
    (root / 'torn.IMA').write_bytes(whole[:40])  # another file of that suffix
    (root / 'locked.xyz').symlink_to('/proc/self/mem')
    (root / 'p.png').symlink_to(tmp_path / 'gone.png')
    others = [
        '.DS_Store',
        '._p.png',
        '._part.ima',
        'DICOMDIR',
        'README',
        'log.1',
        'notes',
        'readme.txt',
        'sizes.bin',
        'thumbs.db',
    ]
    for name in others[:-2]:
        (root / name).write_text('Prüfplan 7, übernommen am 26. November\n' * 9, encoding='latin-1')
    (root / '.DS_Store').write_bytes(b'\0\0\0\1Bud1')
    (root / 'DICOMDIR').write_bytes(whole)
    (root / 'sizes.bin').write_bytes(bytes(140))
    (root / 'thumbs.db').write_bytes(b'')
    listed = sorted({path.name for path in root.iterdir()} - set(others))
    assert len(listed) == 9
    passed = []
    assert find_images(root, passed.extend) == (root, listed)
    assert passed == others

    assert infer.main([str(exported), str(root), '--out', str(tmp_path / 'out')]) == 0
    assert f'passed over 10 other files, such as {others[:3]}' in capsys.readouterr().out
    result = {row['image']: row for row in rows(tmp_path / 'out' / 'shard-1-of-1')}
    assert sorted(result) == listed
    assert {name for name, row in result.items() if row.get('verdict')} == {'IM000001', 'part.ima'}
    reasons = {name: row['error'] for name, row in result.items() if 'error' in row}
    assert 'found an empty file' in reasons['IM000002']
    assert 'found none of them' in reasons['IM000003']
    assert 'Input/output error' in reasons['IM000004']
    assert 'No such file' in reasons['p.png']


@pytest.mark.parametrize('name', ['2026', 'line.2', 'IM000009', 'notes.txt'])
def test_a_link_that_may_have_been_a_folder_stops_the_run(exported, archive, tmp_path, capsys, name):
    (archive / 'day0' / name).symlink_to('/nowhere/nas')
    assert infer.main([str(exported), str(archive), '--out', str(tmp_path / 'out')]) == 1
    errors = capsys.readouterr().err
    assert f'day0/{name}: links to /nowhere/nas, expected a file or a folder there' in errors
    assert errors.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_a_link_to_itself_is_one_line(exported, archive, tmp_path, capsys):
    (archive / 'loop').symlink_to(archive / 'loop')
    assert infer.main([str(exported), str(archive), '--out', str(tmp_path / 'out')]) == 1
    errors = capsys.readouterr().err
    assert f'{archive}/loop: expected a file or a folder (Too many levels of symbolic links)' in errors
    assert errors.count('\n') == 1


class SignalStack(ctypes.Structure):
    """stack_t of <signal.h>."""

    _fields_ = [('base', ctypes.c_void_p), ('flags', ctypes.c_int), ('size', ctypes.c_size_t)]


def signal_stack():
    found = SignalStack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found))
    return found.base, found.flags


@pytest.mark.slow
def test_detectors_that_come_and_go_leave_the_threads_signal_stack_alone(exported):
    """A stack that was freed kills the process at the next signal, such as that of a child's end."""
    one = Inspector(exported)
    before = signal_stack()
    for _ in range(2):
        other = Inspector(exported)
        del one
        gc.collect()
        one = other
    del one, other
    gc.collect()
    assert signal_stack() == before
