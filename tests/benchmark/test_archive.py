"""What `tools/benchmark.py archive` measures, at a size that takes seconds."""

import re

import fsspec
import pytest

from projects.benchmark import levels, records, streaming
from projects.radiograph.store import Store
from projects.xray.label_table import open_defects
from tools import benchmark


def test_drawn_labels_and_index_are_what_readers_take(tmp_path, monkeypatch):
    monkeypatch.setenv('MMXRAY_CACHE', str(tmp_path / 'cache'))
    size = records.write_records(tmp_path / 'a.parquet', 50)
    table = open_defects(tmp_path / 'a.parquet', ('critical', 'minor'))
    assert size == (tmp_path / 'a.parquet').stat().st_size and len(table) == 50 and table.repairs == {}
    image, boxes = table.record(49)
    assert image['part'] == 'P0000012' and [box['category_id'] for box in boxes] == [1, 2]
    (tmp_path / 'store').mkdir()
    records.write_index(tmp_path / 'store', 50)
    store = Store(tmp_path / 'store')
    assert len(store) == 50 and all(store.find(store.name(k)) == k for k in range(50))


@pytest.mark.slow
def test_leaks_and_crops_in_one_run(capsys):
    arguments = ['archive', '--only', 'leaks', 'crops', '--images', '200', '400', '--hosts', '200', '400']
    assert benchmark.main(arguments) == 0
    printed = capsys.readouterr().out
    assert len(re.findall(r'\n +(200|400) x +(40|80) ', printed)) == 4 and 'n log n' in printed


@pytest.mark.slow
def test_windows_are_those_of_all_pixels(capsys):
    rows = levels.measure_all([40])
    assert rows[0]['images'] == 40 and rows[0]['exact_high'] > rows[0]['exact_low'] + 500
    assert rows[0]['off'] < 1
    assert '40 ' in levels.levels_table(rows) and ' gray' in levels.levels_table(rows)


@pytest.mark.parametrize(
    'wrong',
    [['--images', '1'], ['--latency', '-5'], ['--latency', 'nan'], ['--windowed', '0'], ['--only', 'x']],
)
def test_wrong_use_is_told_at_once(wrong):
    with pytest.raises(SystemExit) as end:
        benchmark.main(['archive', *wrong])
    assert end.value.code == 2


def test_less_than_a_batch_behind_the_store_is_one_line():
    with pytest.raises(
        streaming.StreamingError, match='31 radiographs .* expected at least the 32 of a batch'
    ):
        streaming.measure_streaming(str(benchmark.REPO / streaming.CONFIG), 31, 64, 0, 1)


@pytest.mark.slow
def test_memory_of_index_and_labels_over_loaders():
    found = records.measure(['index', 'records'], 4000, 2)
    for what, (few, many) in found.items():
        assert (few['images'], many['images']) == (1000, 4000) and min(few['pss_mb'], many['pss_mb']) > 50
        assert '3,000 images added' in records.records_table(what, few, many, 2)


@pytest.mark.slow
def test_a_slow_store_is_measured(monkeypatch):
    """Each image is one request as a file; packed, a block of many is."""
    type(fsspec.filesystem('s3', skip_instance_cache=True)).clear_instance_cache()
    config = str(benchmark.REPO / streaming.CONFIG)
    row = streaming.measure_streaming(config, images=64, size=192, latency=0.005, steps=2)
    assert row['images'] == 64 and row['rate'] > 0 and 0 <= row['data_time'] <= 1
    assert 1 <= row['requests_files'] < 2.5 and row['requests_packed'] < 0.3
    assert 'data_time' in streaming.streaming_table(row)


def test_without_a_server_it_is_one_line(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'moto.server', None)
    with pytest.raises(streaming.StreamingError, match='moto: not installed'), streaming.slow_store(0):
        pass
