"""What `tools/benchmark.py archive` measures, at a size that takes seconds."""

import re

import pytest

from projects.benchmark import records, streaming
from projects.benchmark.variants import run_in_subprocess
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


def test_leaks_crops_index_and_labels_in_one_run(capsys):
    arguments = ['archive', '--only', 'leaks', 'crops', 'index', 'records', '--images', '200', '400']
    assert benchmark.main([*arguments, '--records', '3000', '--loaders', '2']) == 0
    said = capsys.readouterr().out
    assert len(re.findall(r'\n +(200|400) x (40|80) ', said)) == 4
    assert len(re.findall(r'2,000 images added -?[0-9]+ MB', said)) == 2


def test_a_slow_store_is_measured(tmp_path):
    """Each image is one request as a file; packed, a block of many is."""
    row = run_in_subprocess(
        'stream', streaming.measure_streaming, str(benchmark.REPO / streaming.CONFIG), 64, 192, 0.005, 2
    )
    assert row['images'] == 64 and row['rate'] > 0 and 0 <= row['data_time'] <= 1
    assert 1 <= row['requests_files'] < 2.5 and row['requests_packed'] < 0.3
    assert 'data_time' in streaming.streaming_table(row)


def test_without_a_server_it_is_one_line(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'moto.server', None)
    with pytest.raises(streaming.StreamingError, match='moto: not installed'), streaming.slow_store(0):
        pass
