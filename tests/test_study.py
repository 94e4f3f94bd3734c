"""Studies: the plan, shares of the labels, records and README, and a study killed in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mmengine.config import Config

from projects.xray import study as studies
from projects.xray.report import study_results as results
from projects.xray.study import StudyError, choose_lr, draw_subset, read_study, stretched
from tools.study import main

PRETRAIN = """
model = dict(type='SimSiam', backbone=dict(type='ResNet'))
train_cfg = dict(max_epochs=20)
train_dataloader = dict(batch_size=4, dataset=dict(data_root='data', data_prefix=dict(img_path='unlabeled')))
"""
ARM = """
model = dict(type='FasterRCNN', backbone=dict(type='ResNet', init_cfg={init}))
train_cfg = dict(max_epochs=6, val_interval=2)
val_dataloader = dict(batch_size=1)
param_scheduler = [
    dict(type='LinearLR', by_epoch=False, begin=0, end=40),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=6, T_max=6),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=6, milestones=[4, 5]),
]
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.02))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
train_dataloader = dict(batch_size=4, dataset=dict(data_root='data', ann_file='train.json'))
"""
WEIGHTS = "dict(type='Pretrained', checkpoint='work_dirs/simsiam_a/epoch_20.pth')"


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Factory of a study file with two arms, one of which starts from pretrained weights."""
    monkeypatch.chdir(tmp_path)
    for name, text in (
        ('simsiam/simsiam_a', PRETRAIN),
        ('small/scratch', ARM.format(init=None)),
        ('small/pretrained', ARM.format(init=WEIGHTS)),
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
        ('lr_factors: [0]', 'must be above zero'),
        ('updates: many', 'updates: same or epochs'),
        ('seeds: [', 'not readable as YAML'),
    ],
)
def test_a_wrong_study_is_one_line_and_exit_2(study, capsys, text, message):
    assert main([str(study(text)), '--dry-run']) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and 'trial.yaml' in line


def test_wrong_arms_are_one_line_and_exit_2(study, capsys):
    for said, message in (
        (dict(arms=['scratch', 'scratch']), 'scratch/seed0-frac100 is asked for twice'),
        (dict(arms=['absent']), 'configs/small/absent.py: no such file'),
        (dict(arm=', epoch: 3'), 'expected `config` and, at will, seeds'),
    ):
        assert main([str(study(**said)), '--dry-run']) == 2
        assert message in capsys.readouterr().err
    assert main(['absent.yaml', '--dry-run']) == 2
    assert 'absent.yaml: no such study' in capsys.readouterr().err
    Path('configs/simsiam/simsiam_a.py').unlink()
    assert main([str(study()), '--dry-run']) == 2
    assert (
        'starts from work_dirs/simsiam_a/epoch_20.pth, but no config simsiam_a.py' in capsys.readouterr().err
    )


def finish(planned, job, **tested):
    """Write what a finished run leaves."""
    folder = planned.root / job.folder
    folder.mkdir(parents=True, exist_ok=True)
    facts = dict(config=job.config, seed=job.seed, fraction=job.fraction, epochs=job.epochs, seconds=60.0)
    facts |= dict(trained=True, tested=True, test_seconds=30.0, fingerprint=studies.fingerprint(job))
    facts['options'] = [f'x={Path.cwd()}/y']
    (folder / 'run.json').write_text(json.dumps(facts))
    if tested:
        result = dict(
            metrics=tested, commit='abcdef0123', dirty=False, hardware='2 x CPU', date='2026-01-02T03'
        )
        (folder / 'test.json').write_text(json.dumps(result))


def test_a_dry_run_says_what_runs_and_how_long(study, capsys):
    file = study('seeds: [0, 1]', arms=['scratch'])
    planned = read_study(file)
    finish(planned, planned.job('train_scratch_seed0_frac100'))
    assert main([str(file), '--dry-run']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ['done', 'done', 'runs', 'runs']
    assert lines[3].endswith('6 epochs  1 min')  # as long as the run of the other seed
    assert lines[-1].startswith('2 of 4 steps to run: about 2 min one by one')


def test_a_run_of_another_config_is_not_taken_for_this_one(study, capsys):
    file = study(arms=['scratch'])
    planned = read_study(file)
    finish(planned, planned.job('train_scratch_seed0_frac100'))
    config = Path('configs/small/scratch.py')
    config.write_text(config.read_text().replace('lr=0.02', 'lr=0.04'))
    assert main([str(file)]) == 2
    assert 'scratch/seed0-frac100: was run with another config' in capsys.readouterr().err


def test_records_and_the_readme_follow_from_finished_runs(study, tmp_path, capsys):
    file = study('about: Trial\nseeds: [0, 1]')
    planned = read_study(file)
    values = {'train_scratch_seed0_frac100': 0.2, 'train_scratch_seed1_frac100': 0.4}
    for name, value in values.items():
        finish(planned, planned.job(name), **{'xray/AP50': value, 'xray/AP': None})
    broken = planned.root / 'pretrained' / 'seed0-frac100'
    broken.mkdir(parents=True)
    (broken / 'failed.json').write_text(json.dumps(dict(step='train', reason='out of memory')))
    results.record(planned)
    text = (tmp_path / 'trial.results.json').read_text()
    assert str(tmp_path) not in text
    runs = json.loads(text)['runs']
    assert {name: run['status'] for name, run in runs.items()} == {
        'pretrained/seed0-frac100': 'failed',
        'scratch/seed0-frac100': 'tested',
        'scratch/seed1-frac100': 'tested',
    }
    readme = tmp_path / 'README.md'
    readme.write_text(f'# Title\n{results.BEGIN}\nold\n{results.END}\nend\n')
    assert main([str(file), '--readme', str(readme)]) == 0
    written = readme.read_text()
    assert written.startswith('# Title\n') and written.endswith('\nend\n') and 'old' not in written
    (row,) = [line for line in written.splitlines() if line.startswith('|') and 'scratch' in line]
    assert '0, 1' in row and '0.300 ± 0.141' in row and 'abcdef0' in row
    assert 'failed: pretrained/seed0-frac100' in written
    assert main([str(file), '--readme', str(readme)]) == 0
    assert readme.read_text() == written
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


@pytest.mark.long
def test_a_study_killed_in_the_middle_goes_on_and_repeats_nothing(classifier, tmp_path, repo):
    text = classifier.read_text()
    val = 'val_dataloader = test_dataloader\nval_evaluator = test_evaluator\nval_cfg = dict()\n'
    configs = tmp_path / 'configs' / 'small'
    configs.mkdir(parents=True)
    (configs / 'first.py').write_text(text + val)
    (configs / 'second.py').write_text(text.replace('max_epochs=2', 'max_epochs=40') + val)
    (configs / 'broken.py').write_text(text.replace("type='LeNet5'", "type='NoSuchNet'") + val)
    file = tmp_path / 'trial.yaml'
    arms = ''.join(f'  - config: configs/small/{name}.py\n' for name in ('first', 'broken', 'second'))
    file.write_text(f'about: Trial\narms:\n{arms}')
    command = [sys.executable, str(repo / 'tools' / 'study.py'), str(file), '--jobs', '1']
    root = tmp_path / 'work_dirs' / 'study' / 'trial'

    running = subprocess.Popen(command, cwd=tmp_path, start_new_session=True)
    end = time.monotonic() + 3600
    while not list(root.glob('second/*/epoch_*.pth')):
        if running.poll() is not None or time.monotonic() > end:
            break
        time.sleep(0.2)
    assert running.poll() is None
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert (root / 'first' / 'seed0-frac100' / 'tested').is_file()  # runs go in the order of the file
    assert not (root / 'second' / 'seed0-frac100' / 'trained').is_file()

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1  # the broken arm
    assert 'failed: broken/seed0-frac100: error: ' in done.stderr and 'NoSuchNet' in done.stderr
    runs = json.loads((tmp_path / 'trial.results.json').read_text())['runs']
    assert {name: run['status'] for name, run in runs.items()} == {
        'broken/seed0-frac100': 'failed',
        'first/seed0-frac100': 'tested',
        'second/seed0-frac100': 'tested',
    }
    log = (root / 'first' / 'seed0-frac100' / 'log.txt').read_text()
    assert log.count('$ python -u tools/train.py') == 1 and log.count('$ python -u tools/test.py') == 1
    assert (root / 'second' / 'seed0-frac100' / 'epoch_40.pth').is_file()
