"""Structure and arithmetic of what tools/benchmark.py says. How fast things are is no matter of tests."""

import math
import multiprocessing
from functools import partial

import pytest
import torch

from projects.benchmark import loader, train
from projects.benchmark.loader import DECODING, FILES, PACKED, STOCK, Rates
from projects.benchmark.published import published_name, published_pipeline, steps
from projects.benchmark.train import BenchmarkError, Steps
from projects.config.configs import ConfigError, load_config
from projects.runs.running import read_config
from tools import benchmark

SIMSIAM = 'configs/small/simsiam_resnet18-narrow_1xb64-coslr-20e_castings-b-128px.py'
SIMMIM = 'configs/small/simmim_swin-narrow_1xb32-coslr-20e_synthetic-96px.py'
DETECTOR = 'configs/small/faster-rcnn_r18-narrow-scratch_fpn_1xb4-8e_synthetic.py'
PUBLISHED = 'mmpretrain::simsiam/simsiam_resnet50_8xb32-coslr-100e_in1k.py'


@pytest.fixture(scope='module')
def radiographs(tmp_path_factory):
    root = tmp_path_factory.mktemp('benchmark') / 'data'
    loader.write_radiographs(root, images=4, size=128)
    return root


# ------------------------------------------------------------------------------------- published recipes


def test_the_published_recipe_is_found_through_an_arm(repo):
    assert published_name(repo / SIMSIAM) == PUBLISHED


def test_a_config_without_one_is_named(tmp_path):
    (tmp_path / 'alone.py').write_text('model = dict()\n')
    with pytest.raises(ConfigError, match='alone.py: inherits no published recipe'):
        published_name(tmp_path / 'alone.py')
    with pytest.raises(ConfigError, match='gone.py: no such file'):
        published_name(tmp_path / 'gone.py')


def test_its_pipeline_is_the_published_one_at_our_size(repo):
    ours = published_pipeline(PUBLISHED, read_config(str(repo / SIMSIAM)))
    theirs = load_config(PUBLISHED).train_dataloader.dataset.pipeline
    changed = [(a, b) for a, b in zip(steps(ours), steps(theirs)) if a != b and 'transforms' not in a]
    assert [(a.scale, b.scale) for a, b in changed] == [(128, 224)]
    assert [step.type for step in steps(ours)] == [step.type for step in steps(theirs)]


def test_its_masks_are_our_masks(repo):
    ours = published_pipeline(published_name(repo / SIMMIM), read_config(str(repo / SIMMIM)))
    mask = next(step for step in ours if step.type == 'SimMIMMaskGenerator')
    assert (mask.input_size, mask.mask_patch_size) == (96, 16)


# ------------------------------------------------------------------------------------------------ loader


@pytest.mark.parametrize('config', [SIMSIAM, SIMMIM, DETECTOR])
def test_all_pipelines_are_measured_on_the_same_radiographs(repo, radiographs, config):
    results = loader.measure(str(repo / config), radiographs, pack_size=64, rounds=2, seconds=0)
    assert [r.pipeline for r in results] == [STOCK, FILES, PACKED, DECODING]
    for result in results:
        assert len(result.rounds) == 2
        assert all(0 < value < math.inf for value in result.rounds)


@pytest.mark.parametrize('config', [SIMSIAM, DETECTOR])
def test_pipelines_give_images_of_one_size(repo, radiographs, config):
    cfg = read_config(str(repo / config))
    shapes, channels = set(), []
    for dataset in loader.datasets(repo / config, cfg, radiographs, 64).values():
        arguments = dict(batch_size=4, num_workers=0, persistent_workers=False, pin_memory=False)
        batches = list(loader.build_loader(dataset, cfg, **arguments))
        assert sum(len(batch['data_samples']) for batch in batches) == 4
        image = batches[0]['inputs'][0]
        shapes.add(tuple(image.shape[-2:]))
        channels.append(image.shape[-3])
    assert len(shapes) == 1
    assert channels == [3, 1, 1]  # published, ours, ours packed


def test_a_rate_is_count_by_time_and_lasts_long_enough(monkeypatch):
    clock = iter([10.0, 10.0, 10.4, 10.8, 11.2])
    monkeypatch.setattr(loader.time, 'process_time', lambda: next(clock))
    assert loader.rate(lambda: 6, 1) == pytest.approx(3 * 6 / 1.2)
    clock = iter([10.0, 10.0, 10.5])  # once at least
    assert loader.rate(lambda: 6, 0) == pytest.approx(6 / 0.5)


def test_ratios_are_taken_round_by_round():
    # Both twice as slow in the second round, when the machine was busy.
    stock, ours = Rates(STOCK, [10, 5, 10]), Rates(PACKED, [400, 200, 400])
    assert ours.against(stock) == 40
    assert stock.spread == (7.5, 10)
    text = loader.table({'stem': [stock, ours]}, device_rate=1000, workers=4)
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in text.splitlines()]
    assert rows[0][-1] == 'of 1000/s by 4 workers'
    assert rows[3] == ['stem', PACKED, '400.0', '300.0 to 400.0', '40.0×', '160%']
    assert 'workers' not in loader.table({'stem': [stock]}, None, 4)


# ------------------------------------------------------------------------------------------------- train

OPTIONS = [
    'train_dataloader.batch_size=4',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
]


@pytest.mark.parametrize('config', [SIMSIAM, SIMMIM, DETECTOR])
@pytest.mark.slow
def test_variants_train_the_same_model_to_the_same_losses(repo, radiographs, config, capfd, monkeypatch):
    monkeypatch.setattr(train, 'matmul_rate', partial(train.matmul_rate, side=64))
    answers = {}
    for variant in (STOCK, PACKED):
        pipe, end = multiprocessing.Pipe()
        for message in (True, 2, 1, None):
            pipe.send(message)
        train.serve(end, str(repo / config), OPTIONS, radiographs, variant, 64)
        answers[variant] = [pipe.recv() for _ in range(4)]
    stock, ours = (answers[variant][0] for variant in (STOCK, PACKED))
    assert stock.batch == ours.batch == 4
    assert len(stock.losses) == train.LOSS_STEPS
    # Another memory layout rounds otherwise, and batch norms over four images magnify that at every step, as
    # a detector's choice of proposals does: later steps are compared where nothing does.
    steps, within = (train.LOSS_STEPS, 1e-4) if config == SIMMIM else (2, 5e-3)
    assert ours.losses[:steps] == pytest.approx(stock.losses[:steps], rel=1e-3, abs=within)
    assert len(set(stock.losses)) == train.LOSS_STEPS
    assert stock.flops > 1e6
    for facts, first, second, memory in answers.values():
        assert facts.matmul > 1e6
        for whole, arithmetic, waiting in (first, second):
            assert arithmetic > 0
            assert 0 <= waiting < 1
            assert whole > 0
        assert memory > 1e6
    captured = capfd.readouterr()
    assert 'torch.Size' not in captured.out + captured.err  # mmengine's lines about each tensor
    assert 'paramwise_options' not in captured.out + captured.err


@pytest.mark.long
def test_variants_take_turns_in_processes_of_their_own(repo, radiographs):
    results = train.measure(str(repo / SIMSIAM), radiographs, 64, turns=2, steps=1, options=OPTIONS)
    assert [r.variant for r in results] == [STOCK, FILES, PACKED]
    assert [len(r.turns) for r in results] == [2, 2, 2]
    assert 'vs stock' in train.table({'stem': results})


def test_a_variant_that_dies_is_named():
    pipe, end = multiprocessing.Pipe()
    end.close()
    with pytest.raises(BenchmarkError, match='ours, packed: its process ended early'):
        train.ask(pipe, PACKED, True)


def test_a_further_variant_has_what_its_name_says(repo, radiographs, monkeypatch):
    config = load_config(repo / SIMSIAM)
    name = f'{PACKED}, channels_last+compile'
    assert train.also(name) == ['channels_last', 'compile']
    assert [train.also(variant) for variant in train.VARIANTS] == [[], [], []]
    monkeypatch.setattr(torch, 'compile', lambda step: ('compiled', step))
    model, _ = train.build(config, repo / SIMSIAM, name, same_images=True)
    assert model.train_step[0] == 'compiled'
    assert model.backbone.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    plain, _ = train.build(config, repo / SIMSIAM, PACKED, same_images=True)
    assert plain.backbone.conv1.weight.is_contiguous()


def test_mixed_precision_without_a_gpu_is_refused_in_a_line(repo, capsys):
    assert benchmark.main(['train', SIMSIAM, '--also', 'amp']) == 2
    assert 'mixed precision needs a GPU; leave it out' in capsys.readouterr().err


def test_table_of_training_steps():
    turns = [(2.0, 1.0, 0.5), (4.0, 2.0, 0.5)]
    stock = Steps(STOCK, 8, [1.0, 0.5], flops=10**9, matmul=4e9, turns=turns, memory=2 * 10**9)
    half = [(a / 2, b / 2, 0.0) for a, b, _ in turns]
    ours = Steps(PACKED, 8, [1.0, 0.50005], flops=0, matmul=4e9, turns=half, memory=10**9)
    lines = train.table({'stem': [stock, ours]}).splitlines()
    cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines]
    assert cells[2][2:] == ['2.7', '1.0×', '1.00×', '50%', '2.0 GB', '17%', '0e+00']
    assert cells[3][2:] == ['5.3', '2.0×', '2.00×', '0%', '1.0 GB', '33%', '5e-05']


# ------------------------------------------------------------------------------------------ the tool


def test_the_tool_prints_a_table_and_where_it_was_measured(repo, capsys):
    tiny = ['--images', '2', '--size', '96', '--pack-size', '64', '--rounds', '1', '--seconds', '0']
    assert benchmark.main(['loader', SIMSIAM, *tiny, '--device-rate', '100']) == 0
    text = capsys.readouterr().out
    assert '2 radiographs of 96 x 96 px' in text
    assert 'load average' in text
    assert '| simsiam_resnet18-narrow_1xb64-coslr-20e_castings-b-128px | ours, packed' in text.replace(
        '  ', ''
    )
    assert 'of 100/s by 8 workers' in text


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        ([], 'COMMAND'),
        (['loader', 'configs/gone.py'], 'configs/gone.py: no such file'),
        (['loader', '--images', '0'], 'expected at least 1'),
        (['train', '--steps', 'x'], '--steps'),
        (['infer', '--threads', '0'], 'expected at least 1'),
    ],
)
def test_wrong_use_exits_with_2(capsys, arguments, expected):
    with pytest.raises(SystemExit) as error:
        benchmark.main(arguments)
    assert error.value.code == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize('command', [[], ['loader'], ['train'], ['infer']])
def test_help_has_an_example(capsys, command):
    with pytest.raises(SystemExit) as error:
        benchmark.main([*command, '--help'])
    assert error.value.code == 0
    assert 'python tools/benchmark.py loader' in capsys.readouterr().out
