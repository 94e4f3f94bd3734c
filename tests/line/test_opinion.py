"""The second opinion: patches of sound parts, what is unlike them is flagged, no verdict is changed."""

import csv
import json
from contextlib import closing

import cv2
import numpy as np
import pytest
from helpers.exported import SIDE, export_to, spot
from helpers.serving import caller, serving
from onnx import TensorProto, helper, save

from projects.line.export.memory import coreset, flagging_score
from projects.line.page.server import Session, build
from projects.line.runtime import Inspector, folder
from projects.line.runtime.opinion import distances, patches
from tools import infer

STRIDE = 8


def pooled_graph(path):
    """Features: the mean of each 8 x 8 px, and its square, as two channels."""
    nodes = [
        helper.make_node('AveragePool', ['image'], ['mean'], kernel_shape=[STRIDE] * 2, strides=[STRIDE] * 2),
        helper.make_node('Mul', ['mean', 'mean'], ['square']),
        helper.make_node('Concat', ['mean', 'square'], ['features'], axis=1),
    ]
    size = SIDE // STRIDE
    graph = helper.make_graph(
        nodes,
        'pooled',
        [helper.make_tensor_value_info('image', TensorProto.FLOAT, [1, 1, SIDE, SIDE])],
        [helper.make_tensor_value_info('features', TensorProto.FLOAT, [1, 2, size, size])],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8), path)


def with_opinion(path, threshold=1.0, **changes):
    """An exported folder whose sound radiographs are gray 100 with or without a spot of 110."""
    export_to(path, **changes)
    pooled_graph(path / 'features.onnx')
    plain, spotted = 100.0, 100 + 10 / STRIDE**2
    np.save(path / 'memory.npy', np.array([[v, v * v] for v in (plain, spotted)], np.float32))
    opinion = dict(graph='features.onnx', memory='memory.npy', threshold=threshold, flagged=0, sound=20)
    exported = folder.read(export_to(path.with_name(path.name + '-plain'), **changes))
    exported.opinion = opinion | dict(upper=0.14, confidence=0.95)
    folder.write(path, exported)
    return path


def stain(level=200):
    """What the detector, which looks for the brightest pixel, takes for sound at 200 of 255."""
    image = spot(20, 30, 110)
    image[40:56, 8:24] = level
    return image


@pytest.mark.parametrize('engine', ['openvino', 'onnxruntime'])
def test_what_is_unlike_sound_parts_is_flagged_and_the_verdict_stays(tmp_path, engine):
    inspect = Inspector(with_opinion(tmp_path / 'exported'), engine, cache=False)
    sound, unlike, rejected = inspect(spot(20, 30, 110)), inspect(stain()), inspect(spot(20, 30, 255))
    assert (sound.verdict, sound.flagged) == ('accept', False) and sound.unusual < 1
    assert (unlike.verdict, unlike.flagged) == ('accept', True) and unlike.unusual > 1
    assert rejected.verdict == 'reject'  # whatever the second opinion says
    assert set(sound.seconds) == {'decode', 'window', 'network', 'merge', 'opinion'}
    plain = Inspector(tmp_path / 'exported-plain', engine, cache=False)(stain())
    assert (plain.unusual, plain.flagged, plain.verdict) == (None, False, 'accept')


def test_an_opinion_that_is_content_turns_no_reject_into_an_accept(tmp_path):
    inspect = Inspector(with_opinion(tmp_path / 'exported', threshold=1e9), cache=False)
    inspection = inspect(spot(20, 30, 255))
    assert (inspection.verdict, inspection.flagged) == ('reject', False)


@pytest.mark.parametrize('name', ['memory.npy', 'features.onnx'])
def test_a_changed_memory_or_graph_is_refused(tmp_path, name):
    place = with_opinion(tmp_path / 'exported')
    content = bytearray((place / name).read_bytes())
    content[-1] ^= 1
    (place / name).write_bytes(content)
    with pytest.raises(folder.FolderError, match=f'{name}: .*checksum'):
        Inspector(place)
    (place / name).unlink()
    with pytest.raises(folder.FolderError, match=f'{name}: expected this file'):
        Inspector(place)


def test_a_memory_outside_of_the_folder_is_refused(tmp_path):
    exported = folder.read(with_opinion(tmp_path / 'exported'))
    exported.opinion['memory'] = '../memory.npy'
    folder.write(tmp_path / 'exported', exported)
    with pytest.raises(folder.FolderError, match='expected names'):
        Inspector(tmp_path / 'exported')


def test_padding_is_no_patch():
    def features(image):
        return (np.ones((1, 3, 8, 8), np.float32),)

    image = np.zeros((1, 1, 64, 64), np.float32)
    assert patches(features, image, np.array([64, 64], np.float32)).shape == (64, 3)
    assert patches(features, image, np.array([64, 20], np.float32)).shape == (16, 3)  # middles at 4 and 12


def test_distances_are_those_to_the_nearest():
    rng = np.random.default_rng(0)
    found, memory = rng.normal(size=(20, 5)), rng.normal(size=(7, 5))
    expected = np.linalg.norm(found[:, None] - memory, axis=2).min(1)
    np.testing.assert_allclose(distances(found, memory), expected, rtol=1e-6)


def test_a_coreset_covers_its_points():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(500, 4)).astype(np.float32)
    points[123] = 50
    chosen = coreset(points, 60)
    drawn = points[rng.permutation(500)[:60]]
    assert len(chosen) == 60 and (chosen == 50).all(1).any()  # the rare one is in it
    assert distances(points, chosen).max() < distances(points, drawn).max()
    assert len(coreset(np.ones((9, 4), np.float32), 5)) == 1


def test_the_score_that_flags_keeps_its_bound():
    result = flagging_score(list(range(100)), [str(k) for k in range(100)])
    assert (result['flagged'], result['sound']) == (4, 100) and result['upper'] <= 0.1
    few = flagging_score(list(range(10)), [str(k) for k in range(10)])
    assert (few['threshold'], few['flagged']) == (9, 0) and few['upper'] == pytest.approx(0.2589)
    views = flagging_score([1, 5, 2, 3], ['a', 'a', 'b', 'b'])
    assert (views['sound'], views['threshold']) == (2, 5)
    unknown = flagging_score([1, 5, 2, 3], ['a', None, 'b', 'b'])
    assert unknown['sound'] == 4


def test_archive_service_and_page_tell_of_the_flag(tmp_path, capsys):
    archive, exported = tmp_path / 'archive', with_opinion(tmp_path / 'exported')
    archive.mkdir()
    cv2.imwrite(str(archive / 'sound.png'), spot(20, 30, 110))
    cv2.imwrite(str(archive / 'stain.png'), stain())
    assert infer.main([str(exported), str(archive), '--out', str(tmp_path / 'found')]) == 0
    assert '1 flagged by the second opinion (images.csv)' in capsys.readouterr().out
    with (tmp_path / 'found' / 'shard-1-of-1' / 'images.csv').open() as file:
        rows = {row['image']: row for row in csv.DictReader(file)}
    assert (rows['stain.png']['verdict'], rows['stain.png']['flagged']) == ('accept', 'True')
    assert rows['sound.png']['flagged'] == 'False'
    coco = json.loads((tmp_path / 'found' / 'shard-1-of-1' / 'coco.json').read_text())
    assert [image['flagged'] for image in coco['images']] == [False, True]
    with closing(Session(Inspector(exported), tmp_path / 'out', archive)) as session:
        with serving(build(session)) as address:
            call = caller(address)
            body = json.dumps(dict(paths=['stain.png']))
            program = {'x-inspect': '', 'content-type': 'application/json'}
            (content,) = call('POST', '/v1/inspect', body, **program)[1]['results']
            assert (content['verdict'], content['flagged']) == ('accept', True) and content['unusual'] > 1
            session.inspect(session.add('stain.png', archive / 'stain.png'))
            assert call('GET', '/api/state')[1]['items'][0]['flagged'] is True
            assert 'mmxray_flagged_total{verdict="accept"} 2.0' in call('GET', '/metrics')[1].decode()
            decided = call('POST', '/api/images/1/decision', dict(verdict='accept', boxes=[]))
            assert decided[0].status == 200
        assert session.decisions.latest[session.items[1].file_name]['detector']['flagged'] is True
