"""Data behind URLs: S3 and HTTP servers on localhost, one of which drops connections."""

import functools
import json
import select
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path

import cv2
import fsspec
import numpy as np
import pytest
from helpers.radiograph_files import dicom
from mmengine import fileio

from projects.radiograph import listing, remote
from projects.xray.datasets import DatasetError, XrayDefects, XrayImages
from projects.xray.transforms import LoadXray

CLASSES = ('crack', 'gas_pore')


class Handler(SimpleHTTPRequestHandler):
    """Serves files and counts requests; refuses `/forbidden`; drops as many connections as `drops` says."""

    drops = 0
    requests = 0

    def do_GET(self):
        cls = type(self)
        cls.requests += 1
        if self.path == '/forbidden':
            self.send_error(403)
        elif self.path == '/silent':
            select.select([self.connection], [], [], 30)  # until the other side has had enough
            self.close_connection = True
        elif cls.drops > 0:
            cls.drops -= 1
            # Half of the promised body, and every other time not even a header.
            if cls.drops % 2:
                self.send_response(200)
                self.send_header('Content-Length', '1000000')
                self.end_headers()
                self.wfile.write(b'x' * 500)
            self.close_connection = True
        else:
            super().do_GET()

    def log_message(self, *args):
        """Keep the output of the tests clean."""


@pytest.fixture
def http(tmp_path, monkeypatch):
    """Serve `tmp_path`; returns (URL, handler class)."""
    monkeypatch.setattr(remote, 'BACKOFF_S', 0.01)
    handler = type('CountingHandler', (Handler,), {})
    server = ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(handler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}', handler
    server.shutdown()
    server.server_close()


def detections(root):
    return XrayDefects(
        ann_file='train.json',
        data_root=root,
        data_prefix=dict(img='images'),
        metainfo=dict(classes=CLASSES),
        filter_cfg=dict(filter_empty_gt=False),
        pipeline=[dict(type='LoadXray')],
    )


def unlabelled(root, **kwargs):
    return XrayImages(data_root=root, pipeline=[dict(type='LoadXray')], **kwargs)


def load(path):
    return LoadXray().transform(dict(img_path=path))['img']


def assert_same_items(remote_set, local_set):
    assert len(remote_set) == len(local_set) > 0
    for one, other in zip(remote_set, local_set):
        np.testing.assert_array_equal(one['img'], other['img'])
        assert one.get('instances') == other.get('instances')


def test_s3_root_gives_the_items_of_the_local_one(s3, tiny_coco):
    root = tiny_coco(n=3, bits=16, empty=1, unlabeled=2, name='s3')
    s3.mkdir('plant')
    s3.put(str(root), 'plant/castings', recursive=True)
    assert_same_items(detections('s3://plant/castings'), detections(str(root)))
    assert_same_items(unlabelled('s3://plant/castings'), unlabelled(str(root)))


def test_other_drivers_of_fsspec_serve_as_well(tiny_coco):
    root = tiny_coco(n=2, unlabeled=2)
    fsspec.filesystem('memory').put(str(root), '/plant', recursive=True)
    assert_same_items(detections('memory://plant'), detections(str(root)))
    assert_same_items(unlabelled('memory://plant'), unlabelled(str(root)))


def test_s3_is_read_after_a_fork(s3):
    s3.mkdir('forked')
    s3.pipe('forked/a', b'1')
    assert remote.read_bytes('s3://forked/a') == b'1'
    with get_context('fork').Pool(1) as pool:
        assert pool.map_async(remote.read_bytes, ['s3://forked/a']).get(60) == [b'1']


def test_a_cut_connection_to_s3_is_tried_again(s3, cable, monkeypatch):
    monkeypatch.setattr(remote, 'BACKOFF_S', 0.01)
    s3.mkdir('cut')
    s3.pipe('cut/a.png', b'x' * 100)
    # A file system of its own: none has a connection open that would not be cut.
    monkeypatch.setattr(remote, 'READ_S', 29)
    cable.cuts = 2
    assert remote.read_bytes('s3://cut/a.png') == b'x' * 100
    assert cable.cuts == 0


def test_s3_names_what_is_missing(s3, tiny_coco):
    root = tiny_coco(n=2, name='holes')
    s3.mkdir('holes')
    s3.put(str(root), 'holes', recursive=True)
    s3.rm('holes/holes/images/train_001.png')
    with pytest.raises(
        DatasetError, match=r'1 of 2 images are not in s3://holes/holes/images .*train_001.png'
    ):
        detections('s3://holes/holes')
    with pytest.raises(remote.RemoteError, match=r'^s3://holes/none.png: expected an object.*upload it'):
        remote.read_bytes('s3://holes/none.png')
    with pytest.raises(DatasetError, match='s3://holes/absent/train.json: expected an object'):
        detections('s3://holes/absent')
    with pytest.raises(DatasetError, match='no such folder, or an empty one'):
        unlabelled('s3://holes/absent')


def test_http_root_gives_the_items_of_the_local_one(http, tiny_coco):
    url, _ = http
    root = tiny_coco(n=2, unlabeled=2)
    assert_same_items(detections(f'{url}/data'), detections(str(root)))
    assert_same_items(unlabelled(f'{url}/data'), unlabelled(str(root)))
    (root / 'list.txt').write_text('00/001.png\n')
    assert_same_items(
        unlabelled(f'{url}/data', ann_file='list.txt'), unlabelled(str(root), ann_file='list.txt')
    )


NAMES = ['a#1.png', 'b?c=2.png', '100%.png', 'd%41.png', 'e f.png', 'grün/ß&+;=.png']


def test_http_reads_files_whose_names_a_url_would_read_otherwise(http, tmp_path):
    url, _ = http
    folder = tmp_path / 'data/images'
    for k, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), np.full((20, 30), k, np.uint8))
    (tmp_path / 'data/list.txt').write_text('\n'.join(NAMES))
    images = [dict(id=k, file_name=name, width=30, height=20) for k, name in enumerate(NAMES)]
    box = dict(image_id=0, category_id=1, bbox=[1, 1, 5, 5], area=25, iscrowd=0)
    categories = [dict(id=k, name=name) for k, name in enumerate(CLASSES)]
    boxes = [dict(box, id=k, category_id=k) for k in range(2)]
    coco = dict(images=images, annotations=boxes, categories=categories)
    (tmp_path / 'data/train.json').write_text(json.dumps(coco))
    assert [item['img'][0, 0] for item in detections(f'{url}/data')] == list(range(len(NAMES)))
    listed = unlabelled(f'{url}/data', data_prefix='images', ann_file='list.txt')
    assert [item['img'][0, 0] for item in listed] == list(range(len(NAMES)))
    found = unlabelled(f'{url}/data', data_prefix='images')
    assert [item['img'][0, 0] for item in found] == [NAMES.index(name) for name in sorted(NAMES)]
    root = f'{url}/data/images'
    assert remote.list_files(root) == sorted(NAMES)
    assert [remote.name_in(root, remote.join(root, name)) for name in NAMES] == NAMES


def test_dicom_without_a_suffix_is_listed(http, s3, tmp_path):
    url, _ = http
    s3.mkdir('archive')
    contents = dict(IM0001=dicom(np.ones((9, 9), np.uint16)), README=b'text' * 99, short=b'', b=b'DICM')
    contents['1.2.840.5'] = contents['DICOMDIR'] = contents['IM0001']
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        s3.pipe(f'archive/{name}', content)
    for folder in (url, 's3://archive'):
        assert remote.list_radiographs(folder) == (['1.2.840.5', 'IM0001'], {'no suffix': 4})
    assert listing.list_radiographs(tmp_path) == (['1.2.840.5', 'IM0001'], {'no suffix': 4})


def test_a_server_that_says_nothing_is_given_up(http, s3, cable, monkeypatch):
    url, _ = http
    monkeypatch.setattr(remote, 'READ_S', 0.2)
    monkeypatch.setattr(remote, 'ATTEMPTS', 2)
    with pytest.raises(remote.RemoteError, match='/silent: expected an answer within 2 tries'):
        remote.read_bytes(f'{url}/silent')
    assert remote._options('s3://a')['config_kwargs']['read_timeout'] == 0.2
    # What the environment says counts more.
    monkeypatch.setitem(fsspec.config.conf, 's3', dict(config_kwargs=dict(read_timeout=7)))
    settings = remote._options('s3://a')['config_kwargs']
    assert (settings['connect_timeout'], settings['read_timeout']) == (10, 7)


def test_http_names_a_missing_image_when_it_is_read(http, tiny_coco):
    url, _ = http
    root = tiny_coco(n=2)
    (root / 'images/train_001.png').unlink()
    dataset = detections(f'{url}/data')
    assert dataset[0]['img'].shape == (96, 96)
    with pytest.raises(remote.RemoteError, match=r'images/train_001.png: expected an object'):
        dataset[1]


def test_dropped_connections_are_tried_again(http, tiny_coco):
    url, handler = http
    root = tiny_coco(n=1)
    handler.drops = remote.ATTEMPTS - 1
    np.testing.assert_array_equal(
        load(f'{url}/data/images/train_000.png'), load(str(root / 'images/train_000.png'))
    )
    assert handler.drops == 0


def test_back_off_doubles_and_ends_in_one_line(http, monkeypatch):
    url, handler = http
    waits = []
    monkeypatch.setattr(remote.time, 'sleep', waits.append)
    handler.drops = 10**6
    with pytest.raises(remote.RemoteError) as error:
        remote.read_bytes(f'{url}/x.png')
    for wait, longest in zip(waits, [0.01, 0.02, 0.04, 0.08], strict=True):
        assert longest / 2 <= wait <= longest
    assert str(error.value).startswith(f'{url}/x.png: expected an answer within 5 tries')
    assert '\n' not in str(error.value)


def test_refusals_are_not_tried_again(http):
    url, handler = http
    with pytest.raises(remote.RemoteError, match='check the URL and the credentials'):
        remote.read_bytes(f'{url}/forbidden')
    assert handler.requests == 1


@pytest.mark.parametrize('url', ['gs://bucket/key.png', 'nonsense://bucket/key.png'])
def test_a_missing_driver_is_named(url):
    with pytest.raises(remote.RemoteError, match=f'^{url}: expected .*{url.partition(":")[0]}'):
        remote.read_bytes(url)


def test_damaged_content_names_its_url(http, tmp_path):
    url, _ = http
    (tmp_path / 'bad.png').write_bytes(b'\x89PNG\r\n\x1a\n' + b'0' * 50)
    with pytest.raises(ValueError, match=f'^{url}/bad.png: expected'):
        load(f'{url}/bad.png')


def test_mmengine_reads_urls_through_this_backend(http, tmp_path):
    url, handler = http
    (tmp_path / 'a b.txt').write_text('gräu')
    handler.drops = 1
    assert fileio.get_text(f'{url}/a b.txt') == 'gräu'
    assert fileio.exists(f'{url}/a b.txt') and not fileio.exists(f'{url}/c.txt')
    assert fileio.join_path(f'{url}/', 'x', 'y/') == f'{url}/x/y'
    with fileio.get_local_path(f'{url}/a b.txt') as copy:
        assert Path(copy).read_text(encoding='utf-8') == 'gräu'


def test_s3_without_credentials_ends_at_once_and_says_so(s3, monkeypatch, tmp_path):
    asked = []
    driver = type(s3)
    for name in ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_PROFILE'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('AWS_EC2_METADATA_DISABLED', 'true')
    for name in ('AWS_SHARED_CREDENTIALS_FILE', 'AWS_CONFIG_FILE'):
        monkeypatch.setenv(name, str(tmp_path / 'none'))
    monkeypatch.setattr(remote.time, 'sleep', asked.append)
    driver.clear_instance_cache()
    with pytest.raises(remote.RemoteError) as caught:
        remote.read_bytes('s3://castings/a.png')
    driver.clear_instance_cache()
    assert str(caught.value) == (
        's3://castings/a.png: expected credentials for S3, found none or half of them; set AWS_ACCESS_KEY_ID '
        'and AWS_SECRET_ACCESS_KEY, or FSSPEC_S3_ANON=true for a public bucket'
    )
    assert asked == []


class Busy(SimpleHTTPRequestHandler):
    """Answers every request with 503, and counts them."""

    requests = 0

    def do_GET(self):
        type(self).requests += 1
        self.send_error(503)

    do_HEAD = do_PUT = do_POST = do_GET

    def log_message(self, *args):
        """Keep the output of the tests clean."""


@pytest.mark.parametrize('protocol', ['s3', 'http'])
def test_a_busy_server_gets_few_requests_apart(s3, monkeypatch, protocol):
    handler, waits = type('CountingBusy', (Busy,), {}), []
    server = ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(remote.time, 'sleep', waits.append)
    address = f'http://127.0.0.1:{server.server_port}'
    monkeypatch.setenv('AWS_ENDPOINT_URL', address)
    type(s3).clear_instance_cache()
    url = {'s3': 's3://castings/a.png', 'http': f'{address}/a.png'}[protocol]
    try:
        with pytest.raises(remote.RemoteError, match='within 5 tries'):
            remote.read_bytes(url)
    finally:
        server.shutdown()
        server.server_close()
        type(s3).clear_instance_cache()
    assert handler.requests == remote.ATTEMPTS
    assert len(waits) == remote.ATTEMPTS - 1
    for number, wait in enumerate(waits):
        assert remote.BACKOFF_S * 2**number / 2 <= wait <= remote.BACKOFF_S * 2**number
    assert len({wait / 2**number for number, wait in enumerate(waits)}) > 1


def test_colons_in_a_key_are_part_of_it(s3):
    s3.mkdir('colons')
    s3.pipe_file('colons/lot 1::7/a::b.png', b'pixels')
    assert remote.read_bytes('s3://colons/lot 1::7/a::b.png') == b'pixels'
    assert remote.list_files('s3://colons/lot 1::7') == ['a::b.png']
    assert remote.exists('s3://colons/lot 1::7/a::b.png')
