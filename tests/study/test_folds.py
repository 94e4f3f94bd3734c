"""Folds of a data set are measured as one test, and are a row of the study's table."""

import json
import statistics

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster
from helpers.drawn_runs import draw_run, draw_truth

from projects.measures.matching import match_all
from projects.measures.ranking import froc
from projects.report.predictions import read_predictions
from projects.study import results
from projects.study.folds import measure, pool_folds
from projects.study.plan import StudyError

STEM = 'faster-rcnn_lite0-in1k-pre_fpn_1xb8-6e_welds-{}'
PARTS = (3, 20, 8)
SKILL = (0.9, 0.3, 0.6)


@pytest.fixture
def folds(tmp_path):
    """Three tested folds of different size and skill under tmp_path/study; returns their records."""
    runs = {}
    for fold, (parts, skill) in enumerate(zip(PARTS, SKILL)):
        stem, root = STEM.format(fold), tmp_path / f'data{fold}'
        folder = f'{stem}/seed0-frac100'
        truth = draw_truth(root, parts, seed=10 + fold, name=f'f{fold}')
        written = draw_run(root, tmp_path / 'study' / folder, truth, skill=skill, seed=fold, stem=stem)
        tested = json.loads((written / 'test.json').read_text())
        runs[folder] = dict(
            status='tested',
            config=f'configs/cpu/{stem}.py',
            seed=0,
            fraction=100,
            metrics=tested['metrics'],
            commit=f'abcdef{fold}123',
            date=f'2026-01-0{fold + 1}',
            config_sha256=f'{fold}' * 64,
            tested_on={f'data/welds/{fold}/test.json': f'{fold}' * 64},
        )
    return runs


def coco_ap50(predictions):
    """AP50 by faster-coco-eval over the images of all folds, the mean over the classes."""
    images, annotations, detections = [], [], []
    for fold, case in enumerate(predictions):
        content = json.loads(case.read_text())
        for kind, into in (('images', images), ('annotations', annotations)):
            into += [dict(item) for item in content['truth'][kind]]
        detections += [
            dict(found, image_id=found['image_id'] + 1000 * fold) for found in content['detections']
        ]
        for item in images[-len(content['truth']['images']) :]:
            item['id'] += 1000 * fold
        for item in annotations[len(annotations) - len(content['truth']['annotations']) :]:
            item.update(
                id=len(annotations) + item['id'] + 10000 * fold, image_id=item['image_id'] + 1000 * fold
            )
        categories = content['truth']['categories']
    coco = COCO(dict(images=images, annotations=annotations, categories=categories))
    evaluation = COCOeval_faster(coco, coco.loadRes(detections), 'bbox')
    evaluation.params.iouThrs = np.array([0.5])
    evaluation.params.maxDets = [100]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval['precision'][0, :, :, 0, -1]
    return float(np.mean([column.mean() for column in precision.T]))


def test_boxes_of_all_folds_are_ranked_together(folds, tmp_path):
    root = tmp_path / 'study'
    ((arm, pooled),) = pool_folds(root, folds, {}).items()
    assert arm == 'faster-rcnn_lite0-in1k-pre_fpn_1xb8-6e_welds/seed0-frac100'
    expected = coco_ap50([root / folder / 'predictions.json' for folder in folds])
    assert pooled['metrics']['xray/AP50'] == pytest.approx(expected, abs=1e-9)
    mean = statistics.mean(run['metrics']['xray/AP50'] for run in folds.values())
    assert abs(pooled['metrics']['xray/AP50'] - mean) > 0.05
    inspected = [image for folder in folds for image in read_predictions(root / folder).inspected]
    curve = froc(match_all(inspected))
    assert pooled['metrics']['xray/recall_critical_at_0.5'] == curve.recall_at[0.5]


def test_all_folds_together_are_a_row_that_names_every_commit(folds, tmp_path):
    pooled = pool_folds(tmp_path / 'study', folds, {})
    header, rows = results.table_of(dict(runs=folds, pooled=pooled))
    rows = {row['data']: row for row in (dict(zip(header, row)) for row in rows)}
    assert sorted(rows) == ['welds', 'welds-0', 'welds-1', 'welds-2']
    row = rows['welds']
    (metrics,) = (record['metrics'] for record in pooled.values())
    assert row['AP50'] == f'{metrics["xray/AP50"]:.3f}'
    assert row['AP'] == '–' and row['arm'] == 'in1k' and row['recipe'] == 'fpn_1xb8-6e'
    assert row['commit'] == 'abcdef0, abcdef1, abcdef2'


def test_a_fold_that_lacks_makes_no_row(folds, tmp_path):
    del folds[f'{STEM.format(1)}/seed0-frac100']
    assert pool_folds(tmp_path / 'study', folds, {}) == {}


def test_what_was_pooled_elsewhere_stays_until_a_fold_is_tested_again(folds, tmp_path):
    pooled = pool_folds(tmp_path / 'study', folds, {})
    elsewhere = tmp_path / 'clone'
    assert pool_folds(elsewhere, folds, pooled) == pooled
    folds[f'{STEM.format(1)}/seed0-frac100']['date'] = '2026-02-01'
    assert pool_folds(elsewhere, folds, pooled) == {}


def test_folds_that_share_an_image_or_differ_in_classes_are_refused(folds, tmp_path):
    read = [read_predictions(tmp_path / 'study' / folder) for folder in folds]
    with pytest.raises(StudyError, match=r'f0000_v0\.png is tested in two folds'):
        measure([read[0], read[1], read[0]])
    read[1].classes = ['defect']
    with pytest.raises(StudyError, match='folds of different classes'):
        measure(read)
