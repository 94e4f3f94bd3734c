"""A store behind a URL: packed to, killed, read in blocks kept in a folder, changed under a reader."""

import json
import multiprocessing
import os
import pickle
import re
import shutil
import subprocess
import sys
import textwrap
import time
import urllib.request

import numpy as np
import pytest
import torch
from helpers.packed import contents, draw
from helpers.resuming import leaves, settings, train
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, HOOKS

from projects.radiograph import blocks, claim, remote
from projects.radiograph import pack as radiograph_pack
from projects.radiograph import store as radiograph_store
from projects.radiograph.image import ImagingError
from projects.radiograph.pack import pack, verify
from projects.radiograph.pack_remote import pack_to_url
from projects.radiograph.recipe import Recipe, StoreError
from projects.radiograph.store import find_store, locate, open_store
from projects.runs import running
from projects.xray.datasets import DatasetError, XrayImages
from projects.xray.image_files import check_files
from projects.xray.samplers import XrayBlockSampler, block_order
from projects.xray.transforms import LoadXray
from tools import list_images, pack_images

SHARD_BYTES = 3 * 64 * 80 - 1
COUNT = 14  # radiographs in 5 shards


@pytest.fixture
def source(tmp_path):
    for i in range(COUNT):
        draw(tmp_path / 'source' / f'part{i // 3}' / f'{i:02d}.png', seed=i)
    return tmp_path / 'source'


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    """Shards of three images, blocks that cut images, a cache of the test's own."""
    monkeypatch.setattr(radiograph_pack, 'SHARD_BYTES', SHARD_BYTES)
    monkeypatch.setattr(blocks, 'BLOCK', 7000)
    monkeypatch.setattr(radiograph_store, 'BLOCK', 7000)
    monkeypatch.setattr(remote, 'BACKOFF_S', 0.01)
    monkeypatch.setattr(claim, 'RENEWED_S', 0.1)
    monkeypatch.setenv('MMXRAY_CACHE', str(tmp_path / 'cache'))
    radiograph_store.open_store.cache_clear()
    radiograph_store._REMOTE.clear()
    yield
    radiograph_store.open_store.cache_clear()
    radiograph_store._REMOTE.clear()


@pytest.fixture
def bucket(s3, request):
    """The URL of a bucket without objects."""
    name = f'b{abs(hash(request.node.name)):x}'
    s3.mkdir(name)
    return f's3://{name}'


def objects(url):
    """All objects of a store but what packing keeps beside it."""
    return {name: remote.read_bytes(remote.join(url, name)) for name in remote.list_files(url)}


# ------------------------------------------------------------------------------------------------- packing


def test_a_store_behind_a_url_is_the_local_one_byte_for_byte(source, tmp_path, bucket):
    pack(source, tmp_path / 'local', Recipe(64))
    store, left_out = pack_to_url(source, f'{bucket}/packed', Recipe(64))
    assert objects(f'{bucket}/packed') == contents(tmp_path / 'local')
    assert (len(store), left_out) == (COUNT, {})
    local = open_store(tmp_path / 'local')
    for i in range(COUNT):
        assert np.array_equal(store.read(i), local.read(i))
        assert store.name(i) == local.name(i)
    assert verify(store, source) == []
    before = objects(f'{bucket}/packed')
    pack_to_url(source, f'{bucket}/packed', Recipe(64))
    assert objects(f'{bucket}/packed') == before
    assert not list((tmp_path / 'cache' / 'packing').glob('*/store'))


def test_sources_behind_a_url_give_the_same_pixels(s3, source, tmp_path, bucket):
    s3.put(str(source), f'{bucket}/raw', recursive=True)
    raw = f'{bucket}/raw'
    from_url, _ = pack_to_url(raw, f'{bucket}/packed', Recipe(64), workers=2)
    local, _ = pack(source, tmp_path / 'local', Recipe(64))
    assert [from_url.name(i) for i in range(COUNT)] == [local.name(i) for i in range(COUNT)]
    assert all(np.array_equal(from_url.read(i), local.read(i)) for i in range(COUNT))
    assert verify(from_url, raw) == []
    # A listing that grows, an object that changes.
    remote.write_bytes(f'{raw}/part0/005.png', (source / 'part0/00.png').read_bytes())
    with pytest.raises(StoreError, match=r's3:.*part0/005.png came too late for its place'):
        pack_to_url(raw, f'{bucket}/packed', Recipe(64))
    remote.remove(f'{raw}/part0/005.png')
    remote.write_bytes(f'{raw}/part0/00.png', (source / 'part0/01.png').read_bytes())
    with pytest.raises(StoreError, match=r'part0/00.png: differs from the file that was packed'):
        pack_to_url(raw, f'{bucket}/packed', Recipe(64))


def kill_packing(source, url, repo, after):
    """Pack in a process of its own that SIGKILL ends once so many images have been decoded."""
    script = f"""
        import os, signal
        from projects.radiograph import claim, pack as packing
        from projects.radiograph.pack_remote import pack_to_url
        packing.SHARD_BYTES, claim.RENEWED_S = {SHARD_BYTES}, 0.1
        def progress(results, total):
            for i, result in enumerate(results):
                if i == {after}:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield result
        pack_to_url({str(source)!r}, {url!r}, packing.Recipe(64), progress=progress)
    """
    run = subprocess.run([sys.executable, '-c', textwrap.dedent(script)], cwd=repo, timeout=120)
    assert run.returncode in (-9, 0)


@pytest.mark.parametrize(
    'kills', [pytest.param(2, id='twice'), pytest.param(20, id='twenty times', marks=pytest.mark.long)]
)
def test_kills_in_the_middle_of_packing_lose_nothing(source, tmp_path, bucket, repo, kills):
    """Every other time the local folder is lost too, as it is when another machine goes on."""
    pack(source, tmp_path / 'local', Recipe(64))
    rng = np.random.default_rng(kills)
    url = f'{bucket}/packed'
    for kill in range(kills):
        kill_packing(source, url, repo, 7 if kill == 0 else int(rng.integers(1, 5)))
        if kill == 0:
            with pytest.raises(StoreError, match='packing was interrupted'):
                open_store(url)
        if kill % 2:
            shutil.rmtree(tmp_path / 'cache')
    pack_to_url(source, url, Recipe(64))
    assert objects(url) == contents(tmp_path / 'local')


def test_another_machine_goes_on_from_the_uploaded_shards(source, tmp_path, bucket, repo):
    url = f'{bucket}/packed'
    kill_packing(source, url, repo, 8)
    shutil.rmtree(tmp_path / 'cache')
    counts = []
    pack_to_url(source, url, Recipe(64), progress=lambda r, total: counts.append(total) or r)
    assert counts == [COUNT - 6]  # two shards of three


def test_two_machines_do_not_pack_into_one_url(source, tmp_path, bucket):
    """The second is refused while the first is at work, also for a long time with one image or shard."""
    pack(source, tmp_path / 'local', Recipe(64))
    url, outcome = f'{bucket}/packed', []

    def slow(results, total):
        for number, result in enumerate(results):
            if number == 4:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setenv('MMXRAY_CACHE', str(tmp_path / 'other'))
                    with pytest.raises(
                        StoreError, match='is packing into it too, expected one machine'
                    ) as caught:
                        pack_to_url(source, url, Recipe(64))
                    outcome.append(str(caught.value))
            yield result

    pack_to_url(source, url, Recipe(64), progress=slow)
    assert len(outcome) == 1 and '\n' not in outcome[0]
    assert objects(url) == contents(tmp_path / 'local')


def test_a_machine_whose_place_was_taken_ends_in_one_line(source, tmp_path, bucket, monkeypatch):
    url = f'{bucket}/packed'
    monkeypatch.setattr(claim, 'RENEWED_S', 60)  # when the next shard is closed it is seen

    def taken(results, total):
        for number, result in enumerate(results):
            if number == 4:
                remote.write_bytes(f'{url}/writer.json', json.dumps(dict(name='x', host='line-2')).encode())
            yield result

    with pytest.raises(StoreError, match='line-2 is packing into it too'):
        pack_to_url(source, url, Recipe(64), progress=taken)
    assert json.loads(remote.read_bytes(f'{url}/writer.json'))['name'] == 'x'  # not ours to remove
    pack(source, tmp_path / 'local', Recipe(64))
    monkeypatch.setattr(claim, 'RENEWED_S', 0.1)
    pack_to_url(source, url, Recipe(64))  # nobody changes the claim any more
    assert objects(url) == contents(tmp_path / 'local')


def test_a_place_that_was_taken_is_seen_between_two_images(source, bucket):
    url, passed = f'{bucket}/packed', []

    def taken(results, total):
        for number, result in enumerate(results):
            if number == 0:
                while json.loads(remote.read_bytes(f'{url}/writer.json'))['name'] != 'x':
                    remote.write_bytes(f'{url}/writer.json', json.dumps(dict(name='x', host='b')).encode())
                    time.sleep(0.5)
            passed.append(number)
            yield result

    with pytest.raises(StoreError, match='b is packing into it too'):
        pack_to_url(source, url, Recipe(64), progress=taken)
    assert passed == [0]  # before a shard was full


@pytest.mark.slow
def test_a_storm_of_503_loses_nothing(source, tmp_path, bucket, cable):
    pack(source, tmp_path / 'local', Recipe(64))

    def storms(results, total):
        for result in results:
            cable.busy = 3
            yield result

    store, _ = pack_to_url(source, f'{bucket}/packed', Recipe(64), progress=storms)
    cable.busy = 0
    assert objects(f'{bucket}/packed') == contents(tmp_path / 'local')
    local = open_store(tmp_path / 'local')
    for number in range(COUNT):
        cable.busy = 4
        assert np.array_equal(store.read(number), local.read(number))
    shutil.rmtree(os.environ['MMXRAY_CACHE'])
    cable.busy = 10**6
    try:
        with pytest.raises(remote.RemoteError, match='within 5 tries .*; check the network') as caught:
            store.read(0)
    finally:
        cable.busy = 0
    assert '\n' not in str(caught.value)
    assert np.array_equal(store.read(0), local.read(0))


def test_a_listing_that_grows_while_it_is_packed(source, tmp_path, bucket, repo):
    """What comes behind the last one packed is taken by the next run; what comes before it is named."""
    raw, url = f'{bucket}/raw', f'{bucket}/packed'
    for path in sorted(source.rglob('*.png')):
        remote.upload(path, f'{raw}/{path.relative_to(source)}')

    def late(results, total):
        for number, result in enumerate(results):
            if number == 2:
                remote.upload(source / 'part0' / '00.png', f'{raw}/part9/99.png')
            yield result

    store, _ = pack_to_url(raw, url, Recipe(64), progress=late)
    assert len(store) == COUNT  # as it was listed
    with pytest.raises(StoreError, match='part9/99.png came too late for its place'):
        pack_to_url(raw, url, Recipe(64))
    for name in remote.list_files(url):
        remote.remove(f'{url}/{name}')
    kill_packing(raw, url, repo, 5)
    remote.upload(source / 'part0' / '00.png', f'{raw}/part8/98.png')
    store, _ = pack_to_url(raw, url, Recipe(64))
    assert len(store) == COUNT + 2 and store.find('part8/98.png') is not None


def test_credentials_that_end_while_a_training_reads(source, tmp_path, bucket, cable):
    """The server refuses from then on, in one line; with new ones the reader goes on."""
    store, _ = pack_to_url(source, f'{bucket}/packed', Recipe(64))
    expected = [store.read(number) for number in range(COUNT)]
    shutil.rmtree(os.environ['MMXRAY_CACHE'])
    authenticate(cable, '0')
    try:
        with pytest.raises(
            remote.RemoteError, match='expected a readable object .*; check the URL and the cred'
        ) as caught:
            store.read(0)
    finally:
        authenticate(cable, 'inf')
    assert '\n' not in str(caught.value)
    for number in range(COUNT):
        assert np.array_equal(store.read(number), expected[number])


def authenticate(cable, after):
    """Have the S3 server look at credentials after so many requests; it knows none."""
    address = 'http://{}:{}/moto-api/reset-auth'.format(*cable.target)
    kind = {'Content-Type': 'text/plain'}
    urllib.request.urlopen(urllib.request.Request(address, after.encode(), kind), timeout=30).close()


def test_a_part_id_of_two_plants_is_told_of(source, bucket, capsys):
    for plant in ('plant-a', 'plant-b'):
        for name in ('P1_left.png', f'P{2 + len(plant) + (plant == "plant-b")}_left.png'):
            remote.upload(source / 'part0' / '00.png', f'{bucket}/raw/{plant}/{name}')
    arguments = [f'{bucket}/raw', f'{bucket}/packed', '--size', '64', '--workers', '1', '--group', 'P[0-9]+']
    assert pack_images.main(arguments) == 0
    note = (
        'note: 1 of 3 parts have images in several folders, such as P1 in plant-a and plant-b: one id is one '
        "part; if plants or lines use the same numbers, include the folder in --group: '([^/]+/.*P[0-9]+)'"
    )
    assert note in capsys.readouterr().out.splitlines()
    assert list_images.main([f'{bucket}/raw', '--group', 'P[0-9]+']) == 0
    assert note in capsys.readouterr().out.splitlines()
    assert list_images.main([f'{bucket}/raw', '--group', '([^/]+/.*P[0-9]+)']) == 0
    assert 'note' not in capsys.readouterr().out


def test_a_folder_with_other_objects_and_other_arguments_are_refused(source, bucket):
    remote.write_bytes(f'{bucket}/taken/report.txt', b'mine')
    with pytest.raises(StoreError, match='taken: .* found report.txt; give another OUT'):
        pack_to_url(source, f'{bucket}/taken', Recipe(64))
    pack_to_url(source, f'{bucket}/packed', Recipe(64))
    with pytest.raises(StoreError, match="begun with recipe .*'size': 64.* now .*'size': 32"):
        pack_to_url(source, f'{bucket}/packed', Recipe(32))
    with pytest.raises(StoreError, match='http://server/x: expected a URL to write to.*another OUT'):
        pack_to_url(source, 'http://server/x', Recipe(64))


def test_who_may_not_write_learns_it_before_the_work(source, bucket, monkeypatch):
    decoded = []
    monkeypatch.setattr(radiograph_pack, '_decode', lambda *args: decoded.append(args))
    with pytest.raises(remote.RemoteError, match='s3://no-such-bucket-1/packed: expected'):
        pack_to_url(source, 's3://no-such-bucket-1/packed', Recipe(64))

    def denied(*args):
        raise PermissionError('Access Denied')

    monkeypatch.setattr(remote, '_ready', denied)
    with pytest.raises(remote.RemoteError, match=r'json: expected a writable object \(Access Denied\)'):
        pack_to_url(source, f'{bucket}/packed', Recipe(64))
    assert decoded == []


def test_the_tool_packs_to_a_url_and_verifies(source, bucket, capsys):
    arguments = [str(source), f'{bucket}/packed', '--size', '64', '--workers', '1']
    assert pack_images.main(arguments) == 0
    assert f'{bucket}/packed: {COUNT} images' in capsys.readouterr().out
    assert pack_images.main([*arguments, '--verify']) == 0
    assert f'{COUNT} images, 0 faults; source files compared' in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------- reading


def test_a_data_set_reads_the_store_in_place_of_a_folder(source, tmp_path, bucket):
    pack(source, tmp_path / 'local', Recipe(64))
    pack_to_url(source, f'{bucket}/packed', Recipe(64))

    def dataset(root):
        return XrayImages(
            data_root=root, data_prefix='packed/part1', pipeline=[dict(type='LoadXray', size=64)]
        )

    (tmp_path / 'local').rename(tmp_path / 'packed')
    ours, local = dataset(bucket), dataset(str(tmp_path))
    assert len(ours) == len(local) == 3
    for one, other in zip(ours, local):
        assert np.array_equal(one['img'], other['img'])
    check_files(['00.png', '02.png'], f'{bucket}/packed/part0', 'list.txt')
    with pytest.raises(DatasetError, match='1 of 2 images are not in .*gone.png'):
        check_files(['00.png', 'gone.png'], f'{bucket}/packed/part0', 'list.txt')
    assert find_store(f'{bucket}/elsewhere') is None
    message = pickle.dumps(open_store(f'{bucket}/packed'))
    assert len(message) < 1000
    assert np.array_equal(pickle.loads(message).read(3), local[0]['img'])


def counted(monkeypatch):
    """Names of the objects that ranges are asked of from here on."""
    asked, read_range = [], blocks.read_range
    monkeypatch.setattr(
        blocks, 'read_range', lambda url, *place: asked.append((url, *place)) or read_range(url, *place)
    )
    return asked


def test_each_block_is_fetched_once_and_kept_within_the_limit(source, tmp_path, bucket, monkeypatch):
    store, _ = pack_to_url(source, f'{bucket}/packed', Recipe(64))
    asked = counted(monkeypatch)
    for _ in range(3):
        for i in np.random.default_rng(0).permutation(COUNT):
            store.read(int(i))
    size = sum(n for name, n in remote.sizes(f'{bucket}/packed').items() if name.startswith('shard'))
    assert len(asked) == len(set(asked)) <= size / blocks.BLOCK + 5  # of each shard the last is not whole
    radiograph_store.open_store.cache_clear()
    again = open_store(f'{bucket}/packed')
    assert np.array_equal(again.read(5), store.read(5))
    assert len(asked) == len(set(asked))  # a new process finds them, and the index
    kept = list((tmp_path / 'cache' / 'blocks').glob('*/*'))
    monkeypatch.setenv('MMXRAY_CACHE_GB', '3e-5')
    radiograph_store.open_store.cache_clear()
    shutil.rmtree(tmp_path / 'cache' / 'blocks')
    again = open_store(f'{bucket}/packed')
    for i in range(COUNT):
        again.read(i)
    less = list((tmp_path / 'cache' / 'blocks').glob('*/*'))
    assert sum(path.stat().st_size for path in less) <= 30_000
    assert 0 < len(less) < len(kept)
    monkeypatch.setenv('MMXRAY_CACHE_GB', 'much')
    with pytest.raises(ImagingError, match='MMXRAY_CACHE_GB=much: expected a number of GB'):
        blocks.cache_limit()


def _read_all(url, queue):
    asked, read_range = [], blocks.read_range
    blocks.read_range = lambda *place: asked.append(place) or read_range(*place)
    store = open_store(url)
    queue.put([int(store.read(i).sum()) for i in range(len(store))])
    queue.put(len(asked))


def test_processes_share_what_is_kept(source, bucket):
    store, _ = pack_to_url(source, f'{bucket}/packed', Recipe(64))
    sums = [int(store.read(i).sum()) for i in range(COUNT)]
    shutil.rmtree(os.environ['MMXRAY_CACHE'])
    context, workers = multiprocessing.get_context('fork'), []
    queue = context.Queue()
    for _ in range(3):
        workers.append(context.Process(target=_read_all, args=(f'{bucket}/packed', queue), daemon=True))
        workers[-1].start()
    answers = [queue.get(timeout=120) for _ in range(6)]
    for worker in workers:
        worker.join(60)
    assert [a for a in answers if isinstance(a, list)] == [sums] * 3
    requests = sum(a for a in answers if isinstance(a, int))
    assert requests <= 5 * 3 + 2  # of five shards three blocks each; the index


def test_what_is_kept_and_damaged_is_fetched_again_and_a_changed_shard_is_an_error(
    source, tmp_path, bucket, monkeypatch
):
    url = f'{bucket}/packed'
    store, _ = pack_to_url(source, url, Recipe(64))
    expected = store.read(0).copy()
    radiograph_store.open_store.cache_clear()
    kept = next((tmp_path / 'cache/blocks').glob('*/shard-00000.bin.000000'))
    kept.write_bytes(bytes(kept.stat().st_size))
    assert np.array_equal(open_store(url).read(0), expected)
    # Another shard in its place, under a running training: nothing of it is taken for pixels.
    store = open_store(url)
    shard = bytearray(remote.read_bytes(f'{url}/shard-00001.bin'))
    shard[10] ^= 1
    remote.write_bytes(f'{url}/shard-00001.bin', bytes(shard))
    with pytest.raises(StoreError, match=f'{url}/shard-00001.bin: image 3 is damaged.*remove {url} and pack'):
        store.read(3)
    remote.write_bytes(f'{url}/shard-00001.bin', bytes(shard[:50]))
    with pytest.raises(StoreError, match='image 3 is damaged'):
        store.read(3)
    remote.remove(f'{url}/shard-00002.bin')
    with pytest.raises(remote.RemoteError, match='shard-00002.bin: expected an object at this URL'):
        store.read(6)
    # Packed again with other pixels, the former blocks are not read.
    for name in remote.list_files(url):
        remote.remove(f'{url}/{name}')
    draw(source / 'part0' / '00.png', seed=99)
    store, _ = pack_to_url(source, url, Recipe(64))
    assert not np.array_equal(store.read(0), expected)


def test_a_token_that_has_expired_is_one_line(source, bucket, monkeypatch):
    store, _ = pack_to_url(source, f'{bucket}/packed', Recipe(64))

    def expired(*args, **kwargs):
        raise PermissionError('The provided token has expired.')

    monkeypatch.setattr(remote, '_range_of', expired)
    with pytest.raises(remote.RemoteError) as caught:
        store.read(0)
    assert str(caught.value).startswith(f'{bucket}/packed/shard-00000.bin: ')
    assert '(The provided token has expired.); ' in str(caught.value)


def test_an_index_of_another_length_is_refused(source, bucket):
    url = f'{bucket}/packed'
    pack_to_url(source, url, Recipe(64))
    radiograph_store.open_store.cache_clear()
    shutil.rmtree(os.environ['MMXRAY_CACHE'])
    remote.write_bytes(f'{url}/index.bin', remote.read_bytes(f'{url}/index.bin') + b'0')
    with pytest.raises(StoreError, match=f'{url}/index.bin: expected .* bytes, found another size'):
        open_store(url)
    remote.write_bytes(f'{url}/{radiograph_store.HEAD}', json.dumps([]).encode())
    with pytest.raises(StoreError, match='expected a store of the format'):
        open_store(url)


# --------------------------------------------------------------------------------------------------- order


def test_an_epoch_asks_for_each_block_about_once(source, tmp_path, bucket, monkeypatch):
    """With room for a few blocks alone, as an archive has on a disk."""
    pack_to_url(source, f'{bucket}/packed', Recipe(64))
    monkeypatch.setenv('MMXRAY_CACHE_GB', str(4 * 7000 / 1e9))
    dataset = XrayImages(data_root=bucket, data_prefix='packed', pipeline=[])
    sampler = XrayBlockSampler(dataset, blocks=1, seed=3)
    asked, load = counted(monkeypatch), LoadXray(size=64)
    order = list(sampler)
    assert sorted(order) == list(range(COUNT))
    for i in order:
        load(dict(img_path=dataset.get_data_info(i)['img_path']))
    # Five shards of three blocks; an image that two blocks share may ask for one of them again.
    assert len(asked) <= 15 + 5


def test_seed_and_epoch_decide_on_the_order_and_ranks_share_it():
    starts = np.arange(0, 1000, 10)
    order = block_order(starts, 1000, 4, (7, 0))
    assert sorted(order) == list(range(1000))
    assert (order == block_order(starts, 1000, 4, (7, 0))).all()
    assert (order != block_order(starts, 1000, 4, (7, 1))).any()
    assert (order != block_order(starts, 1000, 4, (8, 0))).any()
    # Of 4 blocks of 10 images, 40 images in a row come.
    assert all(len(set(order[k : k + 40] // 10)) == 4 for k in range(0, 1000, 40))
    assert (np.diff(order[:40]) != 1).mean() > 0.9


def test_a_chosen_list_is_read_in_blocks_too(source, tmp_path, bucket, monkeypatch):
    """What a curation leaves of an archive is read as the whole archive is, below a folder of it as well."""
    store, _ = pack_to_url(source, f'{bucket}/packed', Recipe(64))
    monkeypatch.setenv('MMXRAY_CACHE_GB', str(4 * 7000 / 1e9))
    chosen = [store.name(k) for k in range(COUNT) if k % 3 != 2]  # two of each block
    (tmp_path / 'chosen.txt').write_text('\n'.join(chosen))
    dataset = XrayImages(ann_file=str(tmp_path / 'chosen.txt'), data_prefix=f'{bucket}/packed', pipeline=[])
    paths = [dataset.get_data_info(k)['img_path'] for k in range(len(dataset))]
    assert paths == [f'{bucket}/packed/{name}' for name in chosen]
    order = list(XrayBlockSampler(dataset, blocks=1, seed=3))
    assert sorted(order) == list(range(len(chosen)))
    shards = [store[store.find(chosen[k])].shard for k in order]
    assert sum(a != b for a, b in zip(shards, shards[1:])) == 4  # each of five shards at one time
    (tmp_path / 'inner.txt').write_text('07.png\n06.png\n')
    inner = XrayImages(
        ann_file=str(tmp_path / 'inner.txt'), data_prefix=f'{bucket}/packed/part2', pipeline=[]
    )
    assert [item['img_path'] for item in inner] == [f'{bucket}/packed/part2/0{k}.png' for k in (7, 6)]
    assert len(list(XrayBlockSampler(inner))) == 2


@pytest.mark.parametrize('round_up', [True, False])
def test_ranks_read_blocks_of_their_own(source, bucket, round_up):
    pack_to_url(source, f'{bucket}/packed', Recipe(64))
    dataset = XrayImages(data_root=bucket, data_prefix='packed', pipeline=[])
    orders = []
    for rank in range(4):
        sampler = XrayBlockSampler(dataset, blocks=1, seed=0, round_up=round_up)
        sampler.__dict__.update(rank=rank, world_size=4)
        sampler.num_samples = -(-(COUNT - (0 if round_up else rank)) // 4)
        sampler.total_size = 16 if round_up else COUNT
        orders.append(list(sampler))
        assert len(orders[-1]) == len(sampler)
    assert set(sum(orders, [])) == set(range(COUNT))
    assert len(sum(orders, [])) == (16 if round_up else COUNT)
    with pytest.raises(ValueError, match='blocks=0, expected at least 1'):
        XrayBlockSampler(dataset, blocks=0)


# ------------------------------------------------------------------------------------------------ training


@DATASETS.register_module()
class ResumeStore(XrayImages):
    """What `ResumeNet` takes, of the pixels of a store and a random draw."""

    def prepare_data(self, idx):
        image = LoadXray(size=64).transform(dict(img_path=self.get_data_info(idx)['img_path']))['img']
        drawn = [image.mean() / 255, np.random.rand(), image[3, 5] / 255, idx]
        return dict(inputs=torch.tensor(drawn, dtype=torch.float32), data_samples=torch.tensor(idx % 2))


def training(folder, root, hooks=(), workers=0):
    arguments = settings(folder, hooks=hooks, workers=workers)
    arguments['train_dataloader'].update(
        dataset=dict(type='ResumeStore', data_root=root, data_prefix='packed', pipeline=[]),
        sampler=dict(type='XrayBlockSampler', blocks=2),
    )
    return arguments


@pytest.mark.parametrize(
    'kills', [pytest.param(2, id='twice'), pytest.param(20, id='twenty times', marks=pytest.mark.long)]
)
def test_a_killed_training_from_a_url_ends_as_the_undisturbed_local_one(source, tmp_path, bucket, kills):
    pack(source, tmp_path / 'packed', Recipe(64))
    pack_to_url(source, f'{bucket}/packed', Recipe(64))
    train(training(tmp_path / 'local', str(tmp_path)))
    reference = torch.load(tmp_path / 'local' / 'epoch_3.pth', weights_only=True)
    rng, context = np.random.default_rng(kills), multiprocessing.get_context('fork')
    moments = ('before', 'early', 'late', 'write', 'rename')
    for kill in range(kills):
        folder = tmp_path / f'killed{kill // 2}'  # two kills each
        hook = dict(
            type='KillHook', iteration=1 + 6 * (kill % 2) + int(rng.integers(5)), moment=moments[kill % 5]
        )
        arguments = training(folder, bucket, [hook])
        child = context.Process(target=train, args=(arguments, bool(kill % 2)))
        child.start()
        child.join(120)
        assert child.exitcode == -9
        if kill % 4 == 1:
            shutil.rmtree(os.environ['MMXRAY_CACHE'])
        if kill % 2:
            child = context.Process(target=train, args=(training(folder, bucket), True))
            child.start()
            child.join(120)
            assert child.exitcode == 0
            assert_same(folder / 'epoch_3.pth', reference)


def assert_same(checkpoint, reference):
    """A checkpoint has the state of another, bit for bit."""
    found = torch.load(checkpoint, weights_only=True)
    for part in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
        first, second = dict(leaves(found[part])), dict(leaves(reference[part]))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first), part


@HOOKS.register_module()
class DisturbHook(Hook):
    """Does something to the server in the second epoch, and forgets what is kept of it."""

    disturb = None

    def before_train_iter(self, runner, **kwargs):
        if runner.iter == 5:
            type(self).disturb()
            shutil.rmtree(os.environ['MMXRAY_CACHE'], ignore_errors=True)  # a loader may be writing there


@pytest.mark.parametrize(
    ('what', 'workers', 'said'),
    [
        ('shard', 0, 'shard-00001.bin: image [345] is damaged'),
        ('shard', 1, 'shard-00001.bin: image [345] is damaged'),
        ('gone', 0, 'shard-00001.bin: expected an object at this URL'),
        ('token', 0, 'shard-0000[0-4].bin: expected a readable object .*; check the URL and the credentials'),
        ('storm', 0, 'shard-0000[0-4].bin: expected an answer within 5 tries .*; check the network'),
    ],
)
def test_a_training_that_is_disturbed_ends_in_one_line_and_goes_on(
    source, tmp_path, bucket, cable, capsys, monkeypatch, what, workers, said
):
    """Once the server is as it was, `--resume` ends as the undisturbed training, bit for bit."""
    url = f'{bucket}/packed/shard-00001.bin'
    pack_to_url(source, f'{bucket}/packed', Recipe(64))
    train(training(tmp_path / 'undisturbed', bucket, workers=workers))
    reference = torch.load(tmp_path / 'undisturbed' / 'epoch_3.pth', weights_only=True)
    whole = remote.read_bytes(url)
    happens = dict(
        shard=lambda: remote.write_bytes(url, whole[::-1]),
        gone=lambda: remote.remove(url),
        token=lambda: authenticate(cable, '0'),
        storm=lambda: setattr(cable, 'busy', 10**6),
    )
    monkeypatch.setattr(DisturbHook, 'disturb', staticmethod(happens[what]))
    disturbed = training(tmp_path / 'run', bucket, [dict(type='DisturbHook')], workers)
    capsys.readouterr()
    try:
        assert running.one_line_errors(lambda _: train(disturbed) and 0)() == 1
    finally:
        cable.busy = 0
        authenticate(cable, 'inf')
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error')]
    assert len(errors) == 1 and re.search(said, errors[0]), errors
    assert (tmp_path / 'run' / 'epoch_1.pth').is_file() and not (tmp_path / 'run' / 'epoch_3.pth').exists()
    remote.write_bytes(url, whole)
    train(training(tmp_path / 'run', bucket, workers=workers), resume=True)
    assert_same(tmp_path / 'run' / 'epoch_3.pth', reference)


def test_paths_outside_of_opened_stores_ask_nothing(bucket):
    assert locate(f'{bucket}/packed/a.png') is None
