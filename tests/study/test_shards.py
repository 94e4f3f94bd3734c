"""An archive inspected in shards by Snakemake, here and in pods, and one table of all of them."""

import json

import cv2
import pytest
from helpers.exported import export_to, spot

from tools import infer_shards as tool

COUNT = 9


@pytest.fixture
def archive(tmp_path):
    """An exported folder and radiographs, one of them damaged."""
    images = tmp_path / 'archive'
    images.mkdir()
    for k in range(COUNT):
        cv2.imwrite(str(images / f'{k}.png'), spot(20, 5 + k, 250 if k % 2 else 120))
    (images / '8.png').write_bytes((images / '8.png').read_bytes()[:60])
    return [str(export_to(tmp_path / 'exported')), str(images), '--out', str(tmp_path / 'found')]


def table(tmp_path):
    """Names in the merged table, and of those that could not be read."""
    coco = json.loads((tmp_path / 'found' / 'coco.json').read_text())
    aside = (tmp_path / 'found' / 'quarantine.csv').read_text().splitlines()[1:]
    return sorted(image['file_name'] for image in coco['images']), len(aside)


@pytest.mark.slow
def test_shards_are_inspected_here_and_what_is_new_is_taken(archive, tmp_path):
    assert tool.main([*archive, '--shards', '3', '--jobs', '2', '--overlays', 'none']) == 0
    assert table(tmp_path) == ([f'{k}.png' for k in range(COUNT - 1)], 1)
    cv2.imwrite(str(tmp_path / 'archive' / 'new.png'), spot(20, 40, 250))
    assert tool.main([*archive, '--shards', '3', '--overlays', 'none']) == 0
    assert table(tmp_path) == ([*(f'{k}.png' for k in range(COUNT - 1)), 'new.png'], 1)


@pytest.mark.slow
def test_shards_are_inspected_in_pods(archive, tmp_path, cluster):
    profile = ['--profile', 'configs/study/kubernetes']
    assert tool.main([*archive, '--shards', '2', '--minutes', '7', *profile]) == 0
    assert table(tmp_path) == ([f'{k}.png' for k in range(COUNT - 1)], 1)
    jobs = [json.loads(file.read_text()) for file in cluster.iterdir()]
    assert len(jobs) == 3 and all(job['spec']['activeDeadlineSeconds'] == 420 for job in jobs)


@pytest.mark.parametrize('profile', ['slurm', 'kubernetes'])
@pytest.mark.slow
def test_a_million_is_dry_run_on_either_cluster(archive, tmp_path, cluster, capfd, profile):
    arguments = ['--shards', '64', '--dry-run', '--profile', f'configs/study/{profile}']
    assert tool.main([*archive, *arguments]) == 0
    shown = ''.join(capfd.readouterr())
    assert all(f'rule shard_{k}:' in shown for k in range(1, 65)) and 'rule table:' in shown
    assert not (tmp_path / 'found' / 'shard-1-of-64').exists()


@pytest.mark.slow
def test_a_shard_that_fails_leaves_no_table_and_is_said_in_one_line(archive, tmp_path, capfd):
    (tmp_path / 'exported' / 'model.onnx').write_bytes(b'')
    assert tool.main([*archive, '--shards', '2', '--engine', 'onnxruntime']) == 1
    errors = capfd.readouterr().err
    assert f'error: {tmp_path}/found: not all shards were inspected and merged' in errors
    assert 'model.onnx' in errors and 'Traceback' not in errors
    assert not (tmp_path / 'found' / 'coco.json').exists()


@pytest.mark.slow
def test_an_archive_of_which_nothing_can_be_read_says_so(archive, tmp_path, capfd):
    for file in (tmp_path / 'archive').iterdir():
        file.write_bytes(file.read_bytes()[:60])
    assert tool.main([*archive, '--shards', '1']) == 3
    assert capfd.readouterr().err.endswith(
        f'error: {tmp_path}/found: none of the radiographs could be read; see quarantine.csv\n'
    )


@pytest.mark.parametrize(
    ('wrong', 'expected'),
    [
        (['--shards', '0'], '--shards 0: expected a number from 1'),
        (['--shards', '2', '--overlay', 'none', '--bogus'], '--bogus'),
        (['--shards', '2', '--threshold', '3'], '--threshold 3.0: expected a score'),
        (['--shards', '2', '--watch'], '--watch, --shard: of tools/infer.py alone'),
        (['--shards', '2', '--out', '{archive}/found'], 'lies inside'),
    ],
)
def test_wrong_use_is_told_before_a_shard_starts(archive, tmp_path, capsys, wrong, expected):
    wrong = [text.format(archive=tmp_path / 'archive') for text in wrong]
    with pytest.raises(SystemExit) as end:
        tool.main([*archive, *wrong])
    assert end.value.code == 2 and expected in capsys.readouterr().err
    assert not (tmp_path / 'found').exists()
