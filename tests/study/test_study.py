"""Studies: the plan, shares of the labels, records and README, and a study killed in the middle."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.detector import DETECTOR, save_model
from helpers.drawn_runs import draw_run, draw_truth
from mmengine.config import Config
from snakemake_executor_plugin_slurm.submit_string import get_submit_command
from snakemake_executor_plugin_slurm.utils import set_gres_string

from projects.report.results import trained_and_tested
from projects.runs import digests as xray_digests
from projects.runs.running import read_experiment
from projects.study import launch, results, schedule, state, step
from projects.study.plan import StudyError, choose_lr, read_study, stretched
from projects.study.step import StepError
from projects.study.subset import draw_subset
from tools.study import main

PRETRAIN = """
model = dict(type='SimSiam', backbone=dict(type='ResNet'))
train_cfg = dict(max_epochs=20)
train_dataloader = dict(batch_size=4, dataset=dict(data_root='data', data_prefix=dict(img_path='unlabeled')))
"""
ARM = """
model = dict(type='FasterRCNN', backbone=dict(type='ResNet', init_cfg={init}))
train_cfg = dict(max_epochs=6, val_interval=2)
val_dataloader = dict(batch_size=1, dataset=dict(data_root='data', ann_file='val.json'))
test_dataloader = dict(batch_size=1, dataset=dict(data_root='data', ann_file='test.json'))
param_scheduler = [
    dict(type='LinearLR', by_epoch=False, begin=0, end=40),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=6, T_max=6),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=6, milestones=[4, 5]),
]
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.02))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
train_dataloader = dict(batch_size=4, dataset=dict(data_root='data', ann_file='train.json'))
"""
DISTILLED = "model.update(type='XrayDistill', teacher=dict(), teacher_ckpt='work_dirs/scratch/epoch_6.pth')\n"
WEIGHTS = "dict(type='Pretrained', checkpoint='work_dirs/simsiam_a/epoch_20.pth')"


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Factory of a study file with two arms, one of which starts from pretrained weights."""
    monkeypatch.chdir(tmp_path)
    for name, text in (
        ('simsiam/simsiam_a', PRETRAIN),
        ('small/scratch', ARM.format(init=None)),
        ('small/pretrained', ARM.format(init=WEIGHTS)),
        ('small/neither', ARM.format(init=None).replace('backbone', 'architecture')),
        ('small/whole', ARM.format(init=None) + "load_from = 'work_dirs/scratch/epoch_6.pth'\n"),
        ('small/unfinished', 'train_cfg = dict(max_epochs=1)\n'),
        ('small/distilled', ARM.format(init=None).replace('backbone', 'architecture') + DISTILLED),
    ):
        path = tmp_path / 'configs' / f'{name}.py'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def make(text='', arms=('scratch', 'pretrained'), arm=''):
        lines = ''.join(f'  - {{config: configs/small/{name}.py{arm}}}\n' for name in arms)
        file = tmp_path / 'trial.yaml'
        file.write_text(f'{text}\narms:\n{lines}')
        return file

    return make


def trains(planned):
    return [job for job in planned.jobs if job.kind == 'train']


def test_arms_seeds_and_shares_multiply_and_share_their_pretraining(study):
    planned = read_study(study('seeds: [0, 1]\nfractions: [10, 100]'))
    folders = [job.folder for job in trains(planned)]
    assert len(set(folders)) == len(folders) == 1 + 2 * 2 * 2
    assert folders.count('simsiam_a/seed0-frac100') == 1
    assert 'pretrained/seed1-frac10' in folders and 'scratch/seed0-frac100' in folders
    seen = set()
    for job in planned.jobs:  # an order in which they could run
        assert set(job.needs) <= seen
        seen.add(job.name)
    tuned = planned.job('train_pretrained_seed1_frac10')
    assert tuned.needs == ['train_simsiam_a_seed0_frac100']
    assert planned.job('test_pretrained_seed1_frac10').needs == [tuned.name]
    assert planned.job('train_scratch_seed1_frac10').needs == []


def test_pretraining_has_seeds_of_its_own(study):
    planned = read_study(study('seeds: [5, 6, 7]\npretrain_seeds: [0, 1]'))
    starts = [job.pretraining for job in trains(planned) if job.folder.startswith('pretrained')]
    assert starts == [f'simsiam_a/seed{k}-frac100' for k in (0, 1, 0)]


def test_an_arm_may_name_its_pretrainings(study):
    file = study('seeds: [5, 6]\npretrain_seeds: [0, 1]', arms=['scratch'])
    with file.open('a') as stream:
        stream.write('  - {config: configs/small/pretrained.py, pretrain_seeds: [1]}\n')
    starts = [job.pretraining for job in trains(read_study(file)) if job.folder.startswith('pretrained')]
    assert starts == ['simsiam_a/seed1-frac100'] * 2


@pytest.mark.parametrize('changed', ['pretrain_seeds: [1]', 'lr_factors: [0.5, 1]'])
@pytest.mark.parametrize('order', [1, -1])
def test_an_arm_does_not_start_from_a_run_that_another_arm_has_changed(study, changed, order):
    file = study()
    chained = ARM.format(init=None) + "load_from = 'work_dirs/pretrained/epoch_6.pth'\n"
    Path('configs/small/chained.py').write_text(chained)
    arms = [f'{{config: configs/small/pretrained.py, {changed}}}', '{config: configs/small/chained.py}']
    file.write_text('arms:\n' + ''.join(f'  - {arm}\n' for arm in arms[::order]))
    with pytest.raises(StudyError, match='pretrained/seed0-frac100 is asked for twice'):
        read_study(file)


def test_a_longer_pretraining_is_another_run_beside_the_usual_one(study):
    file = study(arms=['pretrained'])
    with file.open('a') as stream:
        stream.write('  - {config: configs/small/pretrained.py, pretrain_epochs_factor: 5}\n')
    usual, longer = [job for job in trains(read_study(file)) if job.folder.startswith('pretrained')]
    assert (usual.folder, usual.pretraining) == ('pretrained/seed0-frac100', 'simsiam_a/seed0-frac100')
    assert longer.folder == 'pretrained/seed0-frac100-pretrained-x5'
    assert longer.pretraining == 'simsiam_a/seed0-frac100-x5' and longer.options == usual.options
    starts = {job.folder: job for job in trains(read_study(file)) if job.folder.startswith('simsiam_a')}
    before, after = (starts[job.pretraining] for job in (usual, longer))
    assert before.options == [] and after.epochs == 5 * before.epochs
    assert f'train_cfg.max_epochs={after.epochs}' in after.options


def test_a_fixed_learning_rate_is_another_run_beside_the_usual_one(study):
    file = study(arms=['scratch'])
    with file.open('a') as stream:
        stream.write('  - {config: configs/small/scratch.py, lr_factors: [0.2]}\n')
    usual, slower = trains(read_study(file))
    assert (usual.folder, slower.folder) == ('scratch/seed0-frac100', 'scratch/seed0-frac100-lr0.2')
    assert slower.options == [*usual.options, 'optim_wrapper.optimizer.lr=0.004'] and not slower.trials


def test_learning_rates_are_tried_alike_for_every_arm_and_share(study):
    planned = read_study(study('seeds: [3, 4]\nlr_factors: [0.5, 1, 2]\nfractions: [50, 100]'))
    for arm in ('scratch', 'pretrained'):
        for fraction in (50, 100):
            final = planned.job(f'train_{arm}_seed4_frac{fraction}')
            assert list(final.trials) == ['0.5', '1', '2']
            rates = []
            for folder in final.trials.values():
                (trial,) = [job for job in trains(planned) if job.folder == folder]
                assert trial.seed == 3 and trial.epochs == final.epochs and trial.name in final.needs
                rates += [option for option in trial.options if 'optimizer.lr' in option]
            assert rates == [f'optim_wrapper.optimizer.lr={rate}' for rate in (0.01, 0.02, 0.04)]


def test_the_best_rate_on_val_is_chosen_and_of_equal_ones_the_nearest_to_the_recipe():
    assert choose_lr({'0.5': [0.1, 0.2], '1': [0.5, 0.1], '2': [0.3]}) == '2'
    assert choose_lr({'0.5': [0.3], '1': [0.3], '2': [0.3]}) == '1'
    with pytest.raises(StudyError, match='lr factor 2 has no value on val'):
        choose_lr({'1': [0.3], '2': []})


def test_fewer_labels_get_as_many_updates_and_the_whole_schedule(study):
    (job, _) = read_study(study('fractions: [10]', arms=['scratch'], arm=', epochs_factor: 3')).jobs
    assert job.folder == 'scratch/seed0-frac10-x3'
    config = Config.fromfile('configs/small/scratch.py')
    for option in job.options:
        key, value = option.split('=')
        config.merge_from_dict({key: json.loads(value)})
    assert config.train_cfg == dict(max_epochs=180, val_interval=60) and job.epochs == 180
    assert config.default_hooks.checkpoint.interval == 30
    warm_up, cosine, steps = config.param_scheduler
    assert warm_up.end == 40  # iterations
    assert (cosine.begin, cosine.end, cosine.T_max) == (0, 180, 180)
    assert (steps.end, list(steps.milestones)) == (180, [120, 150])
    (job, _) = read_study(study('fractions: [10]\nupdates: epochs', arms=['scratch'])).jobs
    assert job.epochs == 6 and job.options == []
    assert stretched(config, 1) == []


def parts_coco(parts=40, views=3, free=10):
    images, annotations = [], []
    for part in range(parts):
        for view in range(views):
            image = dict(
                id=len(images) + 1, file_name=f'p{part}_{view}.png', part=f'p{part}', series=f's{part % 3}'
            )
            images.append(image)
            if part >= free:
                annotations.append(dict(id=image['id'], image_id=image['id'], category_id=1))
    return dict(images=images, annotations=annotations, categories=[])


@pytest.mark.parametrize(('by', 'shares'), [('part', (1, 5, 10, 25, 50, 100)), ('frame', (10, 25, 50, 100))])
def test_smaller_shares_lie_within_larger_ones(by, shares):
    coco = parts_coco()
    drawn = [draw_subset(coco, share, by) for share in shares]
    names = [{image['id'] for image in subset['images']} for subset in drawn]
    for small, large in zip(names, names[1:]):
        assert small < large
    assert drawn[-1] == coco
    for subset, ids in zip(drawn, names):
        assert {ann['image_id'] for ann in subset['annotations']} == {i for i in ids if i > 30}
    assert draw_subset(coco, shares[0], by) == drawn[0]


def test_a_share_by_part_keeps_all_views_and_the_share_of_defect_free_parts():
    subset = draw_subset(parts_coco(), 10, 'part')
    parts = [image['part'] for image in subset['images']]
    assert len(set(parts)) == 1 + 3 and all(parts.count(part) == 3 for part in parts)  # of 10 and of 30
    assert sum(int(part[1:]) < 10 for part in set(parts)) == 1


def test_a_share_by_frame_takes_from_every_series():
    subset = draw_subset(parts_coco(), 10, 'frame')
    taken = [image['series'] for image in subset['images']]
    assert {series: taken.count(series) for series in taken} == {
        's0': 5,
        's1': 4,
        's2': 4,
    }  # 10 % of 42, 39, 39


def test_shares_are_refused_without_part_ids():
    coco = parts_coco()
    del coco['images'][7]['part']
    with pytest.raises(StudyError, match='1 images have no `part`, such as p2_1.png'):
        draw_subset(coco, 10)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('fraction: [10]', "unknown key 'fraction'"),
        ('fractions: [0]', 'expected 1 to 100 percent'),
        ('fractions: [5]\nsubset: frame', 'expected 10 to 100 percent with subset frame'),
        ('seeds: [0, 0]', 'expected a list of different numbers'),
        ('seeds: 3', 'expected a list of different numbers'),
        ('lr_factors: [0]', 'lr_factors [0]: expected numbers above zero'),
        ('hours: {simsiam_*: 1.0e+308}', 'expected numbers above zero by config'),
        ('seeds:\n\t- 0', 'expected YAML (found character that cannot start any token, line 2)'),
        ('updates: many', 'updates: same or epochs'),
        ('gpus: four', "gpus 'four': expected a number of GPUs"),
        ('hours: {simsiam_*: 0}', 'expected numbers above zero by config'),
        ('hours: {1: 2}', 'hours {1: 2}: expected numbers above zero by config'),
        ('hours: {simsiam_*: .inf}', 'expected numbers above zero by config'),
        ('hours: {simsiam_*: true}', 'expected numbers above zero by config'),
        ('lr_factors: [true]', 'expected a list of different numbers'),
        ('seeds: [', 'trial.yaml: expected YAML ('),
        ('seeds: [0, 1]\nseeds: [0]', "trial.yaml: expected each key once in a map, found 'seeds' twice"),
        ('seeds: [[0]]', 'seeds [[0]]: expected a list of different numbers'),
        ('pretrain_seeds: [{a: 1}]', 'expected a list of different numbers'),
        ('seeds: [-1]', 'seeds [-1]: expected numbers from zero'),
        ('lr_factors: [.inf]', 'lr_factors [inf]: expected numbers above zero, up to 1e+30'),
        ('1: 2\nfraction: [10]', "unknown key '1'"),
    ],
)
def test_a_wrong_study_is_one_line_and_exit_2(study, capsys, text, message):
    assert main([str(study(text)), '--dry-run']) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and 'trial.yaml' in line


def test_wrong_arms_are_one_line_and_exit_2(study, capsys):
    for case, message in (
        (dict(arms=['scratch', 'scratch']), 'scratch/seed0-frac100 is asked for twice'),
        (dict(arms=['absent']), 'configs/small/absent.py: no such file'),
        (dict(arm=', epoch: 3'), 'expected `config` and optionally seeds'),
        (dict(arm=', epochs_factor: 0'), 'epochs_factor 0: expected a number above zero, up to 1000'),
        (dict(arm=', pretrain_epochs_factor: 1e3'), "pretrain_epochs_factor '1e3': expected a number above"),
        (dict(arm=', epochs_factor: .inf'), 'epochs_factor inf: expected a number above zero, up to 1000'),
        (dict(arm=', epochs_factor: 1.0e+308'), 'epochs_factor 1e+308: expected a number above zero'),
        (dict(arm=', epochs_factor: true'), 'epochs_factor True: expected a number above zero'),
        (dict(arm=', seeds: [0], seeds: [1]'), "expected each key once in a map, found 'seeds' twice"),
        (dict(arm=', needs_file: [a]'), "needs_file ['a']: expected the path of a file"),
        (dict(arm=', pretrain_epochs_factor: 2'), 'scratch.py starts from no pretraining of this study'),
        (dict(arm=', pretrain_seeds: [1]'), 'no pretraining of this study; leave out its pretrain_seeds'),
        (dict(arms=['neither']), 'neither.py: expected a model with a backbone or a teacher, not '),
        (dict(arms=['unfinished']), 'unfinished.py: has no model, expected a detector'),
        (dict(arms=['../simsiam/simsiam_a']), 'simsiam_a.py: has no test_dataloader, expected a detector'),
    ):
        assert main([str(study(**case)), '--dry-run']) == 2
        assert message in capsys.readouterr().err
    file = study()
    file.write_text('arms: [{config: [a]}]')
    assert main([str(file), '--dry-run']) == 2
    assert "arm {'config': ['a']}: expected `config`" in capsys.readouterr().err
    assert main(['absent.yaml', '--dry-run']) == 2
    assert 'absent.yaml: no such study' in capsys.readouterr().err
    Path('configs/simsiam/simsiam_a.py').unlink()
    assert main([str(study()), '--dry-run']) == 2
    assert (
        'starts from work_dirs/simsiam_a/epoch_20.pth, but no config simsiam_a.py' in capsys.readouterr().err
    )


def finish(planned, name, **tested):
    """Write what a training leaves, as if it had started from what is there now; with values, tested too."""
    job = planned.job(name)
    folder = planned.root / job.folder
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / f'epoch_{job.epochs}.pth'
    checkpoint.write_bytes(os.urandom(8))
    facts, _ = step.facts_of(planned, job)
    facts |= dict(trained=True, seconds=60.0, checkpoint_sha256=xray_digests.digest(checkpoint))
    if tested:
        tested_on = xray_digests.digest_labels(
            planned.config(job.config), 'val_dataloader', 'test_dataloader'
        )
        facts |= dict(tested=True, tested_on=tested_on, test_seconds=30.0)
        result = dict(
            metrics={f'xray/{key}': value for key, value in tested.items()},
            commit='abcdef0123',
            dirty=False,
            hardware='2 x CPU',
            date='2026-01-02T03',
        )
        (folder / 'test.json').write_text(json.dumps(result))
    (folder / 'run.json').write_text(json.dumps(facts))
    return folder


def fail(planned, name, reason='out of memory', **facts):
    """Write what a training that failed leaves."""
    job = planned.job(name)
    folder = planned.root / job.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'run.json').write_text(json.dumps(step.facts_of(planned, job)[0] | facts))
    (folder / 'failed.json').write_text(json.dumps(dict(step='train', reason=reason)))
    return folder


def is_done(file, name):
    planned = read_study(file)
    return state.is_done(planned, planned.job(name))


def test_a_dry_run_says_what_runs_and_how_long(study, capsys):
    file = study('seeds: [0, 1, 2]', arms=['scratch'])
    finish(read_study(file), 'train_scratch_seed0_frac100', AP50=0.5)
    assert main([str(file), '--dry-run', '--jobs', '2']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:7]] == ['done', 'done', 'runs', 'runs', 'runs', 'runs']
    assert lines[3].endswith('6 epochs  1 min')  # as long as the run of the other seed
    assert lines[-1] == '4 of 6 steps to run: about 3 min one by one, 2 min with 2 side by side'


def test_a_dry_run_of_a_fresh_clone_takes_the_recorded_times(study, capsys):
    file = study(arms=['scratch'])
    assert main([str(file), '--dry-run', '--jobs', '1']) == 0
    assert capsys.readouterr().out.splitlines()[-1] == '2 of 2 steps to run: time unknown'
    run = dict(config='configs/small/scratch.py', fraction=100, epochs=3, seconds=600.0, test_seconds=60.0)
    recorded = dict(runs={'scratch/seed0-frac100': dict(status='tested', **run)})
    read_study(file).results_file.write_text(json.dumps(recorded))
    assert main([str(file), '--dry-run', '--jobs', '1']) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == '2 of 2 steps to run: about 21 min one by one, 21 min with 1 side by side'


def test_a_dry_run_reckons_with_the_hours_that_a_study_states(study, capsys):
    text = "seeds: [0, 1]\nfractions: [10, 100]\ngpus: 4\nhours: {simsiam_*: 2, 'scr*': 0.5}"
    assert main([str(study(text)), '--dry-run']) == 0
    printed = capsys.readouterr().out.splitlines()[-1]
    # One pretraining of 2 hours, two shares of two seeds of one arm, which all have as many updates.
    assert printed.endswith('5 trainings of about 4:00 h one by one on 4 GPUs, 16 GPU hours')


def test_an_arm_waits_for_the_file_that_its_user_supplies(study, capsys):
    file = study(arms=['scratch'])
    with file.open('a') as stream:
        stream.write('  - {config: configs/small/whole.py, needs_file: data/theirs.pth}\n')
    assert main([str(file), '--dry-run']) == 0
    out = capsys.readouterr().out
    assert 'whole/' not in out
    assert out.endswith('left out: configs/small/whole.py: needs data/theirs.pth, which is not there\n')
    alone = Path('alone.yaml')
    alone.write_text('arms: [{config: configs/small/whole.py, needs_file: data/theirs.pth}]\n')
    assert main([str(alone), '--dry-run']) == 0
    out = capsys.readouterr().out
    assert '\nno step to run: each arm waits for its file\n' in out
    assert out.endswith('needs data/theirs.pth, which is not there\n')
    Path('data').mkdir()
    Path('data/theirs.pth').touch()
    assert main([str(file), '--dry-run']) == 0
    out = capsys.readouterr().out
    assert 'whole/seed0-frac100' in out and 'left out' not in out


def test_side_by_side_a_step_waits_for_what_it_needs_and_for_its_gpus(study):
    planned = read_study(study('seeds: [0, 1]\ngpus: 2'))
    seconds = {job.name: 100.0 if job.kind == 'train' else 10.0 for job in planned.jobs}
    assert schedule.wall_seconds(planned, seconds, 1) == sum(seconds.values()) == 540
    # The arm from scratch with its tests, and the pretraining, after which both other runs start.
    assert schedule.wall_seconds(planned, seconds, 9) == 210
    # On two cores two by two, except for the pretraining; of two GPUs each training takes both.
    assert schedule.wall_seconds(planned, seconds, 2) == 320
    assert schedule.wall_seconds(planned, seconds, 2, gpus=2) == 540


def test_a_run_of_another_config_is_not_taken_for_this_one(study, capsys):
    file = study(arms=['scratch'])
    finish(read_study(file), 'train_scratch_seed0_frac100')
    config = Path('configs/small/scratch.py')
    config.write_text(config.read_text().replace('lr=0.02', 'lr=0.04'))
    assert main([str(file)]) == 2
    assert 'scratch/seed0-frac100: was run with another config' in capsys.readouterr().err


def test_records_and_the_readme_follow_from_finished_runs(study, tmp_path, capsys):
    file = study('about: Trial\nseeds: [0, 1]')
    planned = read_study(file)
    values = {'train_scratch_seed0_frac100': 0.2, 'train_scratch_seed1_frac100': 0.4}
    for name, value in values.items():
        finish(planned, name, AP50=value, AP=None, AP50_critical=value / 2)
    fail(planned, 'train_simsiam_a_seed0_frac100')
    results.record(planned)
    text = (tmp_path / 'trial.results.json').read_text()
    assert str(tmp_path) not in text
    runs = json.loads(text)['runs']
    assert {name: run['status'] for name, run in runs.items()} == {
        'pretrained/seed0-frac100': 'not run',
        'pretrained/seed1-frac100': 'not run',
        'scratch/seed0-frac100': 'tested',
        'scratch/seed1-frac100': 'tested',
        'simsiam_a/seed0-frac100': 'failed',
    }
    readme = tmp_path / 'README.md'
    readme.write_text(f'# Title\n{results.BEGIN}\nold\n{results.END}\nend\n')
    assert main([str(file), '--readme', str(readme)]) == 0
    written = readme.read_text()
    assert written.startswith('# Title\n') and written.endswith('\nend\n') and 'old' not in written
    (row,) = [line for line in written.splitlines() if line.startswith('|') and 'scratch' in line]
    assert '0, 1' in row and '0.300 ± 0.141' in row and '0.150 ± 0.071' in row and 'abcdef0' in row
    assert 'standard deviation over the seeds of the fine-tuning' in written
    assert 'failed: simsiam_a/seed0-frac100; not run: pretrained/seed0-frac100 (needs simsiam_a' in written
    assert 'a commit: ' not in written
    assert main([str(file), '--readme', str(readme)]) == 0
    assert readme.read_text() == written
    changed = json.loads(text)
    changed['runs']['scratch/seed1-frac100']['dirty'] = True
    (tmp_path / 'trial.results.json').write_text(json.dumps(changed))
    assert main([str(file), '--readme', str(readme)]) == 0
    assert 'abcdef0+ |' in readme.read_text() and 'a commit: the code had changes' in readme.read_text()
    (tmp_path / 'trial.results.json').write_text(text)
    # What was recorded elsewhere stays.
    for path in (planned.root / 'scratch').rglob('test.json'):
        path.unlink()
    results.record(planned)
    assert json.loads((tmp_path / 'trial.results.json').read_text())['runs'] == runs
    unrecorded = tmp_path / 'other.yaml'
    assert main([str(file), str(unrecorded), '--readme', str(readme)]) == 0
    assert readme.read_text() == written
    assert main([str(unrecorded), '--readme', str(readme)]) == 2
    assert 'other.yaml: no results.json beside any of them' in capsys.readouterr().err
    readme.write_text('no marks')
    assert main([str(file), '--readme', str(readme)]) == 2
    assert 'expected one line <!-- results of studies: begin -->' in capsys.readouterr().err


def test_what_waits_for_a_failed_run_is_named_and_forgotten_once_it_can_run(study, capsys):
    planned = read_study(study())
    failed = fail(planned, 'train_simsiam_a_seed0_frac100')
    recorded = results.record(planned)
    assert recorded['pretrained/seed0-frac100']['reason'] == 'needs simsiam_a/seed0-frac100, which failed'
    assert launch.print_failures(planned, recorded)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith('failed: simsiam_a/seed0-frac100: out of memory; log in ')
    assert lines[1:] == ['not run: pretrained/seed0-frac100: needs simsiam_a/seed0-frac100, which failed']
    (failed / 'failed.json').unlink()
    finish(planned, 'train_simsiam_a_seed0_frac100')
    recorded = results.record(planned)
    assert {name: run['status'] for name, run in recorded.items()} == {'simsiam_a/seed0-frac100': 'trained'}
    assert not launch.print_failures(planned, recorded)


def test_a_row_of_the_table_is_one_recipe_and_says_how_many_pretrainings():
    probe = 'r-simsiam-pre_{}-linear_synthetic-{}'
    runs = {
        f'{name}/seed{seed}': dict(
            status='tested',
            config=f'configs/small/{name}.py',
            seed=seed,
            fraction=10,
            pretraining=f'simsiam/seed{seed}-frac100',
            metrics={'xray/mAP': 0.25},
            commit='abcdef0123',
        )
        for name in (
            probe.format('1xb4', '96px'),
            probe.format('1xb8', '96px'),
            probe.format('1xb4', '128px'),
        )
        for seed in (0, 1)
    }
    header, rows = results.table_of(dict(runs=runs))
    rows = [dict(zip(header, row)) for row in rows]
    assert [row['recipe'] for row in rows] == ['1xb4-linear, 128px', '1xb4-linear, 96px', '1xb8-linear, 96px']
    assert all(row['seeds'] == '0, 1' and row['pretrainings'] == '2' for row in rows)
    name = f'{probe.format("1xb4", "96px")}/seed0'
    for factors, arm in (
        (dict(epochs_factor=3), 'simsiam, 3× epochs'),
        (dict(pretrain_epochs_factor=5), 'simsiam, pretrained 5× as long'),
        (dict(epochs_factor=0.5, pretrain_epochs_factor=2), 'simsiam, 0.5× epochs, pretrained 2× as long'),
        (dict(lr_factor=0.2), 'simsiam, 0.2× learning rate'),
    ):
        varied = runs | {f'{name}-other': runs[name] | factors}
        header, rows = results.table_of(dict(runs=varied))
        rows = [dict(zip(header, row)) for row in rows]
        assert {row['arm']: row['seeds'] for row in rows if row['recipe'] == '1xb4-linear, 96px'} == {
            'simsiam': '0, 1',
            arm: '0',
        }
    # Where every arm has its own rate chosen on val, the rate is no other arm.
    varied = {name: run | dict(lr_factor=2, lr_on_val={'1': 0.1, '2': 0.2}) for name, run in runs.items()}
    assert {row['arm'] for row in rows_of(varied)} == {'simsiam'}


def record_two_seeds(study, values):
    """Record a study of one arm, and lose its runs, as in a fresh clone; returns the study file."""
    file = study('seeds: [0, 1]', arms=['scratch'])
    planned = read_study(file)
    for seed, value in enumerate(values):
        finish(planned, f'train_scratch_seed{seed}_frac100', AP50=value)
    results.record(planned)
    shutil.rmtree('work_dirs')
    return file


def rows_of(recorded):
    header, rows = results.table_of(dict(runs=recorded))
    return [dict(zip(header, row)) for row in rows]


def test_what_was_recorded_of_an_edited_config_is_dropped(study):
    file = record_two_seeds(study, (0.2, 0.4))
    assert len(results.record(read_study(file))) == 2  # as long as the config is the same
    config = Path('configs/small/scratch.py')
    config.write_text(config.read_text().replace('lr=0.02', 'lr=0.2'))
    planned = read_study(file)
    finish(planned, 'train_scratch_seed0_frac100', AP50=0.9)
    recorded = results.record(planned)
    assert list(recorded) == ['scratch/seed0-frac100']
    assert [row['AP50'] for row in rows_of(recorded)] == ['0.900']


def test_runs_of_two_configs_are_no_row_of_the_table(study):
    file = record_two_seeds(study, (0.2, 0.4))
    recorded = json.loads(read_study(file).results_file.read_text())['runs']
    assert [row['AP50'] for row in rows_of(recorded)] == ['0.300 ± 0.141']  # seeds are of one config
    config = Path('configs/small/scratch.py')
    config.write_text(config.read_text().replace('lr=0.02', 'lr=0.2'))
    planned = read_study(study('seeds: [0]', arms=['scratch']))  # seed 1 is asked for no more, and stays
    finish(planned, 'train_scratch_seed0_frac100', AP50=0.9)
    recorded = results.record(planned)
    rows = rows_of(recorded)
    assert {(row['seeds'], row['AP50']) for row in rows} == {('0', '0.900'), ('1', '0.400')}
    assert len({row['recipe'] for row in rows}) == 2 and all('config ' in row['recipe'] for row in rows)
    # Of runs recorded without a digest nobody knows.
    del recorded['scratch/seed1-frac100']['config_sha256']
    assert [row['seeds'] for row in rows_of(recorded)] == ['0, 1']


@pytest.mark.parametrize(('changed', 'words'), [('train', 'trained on'), ('test', 'tested on')])
def test_seeds_on_other_data_are_no_row_of_the_table(study, evaluated, changed, words):
    planned = read_study(study('seeds: [0, 1]', arms=['scratch']))
    finish(planned, 'train_scratch_seed0_frac100', AP50=0.2)
    results.record(planned)
    shutil.rmtree('work_dirs')  # on another machine, whose data were converted again
    labels = Path(f'data/{changed}.json')
    labels.write_text('{"info": {}}')
    finish(planned, 'train_scratch_seed1_frac100', AP50=0.4)
    recorded = results.record(planned)
    rows = {row['seeds']: row for row in rows_of(recorded)}
    assert {seeds: row['AP50'] for seeds, row in rows.items()} == {'0': '0.200', '1': '0.400'}
    assert len({row['recipe'] for row in rows.values()}) == 2
    assert all(f'{words} ' in row['recipe'] for row in rows.values())
    if changed == 'train':
        assert f'trained on {xray_digests.digest(labels)[:7]}' in rows['1']['recipe']
    # What was recorded without is as good as any.
    del recorded['scratch/seed0-frac100']['labels_sha256' if changed == 'train' else 'tested_on']
    assert [row['seeds'] for row in rows_of(recorded)] == ['0, 1']


def test_seeds_whose_pretrainings_saw_other_images_are_no_row_of_the_table(study):
    config = Path('configs/simsiam/simsiam_a.py')
    config.write_text(config.read_text().replace('data_root=', "ann_file='list.txt', data_root="))
    Path('data').mkdir()
    planned = read_study(study('seeds: [0, 1]\npretrain_seeds: [0, 1]', arms=['pretrained']))
    for seed in (0, 1):
        Path('data/list.txt').write_text('a.png\n' * (1 + seed))
        finish(planned, f'train_simsiam_a_seed{seed}_frac100')
        finish(planned, f'train_pretrained_seed{seed}_frac100', AP50=0.5)
    rows = rows_of(results.record(planned))
    assert sorted(row['seeds'] for row in rows) == ['0', '1']
    assert all('pretrained on ' in row['recipe'] for row in rows)


def test_code_and_machine_of_a_training_are_recorded_and_shown_where_the_test_had_others(study, tmp_path):
    file = study('seeds: [0, 1]', arms=['pretrained'])
    planned = read_study(file)
    start = dict(commit='fedcba9876', dirty=True, hardware='1 x H100', gpus=1, seed=0, date='2026-01-01T00')
    note = json.dumps(dict(starts=[start | dict(labels_sha256={'data/train.json': 'c0ffee'})]))
    (finish(planned, PRETRAINING) / 'starts.json').write_text(note)
    for seed in (0, 1):
        folder = finish(planned, f'train_pretrained_seed{seed}_frac100', AP50=0.5)
    (folder / 'starts.json').write_text(note)
    recorded = results.record(planned)
    assert recorded['simsiam_a/seed0-frac100']['starts'] == [start]
    assert recorded['pretrained/seed1-frac100']['starts'] == [start]
    assert 'starts' not in recorded['pretrained/seed0-frac100']  # begun before they were noted
    (row,) = rows_of(recorded)
    assert row['commit'] == 'abcdef0, fedcba9+ (tested: abcdef0)'
    readme = tmp_path / 'README.md'
    readme.write_text(f'{results.BEGIN}\n{results.END}\n')
    assert main([str(file), '--readme', str(readme)]) == 0
    assert '; 1 x H100, 2 x CPU; ' in readme.read_text()


def test_commits_of_a_training_are_named_start_by_start():
    assert trained_and_tested(['a', 'a'], 'a') == 'a'
    assert trained_and_tested([], 'a') == 'a'
    assert trained_and_tested(['a', 'b'], 'b') == 'a then b (tested: b)'
    assert trained_and_tested(['unknown', 'b'], '') == 'unknown then b'


def test_the_tables_of_the_results_are_those_of_the_recorded_studies(repo, tmp_path, monkeypatch):
    # As committed: a study that runs in this checkout, `make demo` too, writes to these files.
    archive = subprocess.run(
        ['git', '-C', repo, 'archive', 'HEAD', 'docs/results.md', 'configs/study'],
        check=True,
        capture_output=True,
    )
    subprocess.run(['tar', '-x', '-C', tmp_path], check=True, input=archive.stdout)
    committed = (tmp_path / 'docs/results.md').read_text()
    monkeypatch.chdir(tmp_path)
    files = sorted(map(str, Path('configs', 'study').glob('*.yaml')))
    assert main([*files, '--readme']) == 0
    assert (tmp_path / 'docs/results.md').read_text() == committed


def test_a_config_edited_while_its_study_runs_parts_the_seeds(study):
    file = study('seeds: [0, 1]', arms=['scratch'])
    config = Path('configs/small/scratch.py')
    for seed, lr in enumerate(('lr=0.02', 'lr=0.2')):
        config.write_text(config.read_text().replace('lr=0.02', lr))
        planned = read_study(file)
        finish(planned, f'train_scratch_seed{seed}_frac100', AP50=0.5)
    assert sorted(row['seeds'] for row in rows_of(results.record(planned))) == ['0', '1']


def test_a_whole_detector_is_a_pretraining_too(study):
    planned = read_study(study('seeds: [0]', arms=['whole']))
    pretraining, training = trains(planned)
    assert (training.needs, training.pretraining) == ([pretraining.name], 'scratch/seed0-frac100')
    finish(planned, pretraining.name)
    facts, _ = step.facts_of(planned, training)
    start = (planned.root / pretraining.folder / 'epoch_6.pth').resolve()
    assert f'load_from={start}' in facts['options']
    assert not [option for option in facts['options'] if 'init_cfg' in option]


@pytest.mark.parametrize('arms', [['scratch', 'distilled'], ['distilled', 'scratch']])
def test_a_teacher_is_trained_once_and_may_be_an_arm(study, arms):
    planned = read_study(study('seeds: [0]', arms=arms))
    teacher, student = sorted(trains(planned), key=lambda job: job.folder, reverse=True)
    assert (teacher.folder, student.folder) == ('scratch/seed0-frac100', 'distilled/seed0-frac100')
    assert (student.needs, student.pretraining) == ([teacher.name], teacher.folder)
    finish(planned, teacher.name)
    facts, _ = step.facts_of(planned, student)
    start = (planned.root / teacher.folder / 'epoch_6.pth').resolve()
    assert [option for option in facts['options'] if 'epoch_6' in option] == [f'model.teacher_ckpt={start}']


def test_a_pretraining_may_be_an_arm_too_before_or_after_what_starts_from_it(study):
    for arms in (['whole', 'scratch'], ['scratch', 'whole']):
        planned = read_study(study('seeds: [0]', arms=arms))
        assert sorted(job.name for job in planned.jobs) == [
            f'{kind}_{stem}_seed0_frac100' for kind in ('test', 'train') for stem in ('scratch', 'whole')
        ]


def test_what_learns_from_drawn_flaws_alone_is_a_row_without_labels(study):
    drawn = 'drawn_lite0_fpn_1xb4-6e_castings-b-160px'
    Path('configs/small').mkdir(parents=True, exist_ok=True)
    Path(f'configs/small/{drawn}.py').write_text(ARM.format(init=None))
    planned = read_study(study('seeds: [0]', arms=[drawn]))
    finish(planned, f'train_{drawn.replace("-", "_")}_seed0_frac100', AP50=0.5)
    (row,) = rows_of(results.record(planned))
    assert (row['data'], row['labels'], row['arm']) == ('gdxray-b', '0 %', 'drawn-castings alone')


def test_seeds_with_different_pretrainings_are_a_row_but_not_with_another_recipe_of_pretraining(study):
    file = study('seeds: [0, 1]\npretrain_seeds: [0, 1]', arms=['pretrained'])

    def digests():
        planned = read_study(file)
        return {
            state.fingerprint(planned, job, seeds=False)
            for job in trains(planned)
            if job.folder.startswith('pretrained')
        }

    before = digests()
    config = Path('configs/simsiam/simsiam_a.py')
    config.write_text(config.read_text().replace("type='SimSiam'", "type='SimSiam', temperature=2"))
    assert len(before) == len(digests()) == 1 and before != digests()


def test_a_module_more_to_import_or_a_variable_more_is_no_other_training(study):
    file = study('seeds: [0]', arms=['scratch'])

    def digest():
        planned = read_study(file)
        return state.fingerprint(planned, trains(planned)[0])

    before, config = digest(), Path('configs/small/scratch.py')
    config.write_text(config.read_text() + "custom_imports = dict(imports=['json'])\nxray_extra = 1\n")
    assert digest() == before
    config.write_text(config.read_text() + 'extra = 1\n')
    assert digest() != before


# ------------------------------------------------------------------------------------- what counts as done

PRETRAINING, ARM_TRAIN, ARM_TEST = (
    'train_simsiam_a_seed0_frac100',
    'train_pretrained_seed0_frac100',
    'test_pretrained_seed0_frac100',
)


def finish_all(file):
    planned = read_study(file)
    finish(planned, PRETRAINING)
    finish(planned, ARM_TRAIN, AP50=0.5)
    assert is_done(file, ARM_TEST)


def test_a_changed_pretraining_makes_what_started_from_it_stale(study):
    file = study(arms=['pretrained'])
    finish_all(file)
    config = Path('configs/simsiam/simsiam_a.py')
    config.write_text(config.read_text().replace("type='SimSiam'", "type='SimSiam', temperature=2"))
    with pytest.raises(StudyError, match='simsiam_a/seed0-frac100: .*another config'):
        is_done(file, ARM_TEST)
    finish(read_study(file), PRETRAINING)  # deleted and done again
    with pytest.raises(StudyError, match='pretrained/seed0-frac100: .*another config'):
        is_done(file, ARM_TEST)


def test_a_pretraining_done_again_has_what_started_from_it_done_again(study):
    file = study(arms=['pretrained'])
    finish_all(file)
    planned = read_study(file)
    (planned.root / 'simsiam_a/seed0-frac100/run.json').unlink()
    (planned.root / 'simsiam_a/seed0-frac100/epoch_20.pth').unlink()
    assert not is_done(file, PRETRAINING) and not is_done(file, ARM_TRAIN)
    finish(planned, PRETRAINING)  # same fingerprint, other weights
    assert is_done(file, PRETRAINING) and not is_done(file, ARM_TRAIN) and not is_done(file, ARM_TEST)
    finish(planned, ARM_TRAIN, AP50=0.5)
    assert is_done(file, ARM_TEST)
    # Room on the disk may be made once all is done.
    (planned.root / 'simsiam_a/seed0-frac100/epoch_20.pth').unlink()
    assert is_done(file, ARM_TEST)


@pytest.mark.parametrize(
    ('label_file', 'job'), [('data/train.json', 'pretrained'), ('data/list.txt', 'simsiam_a')]
)
def test_other_labels_or_another_list_of_images_make_a_run_stale(study, label_file, job):
    config = Path('configs/simsiam/simsiam_a.py')
    config.write_text(config.read_text().replace('data_root=', "ann_file='list.txt', data_root="))
    Path('data').mkdir()
    Path('data/train.json').write_text(json.dumps(parts_coco()))
    Path('data/list.txt').write_text('a.png')
    file = study(arms=['pretrained'])
    finish_all(file)
    text = Path(label_file).read_text()
    Path(label_file).write_text(text + '\n')
    with pytest.raises(StudyError, match=f'{job}/seed0-frac100: learnt from another {label_file}'):
        is_done(file, ARM_TEST)
    Path(label_file).unlink()  # nothing to compare with
    assert is_done(file, ARM_TEST)


EVALUATED = """
test_dataloader = dict(dataset=dict(data_root='data', ann_file='test.json'))
val_evaluator = dict(type='XrayDefectMetric')
test_evaluator = [dict(type='XrayDefectMetric')]
"""


@pytest.fixture
def evaluated(study):
    """Config of one arm with train, val and test sets, whose files are there."""
    config = Path('configs/small/scratch.py')
    config.write_text(config.read_text() + EVALUATED)
    Path('data').mkdir()
    for name in ('train', 'val', 'test'):
        Path(f'data/{name}.json').write_text('{}')
    Path('data/severity.yaml').write_text('crack: critical')
    return config


def finish_tested(file):
    """Finish the arm, by its trials where it has some, and test it on what is there now."""
    planned = read_study(file)
    for job in trains(planned):
        folder = finish(planned, job.name, AP50=0.5)
        if job.trial:
            log_val(folder, 0.5)
    return xray_digests.read_json(folder / 'run.json')


@pytest.mark.parametrize(
    ('read_by', 'learnt'),
    [
        ("train_dataloader['dataset']", True),
        ("val_dataloader['dataset']", False),
        ('val_evaluator', False),
        ('test_evaluator[0]', False),
    ],
)
def test_another_severity_map_in_its_file_makes_a_run_stale(study, evaluated, read_by, learnt):
    evaluated.write_text(f"{evaluated.read_text()}{read_by}['severity'] = 'data/severity.yaml'\n")
    file = study(arms=['scratch'])
    finish_tested(file)
    assert is_done(file, 'test_scratch_seed0_frac100')
    Path('data/severity.yaml').write_text('crack: minor')
    if learnt:
        with pytest.raises(StudyError, match='learnt from another data/severity.yaml'):
            is_done(file, 'train_scratch_seed0_frac100')
    else:
        assert is_done(file, 'train_scratch_seed0_frac100')
        assert not is_done(file, 'test_scratch_seed0_frac100')


def test_other_val_labels_make_a_rate_that_was_chosen_on_them_stale(study, evaluated):
    file = study('lr_factors: [0.5, 1]', arms=['scratch'])
    finish_tested(file)
    assert is_done(file, 'test_scratch_seed0_frac100')
    Path('data/val.json').write_text('[]')
    for name in ('train_scratch_lr_frac100_lr1', 'train_scratch_seed0_frac100'):
        with pytest.raises(StudyError, match='learnt from another data/val.json'):
            is_done(file, name)


def test_without_trials_and_maps_a_run_records_its_training_labels_alone(study, evaluated):
    text = evaluated.read_text()
    evaluated.write_text(f"{text}train_dataloader['dataset']['severity'] = 'castings'\n")
    file = study(arms=['scratch'])
    labels = finish_tested(file)['labels_sha256']
    assert labels == {'data/train.json': xray_digests.digest(Path('data/train.json'))}
    Path('data/val.json').write_text('[]')
    assert is_done(file, 'train_scratch_seed0_frac100') and not is_done(file, 'test_scratch_seed0_frac100')


def test_a_run_is_tested_again_on_other_annotations(study):
    file = study(arms=['scratch'])
    folder = finish(read_study(file), 'train_scratch_seed0_frac100', AP50=0.5)
    Path('test.json').write_text('{}')
    facts = xray_digests.read_json(folder / 'run.json') | dict(tested_on={'test.json': '0' * 64})
    (folder / 'run.json').write_text(json.dumps(facts))
    assert is_done(file, 'train_scratch_seed0_frac100') and not is_done(file, 'test_scratch_seed0_frac100')


def test_a_begun_run_of_another_config_is_refused_and_one_without_weights_starts_again(study):
    file = study(arms=['scratch'])
    planned = read_study(file)
    folder = fail(planned, 'train_scratch_seed0_frac100')
    config = Path('configs/small/scratch.py')
    config.write_text(config.read_text().replace('lr=0.02', 'lr=0.04'))
    assert not is_done(file, 'train_scratch_seed0_frac100')
    (folder / 'epoch_1.pth').touch()
    with pytest.raises(StudyError, match='another config'):
        is_done(file, 'train_scratch_seed0_frac100')


# --------------------------------------------------------------------------------------- what a run gets


def test_a_run_starts_from_the_checkpoint_of_the_studys_own_pretraining(study):
    file = study(arms=['pretrained'])
    planned = read_study(file)
    folder = finish(planned, PRETRAINING)
    facts, adopted = step.facts_of(planned, planned.job(ARM_TRAIN))
    checkpoint = folder / 'epoch_20.pth'
    assert f'model.backbone.init_cfg.checkpoint={checkpoint.resolve()}' in facts['options']
    assert facts['needs'] == {'simsiam_a/seed0-frac100': xray_digests.digest(checkpoint)} and adopted is None
    checkpoint.write_bytes(b'something else')
    with pytest.raises(StepError, match='epoch_20.pth: is not the file that its run wrote; delete'):
        step.facts_of(planned, planned.job(ARM_TRAIN))
    checkpoint.unlink()
    with pytest.raises(StepError, match='epoch_20.pth: not there, although the run is trained; delete'):
        step.facts_of(planned, planned.job(ARM_TRAIN))


def test_fewer_labels_are_a_file_of_the_study(study):
    planned = read_study(study('fractions: [10]', arms=['scratch']))
    job = planned.job('train_scratch_seed0_frac10')
    with pytest.raises(StepError, match=r'data/train.json: no readable annotation file'):
        step.labels(planned, job)
    Path('data').mkdir()
    coco = parts_coco()
    Path('data/train.json').write_text(json.dumps(coco))
    facts, _ = step.facts_of(planned, job)
    (file,) = planned.root.glob('labels/*-frac10.json')
    assert json.loads(file.read_text()) == draw_subset(coco, 10, 'part')
    assert f'train_dataloader.dataset.ann_file={file.resolve()}' in facts['options']
    assert facts['train_images'] == 12 and facts['subset_sha256'] == xray_digests.digest(file)
    repeated = "dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[{}]))"
    plain = "dict(data_root='data', ann_file='train.json')"
    Path('configs/small/again.py').write_text(ARM.format(init=None).replace(plain, repeated.format(plain)))
    again = read_study(study('fractions: [10]', arms=['again']))
    facts, _ = step.facts_of(again, again.job('train_again_seed0_frac10'))
    cfg = read_experiment('configs/small/again.py', facts['options'][-1:])
    assert cfg.train_dataloader.dataset.dataset.datasets[0].ann_file == str(file.resolve())
    whole = read_study(study(arms=['scratch'])).job('train_scratch_seed0_frac100')
    assert step.facts_of(planned, whole)[0]['train_images'] == len(coco['images'])
    del coco['images'][0]['part']
    Path('data/train.json').write_text(json.dumps(coco))
    with pytest.raises(StepError, match='data/train.json: 1 images have no `part`'):
        step.labels(planned, job)


def test_a_training_on_several_data_sets_records_each(study, capsys):
    parts = ', '.join(f"dict(data_root='data', ann_file='{name}.json')" for name in ('train', 'more'))
    joined = f"dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[{parts}]))"
    config = ARM.format(init=None).replace("dict(data_root='data', ann_file='train.json')", joined)
    Path('configs/small/joined.py').write_text(config)
    Path('data').mkdir()
    for name, parts in (('train', 20), ('more', 10)):
        Path(f'data/{name}.json').write_text(json.dumps(parts_coco(parts, free=5)))
    planned = read_study(study('fractions: [10, 100]', arms=['joined']))
    facts, _ = step.facts_of(planned, planned.job('train_joined_seed0_frac100'))
    assert facts['train_images'] == 90 and set(facts['labels_sha256']) == {
        'data/train.json',
        'data/more.json',
    }
    with pytest.raises(StepError, match='joined.py: trains on 2 data sets, expected one to draw a share'):
        step.labels(planned, planned.job('train_joined_seed0_frac10'))
    log = Path('work_dirs/joined/20260101_000000/vis_data/scalars.json')
    log.parent.mkdir(parents=True)
    log.write_text('{"time": 0.5, "iter": 1}')
    assert main([str(study(arms=['joined'])), '--dry-run']) == 0
    assert 'joined' in capsys.readouterr().out


def test_a_share_of_the_labels_leaves_a_mixed_in_archive_whole(study):
    """Half of a training's samples may come from an unlabelled archive; the share is of the labels."""
    labelled, archive = (
        "dict(type='XrayDefects', data_root='data', ann_file='train.json')",
        "dict(type='XrayBackgrounds', data_root='data', ann_file='unlabeled.txt')",
    )
    both = f"dict(type='XrayMixedDefects', datasets=[{labelled}, {archive}])"
    config = ARM.format(init=None).replace("dict(data_root='data', ann_file='train.json')", both)
    Path('configs/small/mixed.py').write_text(config)
    Path('data').mkdir()
    Path('data/train.json').write_text(json.dumps(parts_coco(20, free=5)))
    Path('data/unlabeled.txt').write_text('a.png\n')
    planned = read_study(study('fractions: [10]', arms=['mixed']))
    job = planned.job('train_mixed_seed0_frac10')
    file, images = step.labels(planned, job)
    assert 0 < images < 20 and images == len(json.loads(file.read_text())['images'])
    facts, _ = step.facts_of(planned, job)
    assert set(facts['labels_sha256']) == {'data/train.json', 'data/unlabeled.txt'}
    assert f'train_dataloader.dataset.datasets.0.ann_file={file.resolve()}' in facts['options']
    folder = Path('run')
    folder.mkdir()
    (folder / 'run.json').write_text(json.dumps(facts))
    seen = xray_digests.trained_on(planned.config(job.config), folder)
    assert seen == {
        'data/train.json': facts['subset_sha256'],
        'data/unlabeled.txt': facts['labels_sha256']['data/unlabeled.txt'],
    }


def log_val(folder, *values):
    """Write the validations that a training logs."""
    scalars = folder / '20260101_000000' / 'vis_data' / 'scalars.json'
    scalars.parent.mkdir(parents=True)
    lines = [json.dumps({'xray/AP50': value, 'step': step}) for step, value in enumerate(values, 1)]
    scalars.write_text('\n'.join(lines) + '\n')


def test_the_best_trial_is_taken_over_by_its_seed_and_its_rate_by_the_others(study, capsys):
    planned = read_study(study('seeds: [3, 4]\nlr_factors: [0.5, 1, 2]', arms=['scratch']))
    for factor, value in (('0_5', 0.1), ('1', 0.2), ('2', 0.3)):
        trial = finish(planned, f'train_scratch_lr_frac100_lr{factor}')
        log_val(trial, value)
    (trial / 'run.json').write_text(
        json.dumps(xray_digests.read_json(trial / 'run.json') | dict(command='python tools/train.py'))
    )
    first, second = planned.job('train_scratch_seed3_frac100'), planned.job('train_scratch_seed4_frac100')
    facts, adopted = step.facts_of(planned, second)
    assert adopted is None and 'optim_wrapper.optimizer.lr=0.04' in facts['options']
    assert facts['lr_factor'] == 2 and facts['lr_on_val'] == {'0.5': 0.1, '1': 0.2, '2': 0.3}
    assert step.do(planned, first) == 0
    begins, ends = capsys.readouterr().out.splitlines()
    folder = planned.root / first.folder
    assert begins.startswith(f'[4 of {len(planned.jobs)}] train {first.folder}')
    assert begins.endswith(f'; log in {folder}/log.txt')
    assert ends == f'[4 of {len(planned.jobs)}] done in 1 min'
    facts = xray_digests.read_json(folder / 'run.json')
    assert facts['command'] == 'python tools/train.py' and facts['seconds'] == 60 and facts['trained']
    assert (folder / 'epoch_6.pth').samefile(trial / 'epoch_6.pth')
    assert step.values_on_val(folder) == [0.3]
    assert not (folder / 'failed.json').exists() and (folder / 'trained').is_file()
    assert state.is_done(planned, first) and not state.is_done(planned, second)
    # Trained again, the trial is taken over again, and nothing of the old one stays.
    (folder / 'epoch_5.pth').touch()
    (trial / 'epoch_6.pth').unlink()
    finish(planned, 'train_scratch_lr_frac100_lr2')
    assert not state.is_done(planned, first)
    assert step.do(planned, first) == 0 and state.is_done(planned, first)
    assert (folder / 'epoch_6.pth').samefile(trial / 'epoch_6.pth')
    assert not (folder / 'epoch_5.pth').exists()


def test_the_line_at_the_end_of_a_test_says_what_was_reached(study):
    planned = read_study(study(arms=['scratch']))
    train, test = (f'{kind}_scratch_seed0_frac100' for kind in ('train', 'test'))
    folder = finish(planned, train, AP50=0.51234)
    assert step.reached(planned.job(test), folder) == ': test AP50 0.512'
    assert step.reached(planned.job(train), folder) == ''


def test_a_trial_that_failed_is_left_out_of_the_choice(study, capsys):
    file = study('seeds: [3]\nlr_factors: [1, 2]', arms=['scratch'])
    planned = read_study(file)
    diverged = fail(planned, 'train_scratch_lr_frac100_lr2', 'error: loss not finite', left_out=True)
    final = planned.job('train_scratch_seed3_frac100')
    assert is_done(file, 'train_scratch_lr_frac100_lr2')  # an answer, which is not asked for again
    log_val(finish(planned, 'train_scratch_lr_frac100_lr1'), 0.2)
    assert step.do(planned, final) == 0
    facts = xray_digests.read_json(planned.root / final.folder / 'run.json')
    assert facts['lr_factor'] == 1 and facts['lr_failed'] == ['2'] and facts['lr_on_val'] == {'1': 0.2}
    recorded = results.record(planned)
    assert recorded[final.folder]['status'] == 'trained' and recorded[final.folder]['lr_failed'] == ['2']
    assert recorded['scratch/lr/frac100-lr2']['status'] == 'failed'
    assert not launch.print_failures(planned, recorded)
    assert 'failed (left out of the choice of a learning rate): scratch/lr' in capsys.readouterr().err
    assert main([str(file), '--dry-run']) == 0
    assert 'failed, left out   train scratch/lr/frac100-lr2' in capsys.readouterr().out
    # Tried again with success, it may change the choice.
    (diverged / 'failed.json').unlink()
    log_val(finish(planned, 'train_scratch_lr_frac100_lr2'), 0.3)
    assert not is_done(file, final.name)


def test_without_any_trial_that_succeeded_nothing_is_chosen(study):
    planned = read_study(study('lr_factors: [1, 2]', arms=['scratch']))
    for factor in (1, 2):
        fail(planned, f'train_scratch_lr_frac100_lr{factor}', 'loss not finite', left_out=True)
    with pytest.raises(StepError, match='all trials of a learning rate failed, .*-lr1 with: loss not finite'):
        step.choose(planned, planned.job('train_scratch_seed0_frac100'))


# ------------------------------------------------------------------------------------------------- machines


def test_a_training_takes_no_more_gpus_than_this_machine_has(study, monkeypatch, capsys):
    file = study('gpus: 4', arms=['scratch'])
    name = 'train_scratch_seed0_frac100'
    for visible, count, there in (('0,1', 2, 'has 2'), ('', 0, 'has none')):
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
        assert main([str(file), '--dry-run']) == 0
        first, *others = capsys.readouterr().out.splitlines()
        assert f'trial.yaml: written for 4 GPUs a training, this machine {there}: ' in first
        assert 'batch norm sees fewer images' in first and not any('GPUs' in line for line in others)
        planned = read_study(file)
        before = state.fingerprint(read_study(file), planned.job(name))
        assert schedule.fit_gpus(planned, count) == first
        assert state.fingerprint(planned, planned.job(name)) == before
        step = launch.entry(planned, planned.job(name))
        assert step['gpu'] == count and step['command'].endswith(f'--job {name} --gpus {count}')
    assert main([str(file), '--dry-run', '--profile', 'configs/study/slurm']) == 0  # a cluster has them
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0,1,2,3')
    assert main([str(file), '--dry-run']) == 0
    assert 'written for' not in capsys.readouterr().out


def test_steps_side_by_side_claim_different_gpus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('SLURM_JOB_ID', raising=False)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '2,5')
    with step.claimed(1) as first, step.claimed(1) as second:
        assert [first, second] == [{'CUDA_VISIBLE_DEVICES': '2'}, {'CUDA_VISIBLE_DEVICES': '5'}]
    with contextlib.suppress(StudyError), step.claimed(2) as both:
        assert both == {'CUDA_VISIBLE_DEVICES': '2,5'}
        raise StudyError('a step that fails gives its GPUs back')
    with step.claimed(2):
        pass
    with pytest.raises(StepError, match='needs 3 GPUs, this machine has 2'), step.claimed(3):
        pass
    monkeypatch.setenv('SLURM_JOB_ID', '1')
    with step.claimed(3) as claim:  # Slurm has reserved them
        assert claim == {}
    monkeypatch.delenv('SLURM_JOB_ID')
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    with step.claimed(1) as claim:
        assert claim == {}


def test_slurm_reserves_the_gpus_of_a_training_and_one_for_a_test(study, tmp_path, repo, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')  # as where jobs are submitted from
    planned = read_study(study('gpus: 4', arms=['scratch']))
    plan = tmp_path / 'plan.json'
    plan.write_text(json.dumps([launch.entry(planned, job) for job in planned.jobs]))
    command = [sys.executable, '-m', 'snakemake', '--snakefile', str(repo / 'projects/study/study.smk')]
    command += ['--directory', str(tmp_path), '--config', f'plan={plan}', '--dry-run', '--cores', '1']
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    for name, gpus in (('train_scratch_seed0_frac100', 4), ('test_scratch_seed0_frac100', 1)):
        result = re.search(rf'rule {name}:.*?resources: ([^\n]*)', shown, re.DOTALL)[1]
        resources = dict(pair.split('=') for pair in result.split(', '))
        resources = {key: int(value) if value.isdigit() else value for key, value in resources.items()}
        job = SimpleNamespace(resources=Resources(resources), threads=1)
        paths = dict.fromkeys(
            ('run_uuid', 'slurm_logfile', 'comment_str', 'account', 'partition', 'workdir'), ''
        )
        call = get_submit_command(job, paths) + set_gres_string(job)
        assert call.endswith(f' --gpus={gpus}') and ' -t 1440' in call and '--ntasks' not in call


class Resources(dict):
    """As Snakemake's: a dict whose values are attributes too."""

    __getattr__ = dict.__getitem__


def test_a_step_says_to_snakemake_what_it_needs_and_how_to_call_back(study, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0')
    planned = read_study(study(arms=['pretrained']))
    train, test = (launch.entry(planned, planned.job(name)) for name in (ARM_TRAIN, ARM_TEST))
    assert train['needs'] == ['simsiam_a/seed0-frac100/trained'] and test['needs'] == [train['marker']]
    assert (train['gpu'], test['gpu']) == (1, 1) and train['priority'] > test['priority']
    assert train['minutes'] == 24 * 60  # nothing has been timed
    assert train['command'].endswith(f'trial.yaml --job {ARM_TRAIN} --gpus 0')
    folder = finish(planned, PRETRAINING)
    facts = xray_digests.read_json(folder / 'run.json') | dict(seconds=7200)
    (folder / 'run.json').write_text(json.dumps(facts))
    assert launch.entry(planned, planned.job(PRETRAINING))['minutes'] == 240


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as caught:
        main(['--help'])
    assert caught.value.code == 0
    assert 'python tools/study.py configs/study/' in capsys.readouterr().out


@pytest.mark.parametrize('name', ['paper', 'gdxray-small', 'synthetic'])
def test_the_studies_of_this_repository_can_be_planned(repo, monkeypatch, name):
    monkeypatch.chdir(repo)
    planned = read_study(f'configs/study/{name}.yaml')
    assert any(job.pretraining for job in planned.jobs)
    assert all(job.folder.split('/')[0] == Path(job.config).stem for job in planned.jobs)


# -------------------------------------------------------------------------------------------- the real thing


@pytest.mark.slow
def test_a_rate_at_which_the_loss_is_not_finite_does_not_end_its_arm(classifier):
    config = Path('configs/small/steep.py')
    config.parent.mkdir(parents=True)
    # Weight decay of so large a step makes the weights grow without limit.
    config.write_text(classifier.read_text().replace('momentum=0.9', 'weight_decay=1'))
    Path('trial.yaml').write_text(f'lr_factors: [1, 1.0e+30]\narms:\n  - config: {config}\n')
    planned = read_study('trial.yaml')
    (steep,) = [job for job in planned.jobs if job.trial and job.lr_factor == 1e30]
    assert step.do(planned, steep) == 0  # so that Snakemake goes on
    assert (planned.root / steep.marker).is_file() and state.is_done(planned, steep)
    content = xray_digests.read_json(planned.root / steep.folder / 'failed.json')
    assert 'loss not finite' in content['reason']
    run = xray_digests.read_json(planned.root / steep.folder / 'run.json')
    assert run['left_out'] and not run['trained']
    recorded = results.record(planned)
    assert recorded[steep.folder]['left_out'] and all(run['status'] == 'failed' for run in recorded.values())


UNLEARNT = """
train_cfg = dict(by_epoch=True, max_epochs=1)
train_dataloader = test_dataloader
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
val_dataloader = test_dataloader
val_evaluator = test_evaluator
val_cfg = dict()
model['test_cfg']['rcnn'] = dict(score_thr=0.999)
"""


@pytest.mark.parametrize('split', ['', '_val'])
def test_what_the_report_refuses_of_either_split_is_no_test(tmp_path, split):
    run = draw_run(tmp_path, tmp_path / 'run', draw_truth(tmp_path, parts=2, free=0))
    step.check_predictions(run)
    file = run / f'predictions{split}.json'
    file.write_text(json.dumps(json.loads(file.read_text()) | dict(detections=[])))
    with pytest.raises(StepError, match=f'predictions{split}.json: not one detection'):
        step.check_predictions(run)


@pytest.mark.slow
def test_a_detector_without_a_detection_is_no_value_of_0_but_failed(study, tiny_coco):
    config = Path('configs/small/scratch.py')
    config.write_text(DETECTOR.replace('{root}', str(tiny_coco(n=4))) + UNLEARNT)
    planned = read_study(study(arms=['scratch']))
    folder = finish(planned, 'train_scratch_seed0_frac100')
    save_model(config, folder / 'epoch_1.pth')
    job = planned.job('test_scratch_seed0_frac100')
    assert step.do(planned, job) == 1
    recorded = json.loads(planned.results_file.read_text())['runs']['scratch/seed0-frac100']
    assert (recorded['status'], recorded['step']) == ('failed', 'test')
    assert 'predictions.json: ' in recorded['reason']
    assert results.table_of(dict(runs={'it': recorded}))[1] == []
    assert not state.is_done(planned, job)


KILLER = """
import os
import signal
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class KillOnce(Hook):
    def before_train_epoch(self, runner):
        if runner.epoch == 2 and not Path('killed').exists():
            Path('killed').touch()
            os.killpg(0, signal.SIGKILL)
"""
KILLED = """
custom_imports['imports'].append('killer')
custom_hooks.append(dict(type='KillOnce', priority='LOWEST'))
"""
LEARNS = """
val_dataloader = test_dataloader
val_evaluator = test_evaluator
val_cfg = dict()
"""
NET = "dict(type='ResNet', depth=18, in_channels=1, stem_channels=8, base_channels=8{init})"
HEAD = (
    "neck=dict(type='GlobalAveragePooling'), head=dict(type='LinearClsHead', num_classes=2, in_channels=64, "
)
INIT = ", init_cfg=dict(type='Pretrained', checkpoint='work_dirs/first/epoch_2.pth', prefix='backbone.')"


def run_alone(command, folder, **env):
    """Run a command in a process group of its own, which ends with it; returns exit code and words."""
    with (folder / 'printed.txt').open('w+') as result:
        running = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | env,
            stdout=result,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = running.wait(timeout=400)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            running.wait(timeout=60)
        result.seek(0)
        return code, result.read()


@pytest.mark.slow
def test_a_study_killed_in_the_middle_goes_on_and_repeats_nothing(classifier, tmp_path, repo):
    text = classifier.read_text().replace("head=dict(type='ClsHead', ", HEAD)
    net = "dict(type='LeNet5', num_classes=2)"
    assert net in text and HEAD in text
    configs = tmp_path / 'configs' / 'small'
    configs.mkdir(parents=True)
    (tmp_path / 'killer.py').write_text(KILLER)
    (configs / 'first.py').write_text(text.replace(net, NET.format(init='')))
    second = text.replace(net, NET.format(init=INIT)).replace('max_epochs=2', 'max_epochs=4')
    (configs / 'second.py').write_text(second + LEARNS + KILLED)
    (configs / 'broken.py').write_text(second + LEARNS)
    file = tmp_path / 'trial.yaml'
    # The images have no `series`, which a share by frame needs.
    broken = '{config: configs/small/broken.py, fractions: [10]}'
    file.write_text(f'gpus: 4\nsubset: frame\narms:\n  - {broken}\n  - config: configs/small/second.py\n')
    command = [sys.executable, str(repo / 'tools' / 'study.py'), str(file), '--jobs', '1']
    root = tmp_path / 'work_dirs' / 'study' / 'trial'
    first, run = root / 'first' / 'seed0-frac100', root / 'second' / 'seed0-frac100'

    code, printed = run_alone(command, tmp_path, PYTHONPATH=str(tmp_path))
    assert code == -signal.SIGKILL, printed
    assert printed.count('written for 4 GPUs a training, this machine has none') == 1
    assert (first / 'trained').is_file() and (run / 'epoch_2.pth').is_file()
    assert not (run / 'trained').exists() and not (run / 'epoch_3.pth').exists()

    code, printed = run_alone(command, tmp_path, PYTHONPATH=str(tmp_path))
    assert code == 1, printed  # the broken arm
    assert 'failed: broken/seed0-frac10: ' in printed and 'no `series`' in printed
    runs = json.loads((tmp_path / 'trial.results.json').read_text())['runs']
    assert {name: run['status'] for name, run in runs.items()} == {
        'broken/seed0-frac10': 'failed',
        'first/seed0-frac100': 'trained',
        'second/seed0-frac100': 'tested',
    }
    started = {folder: xray_digests.read_starts(folder) for folder in (first, run)}
    assert [start['gpus'] for start in started[first]] == [0] and len(started[run]) == 2
    # The labels, which each start notes, are recorded once, with the facts.
    assert all(start.pop('labels_sha256') for starts in started.values() for start in starts)
    assert runs['first/seed0-frac100']['starts'] == started[first]
    assert runs['second/seed0-frac100']['starts'] == started[run]
    assert (first / 'log.txt').read_text().count('$ python -u tools/train.py') == 1
    log = (run / 'log.txt').read_text()
    assert log.count('$ python -u tools/train.py') == 2 and log.count('$ python -u tools/test.py') == 1
    assert f'resumes {run.relative_to(tmp_path)}/epoch_2.pth' in log
    assert re.findall(r'Epoch\(train\) \[(\d)\]', log) == ['1', '2', '3', '4']
    assert f'Hand-over to ResNet (model.backbone.init_cfg)\n  file        {first}/epoch_2.pth' in log
    assert (run / 'epoch_4.pth').is_file()
