import json
import multiprocessing
import pickle
import subprocess
import sys
import textwrap

import cv2
import fsspec
import numpy as np
import pytest
import torch
from helpers.drawn_runs import draw_run, draw_truth
from helpers.packed import contents, draw
from torchvision.transforms.v2.functional import resize

from projects.radiograph import pack as radiograph_pack
from projects.radiograph import store as radiograph_store
from projects.radiograph.image import ImagingError
from projects.radiograph.pack import pack, verify
from projects.radiograph.read import read
from projects.radiograph.recipe import Recipe, StoreError, prepare
from projects.radiograph.store import Store, locate
from projects.report.compare import gather
from projects.report.gallery import choose, collect, thumbnails
from projects.report.measured import Settings
from projects.report.runs import read_runs
from projects.xray.datasets import DatasetError, XrayDefects, XrayImages
from projects.xray.transforms import LoadXray


@pytest.fixture
def source(tmp_path):
    """Nine radiographs of three parts, and one file that is none."""
    for i in range(9):
        draw(tmp_path / 'source' / f'part{i // 3}' / f'{i}.png', seed=i)
    (tmp_path / 'source' / 'notes.txt').write_text('no radiograph')
    return tmp_path / 'source'


@pytest.fixture
def small_shards(monkeypatch):
    """Close a shard after about three of the images."""
    monkeypatch.setattr(radiograph_pack, 'SHARD_BYTES', 2 * 64 * 80 + 1)


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def unfinish(out):
    """Make a finished store look as a killed run leaves it."""
    head = json.loads((out / radiograph_store.HEAD).read_text())
    for key in ('left_out', 'index.bin', 'names.bin'):
        del head[key]
    (out / radiograph_store.HEAD).write_text(json.dumps(head | dict(finished=False)))


# --------------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize('size', [0, 64])
@pytest.mark.parametrize(('bits', 'dtype'), [(8, 'uint8'), (16, 'uint16'), (16, 'float32')])
def test_a_store_gives_the_pixels_of_the_files(tmp_path, bits, dtype, size):
    window = dict(type='absolute', low=9000, high=50000)
    for i in range(3):
        draw(tmp_path / 'source' / f'{i}.png', bits=16, seed=i)
    pack(tmp_path / 'source', tmp_path / 'packed', Recipe(size, bits, window))
    load = LoadXray(window, dtype, size)
    for i in range(3):
        from_file, packed = (load(dict(img_path=f'{tmp_path}/{d}/{i}.png')) for d in ('source', 'packed'))
        assert packed['img'].dtype == dtype
        assert packed['img_shape'] == from_file['img_shape'] == ((64, 80) if size else (96, 120))
        atol = 0.5 / 257 + 1e-4 if dtype == 'float32' else 0
        np.testing.assert_allclose(packed['img'], from_file['img'], rtol=0, atol=atol)


def test_sixteen_bits_survive(tmp_path):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    (tmp_path / 'source').mkdir()
    cv2.imwrite(str(tmp_path / 'source' / 'ramp.png'), ramp)
    store, _ = pack(tmp_path / 'source', tmp_path / 'packed', Recipe(0, 16))
    assert np.array_equal(store.read(0), ramp)


def test_shrinking_is_antialiased(tmp_path):
    draw(tmp_path / 'a.png', (300, 400))
    radiograph = read(tmp_path / 'a.png')
    got = prepare(radiograph, dict(type='full'), 'uint8', 100)
    pixels = torch.from_numpy(radiograph.pixels.copy())[None].float()
    expected = resize(pixels, [100, 133], antialias=True)[0].numpy()
    assert got.shape == (100, 133)
    assert np.abs(got - expected).max() <= 1
    # Without antialiasing the finest structure stays: the difference is what the test would miss.
    assert np.abs(got - resize(pixels, [100, 133], antialias=False)[0].numpy()).max() > 5


@pytest.mark.parametrize(
    ('size', 'shape'), [(0, (96, 120)), (48, (48, 60)), (96, (96, 120)), (500, (96, 120))]
)
def test_the_shorter_side_is_shrunk_and_nothing_grows(tmp_path, size, shape):
    draw(tmp_path / 'a.png')
    assert prepare(read(tmp_path / 'a.png'), dict(type='full'), 'uint8', size).shape == shape


# ------------------------------------------------------------------------------------------- the index


def test_index_tells_name_part_shapes_and_source(source, tmp_path, small_shards):
    store, left_out = pack(source, tmp_path / 'packed', Recipe(64), group='[^/]+')
    assert len(store) == 9
    assert left_out == {}
    assert len(list((tmp_path / 'packed').glob('shard-*.bin'))) == 3
    for i in range(9):
        assert store.name(i) == f'part{i // 3}/{i}.png'
        assert store.part(i) == f'part{i // 3}'
        assert store[i][5:9] == (64, 80, 96, 120)
        assert store.find(f'part{i // 3}/{i}.png') == i
        expected = prepare(read(source / store.name(i)), dict(type='full'), 'uint8', 64)
        assert np.array_equal(store.read(i), expected)
    assert store.find('part1/9.png') is store.find('') is store.find('zzz') is None
    assert list(store.below('part1')) == [3, 4, 5]
    assert list(store.below('part')) == []
    assert len(store.below('')) == 9


def test_part_by_regular_expression(source, tmp_path):
    store, _ = pack(source, tmp_path / 'packed', Recipe(64), group=r'part(\d)/')
    assert [store.part(i) for i in (0, 8)] == ['0', '2']
    store, _ = pack(source, tmp_path / 'without', Recipe(64))
    assert {store.part(i) for i in range(9)} == {''}
    with pytest.raises(StoreError, match=r'part0/0.png: no match of the group .*--group'):
        pack(source, tmp_path / 'other', Recipe(64), group=r'(C\d+)')


def test_paths_are_found_at_any_depth_and_however_spelled(source, tmp_path, monkeypatch):
    pack(source, tmp_path / 'packed', Recipe(64))
    monkeypatch.chdir(tmp_path)
    for spelled in (tmp_path, f'{tmp_path}/', '.', f'{source}/..'):
        store, name = locate(f'{spelled}/packed/part1/4.png')
        assert (len(store), name) == (9, 'part1/4.png')
    assert locate(str(source / 'part1' / '4.png')) is None


def test_workers_give_the_same_bytes(source, tmp_path):
    pack(source, tmp_path / 'one', Recipe(64))
    pack(source, tmp_path / 'two', Recipe(64), workers=2)
    assert contents(tmp_path / 'one') == contents(tmp_path / 'two')


def test_a_store_travels_to_a_loader_worker_as_its_path(source, tmp_path):
    store, _ = pack(source, tmp_path / 'packed', Recipe(64))
    message = pickle.dumps(store)
    assert len(message) < 1000
    assert np.array_equal(pickle.loads(message).read(3), store.read(3))


def _touch(dataset, start, done, queue):
    """Read index lines from everywhere, then say how much memory that took beyond the start."""

    def pss():
        with open('/proc/self/smaps_rollup') as file:  # noqa: PTH123
            return next(int(line.split()[1]) for line in file if line.startswith('Pss:'))

    start.wait()
    before = pss()
    for i in np.random.default_rng(0).integers(len(dataset), size=20_000):
        info = dataset.get_data_info(int(i))
        store, name = locate(info['img_path'])
        assert store.find(name) == i
    done.wait()
    queue.put(pss() - before)
    done.wait()


@pytest.mark.slow
def test_a_million_images_take_little_memory_in_eight_workers(tmp_path):
    n = 1_000_000
    fields = dict(
        zip(
            radiograph_store.Record._fields,
            ('u8', 'u2', 'u2', 'u4', 'u8', 'u4', 'u4', 'u4', 'u4', 'V32', 'u4'),
        )
    )
    index = np.zeros(n, list(fields.items()))
    # 'images/0000000.png' and the part 'images'
    index['text'], index['name_bytes'], index['part_bytes'] = np.arange(n) * 24, 18, 6
    out = tmp_path / 'packed'
    out.mkdir()
    index.tofile(out / 'index.bin')
    (out / 'names.bin').write_text(''.join(f'images/{i:07d}.pngimages' for i in range(n)))
    head = dict(
        format=radiograph_store.FORMAT, finished=True, recipe=dict(size=512, bits=8, window=dict(type='full'))
    )
    sizes = {name: (out / name).stat().st_size for name in ('index.bin', 'names.bin')}
    (out / radiograph_store.HEAD).write_text(json.dumps(head | dict(left_out={}) | sizes))

    dataset = XrayImages(data_root=str(out), data_prefix='images')
    assert len(dataset) == n
    assert len(pickle.dumps(dataset)) < 10_000
    context = multiprocessing.get_context('fork')
    start, done, queue = context.Barrier(8, timeout=120), context.Barrier(8, timeout=120), context.Queue()
    # Daemons: a worker that waits for one that died does not outlive the tests.
    workers = [
        context.Process(target=_touch, args=(dataset, start, done, queue), daemon=True) for _ in range(8)
    ]
    for worker in workers:
        worker.start()
    total = sum(queue.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 8
    assert total < 300_000  # kB


# ------------------------------------------------------------------------------------ kills and resuming


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(source, tmp_path, repo, small_shards):
    script = f"""
        import os, signal
        from projects.radiograph import pack as packing
        packing.SHARD_BYTES = {radiograph_pack.SHARD_BYTES}
        def progress(results, total):
            for i, result in enumerate(results):
                if i == 5:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield result
        packing.pack({str(source)!r}, {str(tmp_path / 'killed')!r}, packing.Recipe(64), progress=progress)
    """
    run = subprocess.run([sys.executable, '-c', textwrap.dedent(script)], cwd=repo, timeout=120)
    assert run.returncode == -9
    with pytest.raises(StoreError, match='killed: packing was interrupted.*pack_images.py'):
        Store(tmp_path / 'killed')
    counts = []
    pack(source, tmp_path / 'killed', Recipe(64), progress=lambda r, total: counts.append(total) or r)
    assert counts == [4]
    pack(source, tmp_path / 'whole', Recipe(64))
    assert contents(tmp_path / 'killed') == contents(tmp_path / 'whole')


TEARS = {
    'half a record': lambda out: (out / 'index.bin', -30),
    'two records': lambda out: (out / 'index.bin', -2 * 76),
    'names': lambda out: (out / 'names.bin', -3),
    'pixels': lambda out: (sorted(out.glob('shard-*.bin'))[-1], -100),
    'the last shard': lambda out: (sorted(out.glob('shard-*.bin'))[-1], -(10**6)),
    'all': lambda out: (out / 'index.bin', -(10**6)),
}


@pytest.mark.parametrize('tear', TEARS)
def test_whatever_a_kill_tears_is_packed_again(source, tmp_path, small_shards, tear):
    pack(source, tmp_path / 'whole', Recipe(64))
    torn = tmp_path / 'torn'
    pack(source, torn, Recipe(64))
    unfinish(torn)
    path, cut = TEARS[tear](torn)
    path.write_bytes(path.read_bytes()[: max(0, path.stat().st_size + cut)])
    pack(source, torn, Recipe(64))
    assert contents(torn) == contents(tmp_path / 'whole')


def test_records_of_zeros_after_a_power_cut_hide_no_torn_shard(source, tmp_path, small_shards):
    """A file system may keep the length of the index and lose its last page, and the shard's."""
    pack(source, tmp_path / 'whole', Recipe(64))
    torn = tmp_path / 'torn'
    pack(source, torn, Recipe(64))
    unfinish(torn)
    with (torn / 'index.bin').open('ab') as file:
        file.write(bytes(2 * 76))
    last = max(torn.glob('shard-*.bin'))
    last.write_bytes(bytes(last.stat().st_size))
    pack(source, torn, Recipe(64))
    assert contents(torn) == contents(tmp_path / 'whole')


def test_packing_again_changes_nothing(source, tmp_path):
    pack(source, tmp_path / 'packed', Recipe(64))
    before = contents(tmp_path / 'packed')
    store, left_out = pack(source, tmp_path / 'packed', Recipe(64))
    assert (len(store), left_out) == (9, {})
    assert contents(tmp_path / 'packed') == before


def test_images_that_come_later_are_not_lost_silently(source, tmp_path):
    out = tmp_path / 'packed'
    pack(source, out, Recipe(64))
    draw(source / 'part0' / '00.png')
    with pytest.raises(StoreError, match='packed: .*part0/00.png came too late for its place; remove'):
        pack(source, out, Recipe(64))
    unfinish(out)
    with pytest.raises(StoreError, match='part0/00.png came too late'):
        pack(source, out, Recipe(64))


@pytest.mark.parametrize('finished', [True, False])
def test_images_that_go_or_change_are_refused_by_name(source, tmp_path, finished):
    out, image = tmp_path / 'packed', source / 'part1' / '4.png'
    pack(source, out, Recipe(64))
    if not finished:
        unfinish(out)
    kept = image.rename(tmp_path / 'kept.png')
    with pytest.raises(
        StoreError, match='part1/4.png: no such file.*put it back, or remove .*packed and pack'
    ):
        pack(source, out, Recipe(64))
    draw(image, seed=99)
    with pytest.raises(
        StoreError, match='part1/4.png: differs from the file that was packed; remove .*packed'
    ):
        pack(source, out, Recipe(64))
    kept.rename(image)
    assert len(pack(source, out, Recipe(64))[0]) == 9


def test_contents_are_compared_only_where_times_or_sizes_differ(source, tmp_path, monkeypatch):
    out, compared = tmp_path / 'packed', []
    sha256 = radiograph_pack.sha256
    monkeypatch.setattr(radiograph_pack, 'sha256', lambda path: compared.append(path) or sha256(path))
    pack(source, out, Recipe(64))
    pack(source, out, Recipe(64))
    assert compared == []
    (source / 'part1' / '4.png').touch()
    for _ in range(2):  # the second time it is known again
        pack(source, out, Recipe(64))
        assert len(compared) == 9


@pytest.mark.parametrize(
    ('arguments', 'named'),
    [
        (dict(recipe=Recipe(32)), "'size': 64.*'size': 32"),
        (dict(recipe=Recipe(64, 16)), "'bits': 8.*'bits': 16"),
        (dict(recipe=Recipe(64, 8, dict(type='voi'))), "'full'.*'voi'"),
        (dict(group='part.'), 'group None, now part.'),
    ],
)
def test_other_arguments_are_refused(source, tmp_path, arguments, named):
    pack(source, tmp_path / 'packed', Recipe(64))
    with pytest.raises(StoreError, match=f'packed: begun with .*{named}'):
        pack(source, tmp_path / 'packed', **{'recipe': Recipe(64), **arguments})


@pytest.mark.parametrize('group', ['absent', '(absent)?part'])
def test_a_name_without_the_group_is_refused(source, tmp_path, group):
    with pytest.raises(StoreError, match='0.png: .*--group'):
        pack(source, tmp_path / 'packed', Recipe(64), group=group)


def test_bad_folders_are_refused_in_one_line(source, tmp_path):
    with pytest.raises(StoreError, match='gone: expected a folder with files of .png'):
        pack(tmp_path / 'gone', tmp_path / 'packed', Recipe(64))
    with pytest.raises(StoreError, match='source: expected a new folder, found notes.txt'):
        pack(source, source, Recipe(64))
    with pytest.raises(StoreError, match='notes.txt: expected a folder to write to'):
        pack(source, source / 'notes.txt', Recipe(64))
    with pytest.raises(StoreError, match='size -1, bits 8'):
        Recipe(-1)
    with pytest.raises(ImagingError, match='window'):
        Recipe(64, 8, dict(type='absolute'))


def test_two_processes_do_not_pack_into_one_store(source, tmp_path):
    def intrude(results, total):
        with pytest.raises(StoreError, match='packed: another process is packing into it'):
            pack(source, tmp_path / 'packed', Recipe(64))
        yield from results

    assert len(pack(source, tmp_path / 'packed', Recipe(64), progress=intrude)[0]) == 9


def test_unreadable_files_are_left_out_by_name(source, tmp_path):
    (source / 'part1' / '4.png').write_bytes(b'\x89PNG\r\n\x1a\n torn')
    store, left_out = pack(source, tmp_path / 'packed', Recipe(64))
    assert len(store) == 8
    assert list(left_out) == ['part1/4.png']
    assert str(source / 'part1' / '4.png') in left_out['part1/4.png']
    assert pack(source, tmp_path / 'packed', Recipe(64))[1] == left_out  # still known
    assert verify(store, source) == []


def test_nothing_readable_makes_no_store(tmp_path):
    (tmp_path / 'source').mkdir()
    (tmp_path / 'source' / 'a.png').write_bytes(b'torn')
    with pytest.raises(StoreError, match='source: no radiograph among 1 files can be read: .*a.png'):
        pack(tmp_path / 'source', tmp_path / 'packed', Recipe(64))


# ----------------------------------------------------------------------------------------------- damage


@pytest.fixture
def packed(source, tmp_path, small_shards):
    pack(source, tmp_path / 'packed', Recipe(64))
    return tmp_path / 'packed'


def test_flipped_bits_are_named_and_never_read_as_pixels(packed, source):
    flip(packed / 'shard-00001.bin', 64 * 80 + 17)  # the fifth image
    store = Store(packed)
    for i in (0, 3, 5, 8):
        store.read(i)
    with pytest.raises(StoreError, match='shard-00001.bin: image 4 is damaged'):
        store.read(4)
    assert len(verify(store)) == 1
    assert 'shard-00001.bin' in verify(store)[0]


@pytest.mark.parametrize('offset', range(76))
def test_any_flipped_byte_of_the_index_is_noticed(packed, offset):
    flip(packed / 'index.bin', 4 * 76 + offset)
    store = Store(packed)
    with pytest.raises(StoreError):
        store.read(4)
    assert np.array_equal(store.read(3).shape, (64, 80))


def test_flipped_names_are_noticed(packed):
    flip(packed / 'names.bin', 3)
    with pytest.raises(StoreError, match='image 0 is damaged'):
        Store(packed).read(0)


def test_short_and_missing_files_are_named(packed):
    shard = packed / 'shard-00002.bin'
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(StoreError, match='shard-00002.bin: image 8 is damaged'):
        Store(packed).read(8)
    for spoil in (lambda: shard.write_bytes(b''), shard.unlink):
        spoil()
        with pytest.raises(StoreError, match='shard-00002.bin: expected a shard'):
            Store(packed).read(8)
    for name in ('index.bin', 'names.bin'):
        whole = (packed / name).read_bytes()
        (packed / name).write_bytes(whole[:-1])
        with pytest.raises(StoreError, match=f'{name}: expected {len(whole)} bytes'):
            Store(packed)
        (packed / name).write_bytes(whole)


@pytest.mark.parametrize('text', ['', '{', '[]', '{"format": "xray-store-0"}', '{"format": "xray-store-1"}'])
def test_a_spoilt_head_is_named(packed, text):
    (packed / radiograph_store.HEAD).write_text(text)
    with pytest.raises(StoreError, match=f'{radiograph_store.HEAD}: .*remove .*packed and pack again'):
        Store(packed)


def test_verify_compares_the_sources(packed, source):
    store = Store(packed)
    assert verify(store, source) == []
    draw(source / 'part0' / '1.png', seed=99)
    (source / 'part1' / '4.png').unlink()
    draw(source / 'part2' / 'new.png')
    faults = verify(store, source, workers=2)
    assert len(faults) == 3
    for name, words in (
        ('0/1', 'differs from the file'),
        ('1/4', 'No such file'),
        ('2/new', 'not in the store'),
    ):
        assert any(f'part{name}.png' in fault and words in fault for fault in faults)
    assert verify(store) == []


# ---------------------------------------------------------------------------------- loading and datasets


@pytest.mark.parametrize(
    ('arguments', 'named'),
    [
        (dict(), 'size=64.*size=0'),
        (dict(size=32), 'size=64.*size=32'),
        (dict(size=64, window=dict(type='percentile', low=1, high=99)), 'full.*percentile'),
        (dict(size=64, dtype='uint16'), 'bits=8.*bits=16'),
        (dict(size=64, dtype='float32'), 'bits=8.*bits=16'),
    ],
)
def test_a_store_packed_otherwise_is_refused(packed, arguments, named):
    with pytest.raises(StoreError, match=f'packed: packed with .*{named}'):
        LoadXray(**arguments)(dict(img_path=f'{packed}/part0/0.png'))


def test_equal_windows_may_be_spelled_differently(source, tmp_path):
    pack(source, tmp_path / 'a', Recipe(64, 8, dict(type='absolute', low=0, high=200)))
    window = dict(type='absolute', low=0.0, high=200.0, log=False)
    assert LoadXray(window, size=64)(dict(img_path=f'{tmp_path}/a/part0/0.png'))['img'].shape == (64, 80)


def test_an_image_that_is_not_in_the_store(packed):
    with pytest.raises(StoreError, match='packed: expected an image part0/7.png'):
        LoadXray(size=64)(dict(img_path=f'{packed}/part0/7.png'))


def test_a_store_stands_in_for_an_unlabelled_folder(packed, source):
    def run(root, **kwargs):
        dataset = XrayImages(data_root=str(root), pipeline=[LoadXray(size=64)], **kwargs)
        return [(item['img_path'].removeprefix(f'{root}/'), item['img']) for item in dataset]

    for prefix in ('', './'):
        ours, files = (run(root, data_prefix=prefix) for root in (packed, source))
        assert [name.removeprefix('./') for name, _ in files] == [name for name, _ in ours]
        assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(ours, files, strict=True))
    assert [name for name, _ in run(packed, data_prefix='part1')] == [f'part1/{i}.png' for i in (3, 4, 5)]
    assert [name for name, _ in run(packed, data_prefix='part1', indices=2)] == ['part1/3.png', 'part1/4.png']
    with pytest.raises(DatasetError, match='part7: no image below this folder of a packed store'):
        run(packed, data_prefix='part7')


def test_a_list_names_images_of_a_store(packed, tmp_path):
    (tmp_path / 'list.txt').write_text('part2/8.png\npart0/0.png\n')
    listed = dict(data_root=str(tmp_path), ann_file='list.txt', data_prefix='packed')
    assert [info['img_path'].split('/')[-1] for info in XrayImages(**listed)] == ['8.png', '0.png']
    (tmp_path / 'list.txt').write_text('part2/8.png\npart0/9.png\n')
    with pytest.raises(DatasetError, match='list.txt: 1 of 2 images are not in .*packed.*part0/9.png'):
        XrayImages(**listed)


def test_a_native_store_stands_in_for_labelled_images(tiny_coco):
    root = tiny_coco(n=4)
    pack(root / 'images', root / 'packed', Recipe(0))

    def run(folder, **kwargs):
        return XrayDefects(
            ann_file='train.json',
            data_root=str(root),
            data_prefix=dict(img=folder),
            severity='castings',
            pipeline=[LoadXray(**kwargs)],
        )

    for ours, files in zip(run('packed'), run('images'), strict=True):
        assert ours['instances'] == files['instances']
        assert np.array_equal(ours['img'], files['img'])
    # Boxes are in px of the native size.
    pack(root / 'images', root / 'packed-48', Recipe(48))
    with pytest.raises(ImagingError, match='train_000.png: 48 x 48 px, .* says 96 x 96.*size=0'):
        run('packed-48', size=48)[0]
    (root / 'images' / 'train_001.png').rename(root / 'images' / 'other.png')
    pack(root / 'images', root / 'without', Recipe(0))
    with pytest.raises(DatasetError, match='train.json: 1 of 4 images are not in .*without'):
        run('without')


@pytest.mark.parametrize('bits', [8, 16])
def test_a_report_cuts_the_same_pictures_out_of_files_stores_and_urls(tmp_path, bits):
    runs, _ = read_runs([draw_run(tmp_path, tmp_path / 'run', draw_truth(tmp_path))])
    items = choose(collect(gather(runs, Settings(resamples=10))), 20)
    expected, problems = thumbnails(items, tmp_path / 'real')
    assert problems == []
    assert len(expected) == 20 and all(record['image'] for record in expected)
    pack(tmp_path / 'images', tmp_path / 'packed', Recipe(0, bits))
    fsspec.filesystem('memory').put(str(tmp_path / 'images'), f'/gallery{bits}', recursive=True)
    for folder in (str(tmp_path / 'packed'), f'memory://gallery{bits}'):
        runs[0].predictions.folder = folder
        assert thumbnails(items, tmp_path / 'real') == (expected, [])

    gone = items[0].file
    (tmp_path / 'images' / gone).unlink()
    pack(tmp_path / 'images', tmp_path / 'without', Recipe(0, bits))
    runs[0].predictions.folder = str(tmp_path / 'without')
    records, problems = thumbnails(items, tmp_path / 'real')
    store = tmp_path / 'without'
    assert problems == [f'{store}: expected an image {gone} in this store; remove {store} and pack again']
    assert [record['file'] for record in records if not record['image']] == [
        item.file for item in items if item.file == gone
    ]
