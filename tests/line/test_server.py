"""The inspection page's server, over real HTTP: uploads, folders, pixels, corrections, what it refuses."""

import http.client
import json
import os
import re
import shutil
import socket
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.disk import largest_file
from helpers.exported import export_to, spot
from helpers.radiograph_files import dicom
from helpers.serving import caller, serving, wait_for
from mmengine.registry import DATASETS, DefaultScope

from projects.line.export import detector as export_detector
from projects.line.page.pixels import as_16_bit
from projects.line.page.server import Session, build
from projects.line.runtime import Inspector, folder
from projects.line.runtime.archive import ArchiveError
from projects.runs import running
from projects.xray.datasets import DatasetError, load_defects
from tools import inspect_page

DEPTHS = ['8-bit unsigned', '16-bit unsigned']


@pytest.fixture
def server(tmp_path):
    """A running server on the loopback interface, with an archive; gives a function that calls it."""
    archive = tmp_path / 'archive'
    (archive / 'day').mkdir(parents=True)
    for k, level in enumerate((150, 255, 200)):
        cv2.imwrite(str(archive / 'day' / f'{k}.png'), spot(20, 30, level))
    (tmp_path / 'secret.png').write_bytes((archive / 'day' / '0.png').read_bytes())
    (archive / 'day' / 'link.png').symlink_to(tmp_path / 'secret.png')
    session = Session(Inspector(export_to(tmp_path / 'exported', depths=DEPTHS)), tmp_path / 'out', archive)

    with closing(session), serving(build(session)) as address:
        call = caller(address)
        call.session = session
        yield call


def inspected(server):
    """The items of the page, once the detector has seen them all."""

    def ask():
        items = server('GET', '/api/state')[1]['items']
        return all(item['state'] != 'waiting' for item in items) and items

    return wait_for(ask)


def send(server, name, image):
    coded, content = cv2.imencode('.png', image)
    assert coded
    return server.send(name, content.tobytes())


def test_an_upload_is_inspected_and_its_16_bit_pixels_come_back(server):
    image = spot(20, 30, 65535, dtype=np.uint16)
    image[5, 6] = 40_001
    answer, body = send(server, 'part.png', image)
    assert answer.status == 200
    _, found = server('GET', f'/api/images/{body["id"]}')
    assert (found['state'], found['size'], found['boxes'][0]['box']) == ('found', [64, 64], [16, 26, 24, 34])
    answer, content = server('GET', f'/api/images/{body["id"]}/pixels')
    assert (answer.headers['x-height'], answer.headers['x-width']) == ('64', '64')
    assert np.array_equal(np.frombuffer(content, '<u2').reshape(64, 64), image)


def test_a_folder_is_inspected_and_corrections_become_a_data_set(server, tmp_path):
    assert server('GET', '/api/folders')[1] == ['day']
    # Not the link that leads out.
    assert server('POST', '/v1/inspect/folder', dict(folder='day'))[1] == dict(added=3, outside=1)
    worst = max(inspected(server), key=lambda item: item['risk'])
    assert (worst['name'], worst['risk']) == ('day/1.png', 1)
    boxes = [dict(box=[1, 2, 11, 22], label=1)]
    answer, _ = server('POST', f'/api/images/{worst["id"]}/decision', dict(verdict='accept', boxes=boxes))
    assert answer.status == 200
    # A second decision on it replaces the first; another image is added by another sitting.
    boxes.append(dict(box=[30, 30, 40, 40], label=0))
    body = dict(verdict='reject', boxes=boxes, part='p7', revision=1)
    assert server('POST', f'/api/images/{worst["id"]}/decision', body)[0].status == 200
    server.session.close()
    second = Session(server.session.inspector, tmp_path / 'out')
    key = second.add('new.png', tmp_path / 'secret.png')
    second.inspect(key)
    second.decide(key, 'accept', [])

    path = tmp_path / 'out' / 'corrections.json'
    truth = load_defects(str(path), ('critical', 'minor'), None)
    names = [image['file_name'] for image in truth['images']]
    assert [re.sub('-[0-9a-f]{12}', '', name) for name in names] == ['day/1.png', 'new.png']
    assert [image['verdict'] for image in json.loads(path.read_text())['images']] == ['reject', 'accept']
    # The part that the inspector gave; of the other it is not known, and no name of a file stands in for it.
    assert [image.get('part') for image in truth['images']] == ['p7', None]
    assert [a['bbox'] for a in truth['annotations']] == [[1, 2, 10, 20], [30, 30, 10, 10]]
    assert all((tmp_path / 'out' / 'images' / image['file_name']).is_file() for image in truth['images'])


def test_a_part_follows_from_the_rule_of_the_data_set(tmp_path):
    """Corrections name a part as the converter does, by --group, not by the name of the file."""
    image = tmp_path / 'P07_view3.png'
    cv2.imwrite(str(image), spot(20, 30))
    exported = export_to(tmp_path / 'exported', origin=dict(part_rule='(P[0-9]+)_view'))
    with closing(Session(Inspector(exported), tmp_path / 'out')) as session:
        for name in ('day/P07_view3.png', 'day/other.png'):
            key = session.add(name, image)
            session.inspect(key)
            session.decide(key, 'accept', [])
        assert [item.part for item in session.items.values()] == ['P07', '']
    kept = json.loads((tmp_path / 'out' / 'corrections.json').read_text())
    assert [image.get('part') for image in kept['images']] == ['P07', None]
    assert kept['info']['group'] == '(P[0-9]+)_view'


def test_corrections_are_trained_on_as_the_documentation_says(server, repo, tmp_path, monkeypatch):
    """The other radiographs have types, which a map turns into the classes of the corrections."""
    _, result = send(server, 'part.png', spot(20, 30))
    body = dict(
        verdict='reject', boxes=[dict(box=[16, 26, 24, 34], label=0), dict(box=[1, 1, 9, 9], label=1)]
    )
    assert server('POST', f'/api/images/{result["id"]}/decision', body)[0].status == 200
    (tmp_path / 'work_dirs').mkdir()
    (tmp_path / 'out').rename(tmp_path / 'work_dirs' / 'inspect')
    plant = tmp_path / 'data' / 'industrial'
    (plant / 'images').mkdir(parents=True)
    cv2.imwrite(str(plant / 'images' / 'a.png'), spot(40, 30))
    coco = dict(
        images=[dict(id=1, file_name='a.png', width=64, height=64)],
        annotations=[dict(id=1, image_id=1, category_id=1, bbox=[36, 26, 8, 8])],
        categories=[dict(id=1, name='pinhole')],
    )
    (plant / 'train.json').write_text(json.dumps(coco))
    section = (repo / 'docs' / 'line.md').read_text().split('## The page')[1]
    (text,) = re.findall('```python\n(_base_ = .*?)```', section, re.DOTALL)
    (tmp_path / 'own.py').write_text(text.replace("'./", f"'{repo}/configs/faster_rcnn/"))

    monkeypatch.chdir(tmp_path)
    cfg = running.read_config('own.py')
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert [dataset.get_data_info(k)['instances'][0]['bbox_label'] for k in range(2)] == [1, 0]
    ours, theirs = (dataset[k]['data_samples'].gt_instances.labels.tolist() for k in (1, 0))
    assert (ours, theirs) == ([0, 1], [1])
    # INT8 is calibrated with the detector's own radiographs; a set to measure on is one.
    assert export_detector.read_split(cfg, 'train', 1).paths == ['data/industrial/images/a.png']
    cfg.val_dataloader.dataset = cfg.train_dataloader.dataset
    with pytest.raises(DatasetError, match='val_dataloader: 2 data sets, expected one; join'):
        export_detector.read_split(cfg, 'val')


def decided_on(server):
    """What the page shows of day/1.png: decision, part, boxes and the risk that the detector gave it."""
    (item,) = [item for item in inspected(server) if item['name'] == 'day/1.png']
    result = server('GET', f'/api/images/{item["id"]}')[1]
    return (
        result['decision'],
        result['part'],
        [(b['box'], b['label'], b['score']) for b in result['boxes']],
        result['risk'],
    )


@pytest.mark.parametrize('again', ['opened again', 'another sitting'])
def test_what_was_decided_comes_back_with_its_radiograph(server, tmp_path, again):
    server('POST', '/v1/inspect/folder', dict(folder='day'))
    (item,) = [item for item in inspected(server) if item['name'] == 'day/1.png']
    body = dict(verdict='reject', boxes=[dict(box=[1.3, 2.1, 11.2, 64], label=0)], part='p7')
    assert server('POST', f'/api/images/{item["id"]}/decision', body)[0].status == 200
    before = decided_on(server)
    assert before == ('reject', 'p7', [([1.3, 2.1, 11.2, 64], 0, None)], 1)
    kept = (tmp_path / 'out' / 'corrections.json').read_bytes()
    if again == 'opened again':
        server('POST', '/v1/inspect/folder', dict(folder='day'))
        assert decided_on(server) == before
    else:
        server.session.close()
        with closing(Session(server.session.inspector, tmp_path / 'out', tmp_path / 'archive')) as second:
            key = second.add('day/1.png', tmp_path / 'archive' / 'day' / '1.png')
            second.inspect(key)
            found = second.items[key]
            boxes = [(b['box'], b['label'], b['score']) for b in found.boxes]
            assert (found.decision, found.part, boxes, found.risk) == before
            # Deciding on it as it is changes nothing.
            second.decide(key, found.decision, found.boxes)
    assert (tmp_path / 'out' / 'corrections.json').read_bytes() == kept


def test_a_file_that_changed_is_another_radiograph(server, tmp_path):
    """Neither the decision on what was there before nor a look at it counts for what is there now."""
    server('POST', '/v1/inspect/folder', dict(folder='day'))
    (item,) = [item for item in inspected(server) if item['name'] == 'day/1.png']
    place = f'/api/images/{item["id"]}'
    body = dict(verdict='accept', boxes=[], digest=server('GET', place)[1]['digest'])
    assert server('POST', f'{place}/decision', body)[0].status == 200
    cv2.imwrite(str(tmp_path / 'archive' / 'day' / '1.png'), spot(40, 30))
    answer, content = server('GET', f'{place}/pixels')  # its boxes would be those of the other
    assert (answer.status, content['detail'][:16]) == (400, 'its file changed')
    server('POST', '/v1/inspect/folder', dict(folder='day'))
    decision, _, (box,), _ = decided_on(server)
    assert (decision, box) == (None, ([36, 26, 44, 34], 1, 1))
    answer, content = server('POST', f'{place}/decision', body)
    assert (answer.status, content['detail'][:31]) == (400, 'this is not the radiograph that')
    assert len(json.loads((tmp_path / 'out' / 'corrections.json').read_text())['images']) == 1


def test_one_sitting_at_a_time_keeps_corrections_in_a_place(server, tmp_path, capsys):
    with socket.create_server(('127.0.0.1', 0)) as taken:  # otherwise it would serve, and the test not end
        port = str(taken.getsockname()[1])
        command = [str(tmp_path / 'exported'), '--out', str(tmp_path / 'out'), '--port', port]
        assert inspect_page.main(command) == 1
    errors = capsys.readouterr().err
    assert (
        errors
        == f'error: {tmp_path}/out: another page keeps corrections there; end it, or give another --out\n'
    )
    server.session.close()
    Session(server.session.inspector, tmp_path / 'out').close()


def test_a_full_disk_is_said_and_leaves_no_half_file(server, tmp_path):
    noise = np.random.default_rng(0).integers(0, 60_000, (64, 64), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / 'archive' / 'day' / '1.png'), noise)  # 8 kB
    server('POST', '/v1/inspect/folder', dict(folder='day'))
    large, small = sorted(inspected(server), key=lambda item: item['name'] != 'day/1.png')[:2]
    decision = dict(verdict='reject', boxes=[dict(box=[16, 26, 24, 34], label=0)])
    many = dict(verdict='reject', boxes=decision['boxes'] * 100)
    with largest_file(4096):
        answers = [
            server('POST', f'/api/images/{large["id"]}/decision', decision),
            server('POST', f'/api/images/{small["id"]}/decision', many),
            send(server, 'up.png', noise),
        ]
    expected = f'{tmp_path}/out: not kept (File too large); make room there, then try again'
    assert [(answer.status, case['detail']) for answer, case in answers] == [(507, expected)] * 3
    kept = [path.name for path in (tmp_path / 'out').rglob('*') if path.is_file()]
    assert not [name for name in kept if name.endswith('.part') or name.startswith(('up', 'corrections'))]
    assert not [item for item in inspected(server) if item['decision']]
    assert server('POST', f'/api/images/{large["id"]}/decision', decision)[0].status == 200


def test_dicom_without_a_suffix_is_taken(server, tmp_path):
    content = dicom(spot(20, 30))
    for name in ('1.2.840.10008', 'IM0001', 'part.ima', 'script.html'):
        answer, result = server.send(name, content)
        assert answer.status == 200
        found = server('GET', f'/api/images/{result["id"]}')[1]
        assert (found['state'], found['part']) == ('found', '')  # the name of a file is no part
    for name, body in (('IM2', b'no radiograph'), ('1.2.3', (tmp_path / 'secret.png').read_bytes())):
        answer, result = server.send(name, body)
        assert (answer.status, result['detail'][:21]) == (415, 'expected a radiograph')
    for name in ('', '...'):
        answer, result = server.send(name, content)
        assert (answer.status, result['detail'][:21]) == (415, 'expected a radiograph')
    assert len(list((tmp_path / 'out' / 'uploads').iterdir())) == 4


def test_two_radiographs_of_one_name_do_not_share_boxes_and_pixels(server, tmp_path):
    first, second = spot(20, 30), spot(22, 34)
    for image, box in ((first, [16, 26, 24, 34]), (second, [18, 30, 26, 38])):
        _, result = send(server, 'part.png', image)
        body = dict(verdict='reject', boxes=[dict(box=box, label=0)])
        assert server('POST', f'/api/images/{result["id"]}/decision', body)[0].status == 200
    # The same file again is the same radiograph.
    assert send(server, 'part.png', first)[1]['id'] == 1
    coco = json.loads((tmp_path / 'out' / 'corrections.json').read_text())
    kept = {image['file_name']: image['id'] for image in coco['images']}
    assert len(kept) == 2
    for annotation in coco['annotations']:
        (name,) = [name for name, key in kept.items() if key == annotation['image_id']]
        pixels = cv2.imread(str(tmp_path / 'out' / 'images' / name), cv2.IMREAD_UNCHANGED)
        x, y, width, height = map(int, annotation['bbox'])
        assert pixels[y + height // 2, x + width // 2] == 255
    assert len(list((tmp_path / 'out' / 'images').iterdir())) == 2


def test_a_file_that_changed_since_it_was_inspected_is_not_kept(server, tmp_path):
    server('POST', '/v1/inspect/folder', dict(folder='day'))
    (item,) = [item for item in inspected(server) if item['name'] == 'day/1.png']
    cv2.imwrite(str(tmp_path / 'archive' / 'day' / '1.png'), spot(40, 30))
    body = dict(verdict='reject', boxes=[dict(box=[16, 26, 24, 34], label=0)])
    answer, content = server('POST', f'/api/images/{item["id"]}/decision', body)
    assert (answer.status, content['detail'][:16]) == (400, 'its file changed')
    assert not (tmp_path / 'out' / 'corrections.json').exists()
    assert not [path for path in (tmp_path / 'out' / 'images').rglob('*') if path.is_file()]


def test_a_part_is_not_accepted_with_a_critical_defect_as_its_truth(server, tmp_path):
    _, result = send(server, 'part.png', spot(20, 30))
    critical, minor = ([dict(box=[16, 26, 24, 34], label=label)] for label in (0, 1))
    place = f'/api/images/{result["id"]}/decision'
    answer, reason = server('POST', place, dict(verdict='accept', boxes=critical))
    assert answer.status == 400
    assert reason['detail'] == 'a critical defect is still marked: take its box away, or reject'
    assert not (tmp_path / 'out' / 'corrections.json').exists()
    assert server('POST', place, dict(verdict='accept', boxes=minor))[0].status == 200
    assert server('POST', place, dict(verdict='reject', boxes=critical, revision=1))[0].status == 200


@pytest.mark.parametrize('boxes', [[], [dict(box=[16, 26, 24, 34], label=1)]], ids=['none', 'minor'])
def test_a_part_is_not_rejected_without_saying_where(server, tmp_path, boxes):
    """Without a box, the next training would take it for a part without a defect."""
    _, result = send(server, 'part.png', spot(20, 30))
    answer, reason = server(
        'POST', f'/api/images/{result["id"]}/decision', dict(verdict='reject', boxes=boxes)
    )
    assert answer.status == 400
    assert reason['detail'].startswith('expected a box of critical around what rejects the part')
    assert not (tmp_path / 'out' / 'corrections.json').exists()
    assert server('GET', f'/api/images/{result["id"]}')[1]['decision'] is None


def test_the_last_decision_counts_whichever_item_of_the_list_it_is_of(server, tmp_path):
    image = tmp_path / 'archive' / 'day' / '1.png'
    server('POST', '/v1/inspect/folder', dict(folder='day'))
    inspected(server)
    copy = Path(image.parent, '9.png')
    first, second = (server.session.add('1.png', place) for place in (image, Path(shutil.copy(image, copy))))
    server.session.inspect_all([first, second])
    server.session.decide(second, 'accept', [])
    server.session.decide(first, 'reject', [dict(box=[16, 26, 24, 34], label=0)])
    content = json.loads((tmp_path / 'out' / 'corrections.json').read_text())
    assert [row['verdict'] for row in content['images']] == ['reject']
    assert len(content['annotations']) == 1


def test_corrections_in_other_classes_are_not_mixed(server, tmp_path, capsys):
    send(server, 'part.png', spot(20, 30))
    body = dict(verdict='reject', boxes=[dict(box=[16, 26, 24, 34], label=0)])
    assert server('POST', '/api/images/1/decision', body)[0].status == 200
    server.session.close()
    path, record = tmp_path / 'out' / 'corrections.json', tmp_path / 'out' / 'decisions.jsonl'
    kept = path.read_bytes()
    other = export_to(tmp_path / 'other', classes=['defect'], rejecting=['defect'])
    with pytest.raises(ArchiveError, match='critical.*minor.*defect.*give another --out'):
        Session(Inspector(other), tmp_path / 'out')
    assert inspect_page.main([str(other), '--out', str(tmp_path / 'out')]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith(f'error: {record}: holds corrections in the classes')
    assert errors.count('\n') == 1
    assert path.read_bytes() == kept
    errors = json.loads(kept)
    (image,), (box,) = errors['images'], errors['annotations']
    record.unlink()  # as a version without one left them
    for damaged in (
        '{"images": ',
        json.dumps(errors | dict(images=[image, image])),
        json.dumps(errors | dict(images=[image | dict(verdict='perhaps')])),
        json.dumps(errors | dict(annotations=[box | dict(category_id=3)])),
        json.dumps(errors | dict(annotations=[box | dict(image_id=2)])),
    ):
        path.write_text(damaged)
        with pytest.raises(ArchiveError, match='expected corrections of this page'):
            Session(server.session.inspector, tmp_path / 'out')


def test_names_that_are_no_text_or_too_long_are_served(server, tmp_path):
    day = tmp_path / 'archive' / 'day'
    odd = tmp_path / 'archive' / os.fsdecode(b'd\xfc')
    odd.mkdir()
    shutil.copy(day / '1.png', odd / os.fsdecode(b'pr\xfcf.png'))
    assert server('GET', '/api/folders')[1] == ['day', 'd?']
    assert server('POST', '/v1/inspect/folder', dict(folder='d?'))[1] == dict(added=1, outside=0)
    (item,) = inspected(server)
    assert (item['name'], item['state']) == ('d?/pr?f.png', 'found')
    # Another folder that reads the same on the page hides none of its radiographs.
    twin = tmp_path / 'archive' / os.fsdecode(b'd\xfe')
    twin.mkdir()
    shutil.copy(day / '2.png', twin / os.fsdecode(b'pr\xfcf.png'))
    assert server('GET', '/api/folders')[1] == ['day', 'd?']
    assert server('POST', '/v1/inspect/folder', dict(folder='d?'))[1] == dict(added=2, outside=0)
    assert [found['risk'] for found in inspected(server)] == [1, pytest.approx(200 / 255)]
    answer, content = send(server, 'p' * 300 + '.png', spot(20, 30))
    assert answer.status == 200
    body = dict(verdict='reject', boxes=[dict(box=[16, 26, 24, 34], label=0)])
    for key in (item['id'], content['id']):
        assert server('POST', f'/api/images/{key}/decision', body)[0].status == 200
    for row in json.loads((tmp_path / 'out' / 'corrections.json').read_text())['images']:
        assert (tmp_path / 'out' / 'images' / row['file_name']).is_file()


def test_what_the_runtime_sets_aside_is_on_the_page_too(server, tmp_path):
    """A torn copy is a part that somebody has to look at."""
    torn = tmp_path / 'archive' / 'torn'
    torn.mkdir()
    whole = dicom(spot(20, 30), 8)
    (torn / 'IM000002').write_bytes(b'')
    (torn / 'part.ima').write_bytes(whole)
    (torn / 'torn.IMA').write_bytes(whole[:40])
    (torn / 'gone.png').symlink_to(torn / 'nothing.png')
    (torn / 'away.png').symlink_to('/nowhere/nas/a.png')
    (torn / 'notes.txt').write_text('no radiograph')
    assert server('GET', '/api/folders')[1] == ['day', 'torn']
    assert server('POST', '/v1/inspect/folder', dict(folder='torn'))[1] == dict(added=4, outside=1)
    assert {item['name']: item['state'] for item in inspected(server)} == {
        'torn/IM000002': 'unreadable',
        'torn/gone.png': 'unreadable',
        'torn/part.ima': 'found',
        'torn/torn.IMA': 'unreadable',
    }


def test_a_folder_behind_a_link_that_leads_out_is_not_offered(server, tmp_path):
    outside = tmp_path / 'outside'
    outside.mkdir()
    cv2.imwrite(str(outside / 'a.png'), spot(20, 30))
    (tmp_path / 'archive' / 'link').symlink_to(outside)
    assert server('GET', '/api/folders')[1] == ['day']
    assert server('POST', '/v1/inspect/folder', dict(folder='link'))[0].status == 400


def test_whatever_goes_wrong_with_a_radiograph_is_said(tmp_path):
    def detector(image, extent):
        raise RuntimeError('the engine gave up')

    cv2.imwrite(str(tmp_path / 'a.png'), spot(20, 30))
    exported = folder.read(export_to(tmp_path / 'exported'))
    session = Session(Inspector.of(exported, detector), tmp_path / 'out')
    keys = [session.add('a.png', tmp_path / 'a.png'), session.add('none.png', tmp_path / 'none.png')]
    session.inspect_all(keys)
    assert [item.state for item in session.items.values()] == ['unreadable', 'unreadable']
    assert 'gave up' in session.items[1].reason
    assert 'none.png' in session.items[2].reason


@pytest.mark.parametrize(
    'body',
    [
        dict(verdict='maybe', boxes=[]),
        dict(verdict='accept', boxes=[], part='p' * 101),
        dict(verdict='accept', boxes=[dict(box=[1, 2, 3], label=0)]),
        dict(verdict='accept', boxes=[dict(box=[1, 2, 3, 400], label=0)]),
        dict(verdict='accept', boxes=[dict(box=[5, 2, 3, 4], label=0)]),
        dict(verdict='accept', boxes=[dict(box=[1, 2, 3, 4], label=7)]),
        dict(verdict='accept', boxes=[dict(box=['nan', 2, 3, 4], label=0)]),
        dict(verdict='accept', boxes=[dict(box=None, label=0)]),
        dict(verdict='accept', boxes=[dict(box=['1', 2, 3, 4], label=1)]),
        dict(verdict='accept', boxes=[dict(box=[True, 2, 3, 4], label=1)]),
        dict(verdict='accept', boxes=[dict(box=[1, 2, 3, 10**400], label=1)]),
        dict(verdict='accept', boxes=[dict(box=[1, 2, 3, 4], label='1')]),
        dict(verdict='accept', boxes=[dict(box=[1, 2, 3, 4], label=1)] * 1001),
        dict(verdict='withdraw', boxes=[]),
        dict(verdict='accept', boxes=[], viewed=dict(zoom=[1])),
    ],
    ids=[
        'verdict',
        'part',
        'three numbers',
        'outside',
        'turned',
        'label',
        'nan',
        'no box',
        'text for a number',
        'truth for a number',
        'huge',
        'text for a label',
        'many',
        'nothing to withdraw',
        'how it was viewed',
    ],
)
def test_a_decision_that_cannot_be_is_refused(server, tmp_path, body):
    send(server, 'part.png', spot(20, 30))
    answer, content = server('POST', '/api/images/1/decision', body)
    assert (answer.status, list(content)) == (400, ['detail'])
    assert not (tmp_path / 'out' / 'corrections.json').exists()


def test_what_does_not_come_from_the_page_is_refused(server):
    other = {'x-inspect': 'no'}
    assert server('POST', '/api/images/1/decision', dict(verdict='accept'), **other)[0].status == 403
    # A form of another site sends no JSON without asking first.
    other |= {'content-type': 'text/plain'}
    assert server('POST', '/v1/inspect/folder', dict(folder='day'), **other)[0].status == 403
    assert server('GET', '/api/state', host='evil.example')[0].status == 400
    answer, _ = server('GET', '/')
    assert "default-src 'self'" in answer.headers['content-security-policy']
    assert not [item for item in server('GET', '/api/state')[1]['items']]


def test_it_answers_to_the_names_that_it_was_given(server):
    for name in ('localhost:8000', 'line-pc.plant', 'LINE-PC.plant:8000', '[fd00::7]:80'):
        with serving(build(server.session, ('localhost', 'Line-PC.plant', '[fd00::7]'))) as address:
            connection = http.client.HTTPConnection(*address, timeout=60)
            connection.request('GET', '/api/state', headers=dict(host=name))
            assert connection.getresponse().status == 200
            connection.close()


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (['--host', '0.0.0.0'], 'serves every address of this machine.*add --name NAME'),
        (['--host', '::'], 'add --name NAME'),
        (['--name', 'http://line-pc:8000'], '--name http://line-pc:8000: expected a name or address alone'),
        (['--name', '*'], 'expected a name or address alone'),
        (['--name', 'cafe:8000'], 'expected a name or address alone'),
        (['--name', '[line-pc]'], 'expected a name or address alone'),
        (['--port', '65536'], 'expected 0 to 65535'),
    ],
)
def test_an_address_that_cannot_be_called_is_refused(options, expected, capsys):
    with pytest.raises(SystemExit) as stop:
        inspect_page.main(['exported', *options])
    assert stop.value.code == 2
    assert re.search(expected, capsys.readouterr().err)


def test_addresses_of_ipv6_are_names_too():
    """As browsers send them: short, in small letters and in brackets."""
    login = ['--user-header', 'x-user', '--proxy', '10.0.0.1']
    options = [*login, '--host', '::', '--name', 'FD00::0007', '--name', '[fd00:0::8]', '--name', 'line-pc']
    assert inspect_page.parse_args(['exported', *options]).name == ['[fd00::7]', '[fd00::8]', 'line-pc']


def test_uploads_of_the_wrong_kind_size_or_place_are_refused(server, tmp_path, monkeypatch):
    assert send(server, 'script.html', spot(1, 1))[0].status == 415
    answer, body = server.send('a.png', b'no radiograph')
    assert answer.status == 415
    assert 'a.png: expected PNG' in body['detail']
    send(server, '..%2F..%2Fup.png', spot(20, 30))
    monkeypatch.setattr('projects.line.page.guard.MAX_FRAME_BYTES', 1000)
    assert server.send('large.png', bytes(2000))[0].status == 413
    (kept,) = (tmp_path / 'out' / 'uploads').iterdir()
    assert re.fullmatch(r'up-[0-9a-f]{12}\.png', kept.name)


@pytest.mark.parametrize('folder', ['..', '/etc', 'day/..', 'none', ''])
def test_folders_outside_the_archive_are_refused(server, folder):
    assert server('POST', '/v1/inspect/folder', dict(folder=folder))[0].status == 400


def test_an_unreadable_file_and_an_unknown_item_are_said(server, tmp_path):
    (tmp_path / 'archive' / 'day' / 'torn.tif').write_bytes(b'II*\0')
    server('POST', '/v1/inspect/folder', dict(folder='day'))
    (torn,) = [item for item in inspected(server) if item['state'] == 'unreadable']
    assert torn['reason'].startswith('day/torn.tif: expected')
    assert server('GET', f'/api/images/{torn["id"]}/pixels')[0].status == 415
    assert server('GET', '/api/images/99')[0].status == 404
    body = dict(verdict='accept', boxes=[dict(box=[1, 2, 3, 4], label=1)])
    assert server('POST', f'/api/images/{torn["id"]}/decision', body)[0].status == 400


def test_pixels_keep_their_values_up_to_16_bits():
    image = np.array([[-5, 0], [7, 32767]], np.int16)
    values, low, high = as_16_bit(image)
    assert (low, high) == (-32768, 32767)
    assert np.array_equal(values.astype(int) + int(low), image)
    values, low, high = as_16_bit(np.array([[0.5, np.nan], [1.0, 1.5]], np.float32))
    assert (values.tolist(), low, high) == ([[0, 0], [32768, 65535]], 0.5, 1.5)
    assert as_16_bit(np.full((2, 2), 3.0))[0].tolist() == [[0, 0], [0, 0]]


def test_wrong_use_of_the_page_is_one_line(tmp_path, capsys):
    assert inspect_page.main([str(tmp_path)]) == 1
    assert f'{tmp_path}/metadata.json: ' in capsys.readouterr().err
    export_to(tmp_path / 'exported')
    assert inspect_page.main([str(tmp_path / 'exported'), '--images', str(tmp_path / 'none')]) == 2
    assert 'correct --images' in capsys.readouterr().err
    (tmp_path / 'archive').mkdir()
    inside = ['--images', str(tmp_path / 'archive'), '--out', str(tmp_path / 'archive' / 'out')]
    assert inspect_page.main([str(tmp_path / 'exported'), *inside]) == 2
    assert 'lies inside' in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        inspect_page.main(['x', '--port', '70000'])
    assert stop.value.code == 2
