"""What a threshold costs is kept in the folder and said when it is used; more rejects are a warning."""

import cv2
import numpy as np
import pytest
from helpers.exported import export_to, spot

from projects.line.export.threshold import choose_threshold
from projects.line.runtime import folder
from tools import infer

COST = dict(rejected=3, sound=50, rate=0.06, upper=0.148, confidence=0.95)
CURVE = [dict(threshold=t / 10, escape=0.0, false_reject=1 - t / 10) for t in range(1, 10)]


def archive(path, rejected, accepted):
    path.mkdir()
    for k in range(rejected + accepted):
        cv2.imwrite(str(path / f'{k}.png'), spot(20, 30, 255 if k < rejected else 120))
    return path


def inspect(exported, images, out, *options):
    assert infer.main([str(exported), str(images), '--out', str(out), '--overlays', 'none', *options]) == 0


def test_a_share_of_rejects_that_sound_parts_do_not_explain_is_a_warning(tmp_path, capsys):
    exported = export_to(tmp_path / 'line', cost=COST, curve=CURVE)
    inspect(exported, archive(tmp_path / 'many', 3, 2), tmp_path / 'out')
    captured = capsys.readouterr()
    assert '3 of 50 sound validation parts rejected (6.0%, at most 14.8% with 95% confidence)' in captured.out
    assert 'warning: 60% of the radiographs are rejected, more than the 10% of sound parts' in captured.err
    assert 'check depth, machine and part type' in captured.err
    inspect(exported, archive(tmp_path / 'few', 1, 12), tmp_path / 'out2')
    assert 'warning' not in capsys.readouterr().err


def test_another_threshold_costs_what_the_curve_says(tmp_path, capsys):
    exported = export_to(tmp_path / 'line', cost=COST, curve=CURVE)
    inspect(exported, archive(tmp_path / 'few', 0, 9), tmp_path / 'out', '--threshold', '0.65')
    captured = capsys.readouterr()
    assert 'the threshold costs: at most 40.0% of the sound validation parts rejected' in captured.out
    assert 'warning: the threshold rejects more than 10% of the sound validation parts' in captured.err


def test_a_cost_that_is_not_known_is_said(tmp_path, capsys):
    exported = export_to(tmp_path / 'line')
    inspect(exported, archive(tmp_path / 'few', 0, 9), tmp_path / 'out')
    assert 'what the threshold costs is not known' in capsys.readouterr().out
    assert 'not known' in folder.read(exported).cost_in_words()


def test_a_folder_without_a_gray_level_band_says_that_it_refuses_no_frame(tmp_path, capsys):
    """Fewer than ten validation radiographs set none: a closed shutter passes, which nobody was told."""
    images = archive(tmp_path / 'few', 0, 3)
    inspect(export_to(tmp_path / 'line'), images, tmp_path / 'out')
    assert 'no gray-level band: fewer than 10 validation radiographs' in capsys.readouterr().out
    inspect(export_to(tmp_path / 'other', gray_levels=dict(p50=[0, 255])), images, tmp_path / 'out2')
    assert 'no gray-level band' not in capsys.readouterr().out


@pytest.mark.parametrize('parts', [True, False])
def test_the_export_keeps_what_its_threshold_costs(tmp_path, parts):
    exported = folder.read(export_to(tmp_path / 'line'))
    images = [dict(id=k, width=64, height=64, **(dict(part=f'p{k}') if parts else {})) for k in range(80)]
    boxes = [
        dict(id=k, image_id=k, category_id=1, bbox=[10, 10, 20, 20], area=400, iscrowd=0) for k in range(60)
    ]
    truth = dict(
        images=images, annotations=boxes, categories=[dict(id=1, name='critical'), dict(id=2, name='minor')]
    )
    box = np.array([[10, 10, 30, 30]], np.float32)
    scores = [0.8] * 60 + [0.9] * 5 + [0.1] * 15
    found = [(box, np.array([score], np.float32), np.array([0])) for score in scores]
    choose_threshold(exported, truth, found, 0.05)
    if parts:
        assert exported.threshold == pytest.approx(0.8)
        assert (exported.cost['rejected'], exported.cost['sound'], exported.cost['rate']) == (5, 20, 0.25)
        assert exported.cost['upper'] > 0.25
        assert '5 of 20 sound validation parts rejected (25.0%' in exported.cost_in_words()
    else:
        assert exported.threshold_reason.startswith('0.5, not chosen; no proof: ')
        assert exported.cost == {}
