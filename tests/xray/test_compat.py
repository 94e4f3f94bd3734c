"""One test per repair of the pinned libraries; each fails without it."""

import copy
import http.server
import importlib
import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import types
from functools import partial
from pathlib import Path

import mmengine.dist
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import LocalBackend
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer, MMLogger
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader
from mmengine.visualization import MLflowVisBackend
from mmpretrain.models import NonLinearNeck
from scipy.optimize import brentq

from projects.runs import running
from projects.xray import compat


def batch_of(collate_fn):
    loader = Runner.build_dataloader(
        dict(
            batch_size=2,
            num_workers=0,
            dataset=[torch.zeros(3), torch.ones(3)],
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=collate_fn,
        )
    )
    return next(iter(loader))


def test_collate_fn_of_a_package_base_collates(tmp_path):
    file = tmp_path / 'inherits.py'
    file.write_text("_base_ = 'mmpretrain::simsiam/simsiam_resnet50_8xb32-coslr-100e_in1k.py'\n")
    collate_fn = Config.fromfile(file).train_dataloader.collate_fn
    assert '_scope_' in collate_fn
    assert batch_of(collate_fn).tolist() == [[0, 0, 0], [1, 1, 1]]


def test_collate_fn_with_a_leftover_delete_collates(tmp_path):
    (tmp_path / 'base.py').write_text('loader = dict(batch_size=2)\n')
    file = tmp_path / 'inherits.py'
    file.write_text(
        "_base_ = './base.py'\nloader = dict(collate_fn=dict(_delete_=True, type='default_collate'))\n"
    )
    collate_fn = Config.fromfile(file).loader.collate_fn
    assert '_delete_' in collate_fn
    assert batch_of(collate_fn).shape == (2, 3)


def test_collate_fn_keeps_its_own_arguments():
    with pytest.raises(TypeError, match='unknown'):
        batch_of(dict(type='default_collate', unknown=1))


@pytest.mark.slow
def test_what_nobody_asked_for_is_not_said():
    result = 'from projects.xray import compat; import mmdet.datasets, mmpretrain.datasets'
    done = subprocess.run(
        [sys.executable, '-c', result],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (0, '')


def test_swin_table_resize_reproduces_a_plane():
    """A cubic spline reproduces a linear function exactly, and x must stay along the columns."""
    from mmpretrain.models.utils.embed import resize_relative_position_bias_table

    # The 13 source positions grow geometrically so that their outermost lies at +-11 (mmpretrain's grid).
    q = brentq(lambda q: sum(q**i for i in range(6)) - 11, 1.01, 1.5)
    steps = np.cumsum(q ** np.arange(6))
    grid = np.concatenate([-steps[::-1], [0], steps])
    plane = 2 * grid[None, :] + 0.5 * grid[:, None]
    table = torch.tensor(plane, dtype=torch.float32).reshape(-1, 1)
    resized = resize_relative_position_bias_table(13, 23, table, 1).reshape(23, 23)
    target = np.arange(-11, 12)
    expected = 2 * target[None, :] + 0.5 * target[:, None]
    np.testing.assert_allclose(resized, expected, atol=1e-3)


def swin(window=7, **kwargs):
    from mmpretrain.models import SwinTransformer

    return SwinTransformer(
        arch=dict(embed_dims=24, depths=[2, 2], num_heads=[2, 4]),
        img_size=96,
        out_indices=(1,),
        stage_cfgs=dict(block_cfgs=dict(window_size=window)),
        **kwargs,
    )


def test_swin_weights_load_into_another_window():
    source, target = swin(window=7), swin(window=12)
    state = source.state_dict()
    missing, unexpected = target.load_state_dict(state, strict=False)
    assert unexpected == []
    assert all('relative_position_index' in key for key in missing)
    table = target.stages[0].blocks[0].attn.w_msa.relative_position_bias_table
    assert table.shape == (23 * 23, 2)
    assert table.isfinite().all()


def test_swin_is_frozen_when_built():
    model = swin(frozen_stages=0)
    assert not any(p.requires_grad for p in model.patch_embed.parameters())
    assert not any(p.requires_grad for p in model.stages[0].parameters())
    assert all(p.requires_grad for p in model.stages[1].parameters())
    assert all(p.requires_grad for p in swin().parameters())


class Hostile:
    """Leaves a file behind when unpickled."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.fixture(params=['code', 'getattr'])
def hostile(request, tmp_path):
    marker = tmp_path / 'was_here'
    if request.param == 'code':
        content = Hostile(os.system, f'touch {marker}')
    else:
        content = Hostile(getattr, HistoryBuffer, '__init__')
    file = tmp_path / 'hostile.pth'
    torch.save(dict(state_dict=dict(weight=torch.ones(2)), meta=content), file)
    yield file
    assert not marker.exists()


def test_hostile_checkpoint_is_refused(hostile):
    with pytest.raises(compat.CheckpointError, match=r'hostile\.pth: refused, it carries \S+') as caught:
        CheckpointLoader.load_checkpoint(str(hostile), map_location='cpu')
    assert '\n' not in str(caught.value)


def test_no_caller_can_load_unsafely(hostile):
    with pytest.raises(pickle.UnpicklingError):
        torch.load(hostile, weights_only=False)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Address that serves tmp_path, with a download cache of its own."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
        yield f'http://127.0.0.1:{httpd.server_port}'
        httpd.shutdown()


def test_downloaded_checkpoints_take_the_same_road(server, tmp_path, hostile):
    torch.save(dict(state_dict=dict(weight=torch.full((2,), 3.0))), tmp_path / 'good.pth')
    loaded = CheckpointLoader.load_checkpoint(f'{server}/good.pth', map_location='cpu')
    assert loaded['state_dict']['weight'].tolist() == [3, 3]
    with pytest.raises(compat.CheckpointError, match='refused'):
        CheckpointLoader.load_checkpoint(f'{server}/hostile.pth', map_location='cpu')


def test_failed_download_names_the_cache(server, tmp_path):
    with pytest.raises(
        compat.CheckpointError, match=r'absent\.pth: not downloaded .*404.*cache/hub/checkpoints'
    ):
        CheckpointLoader.load_checkpoint(f'{server}/absent.pth', map_location='cpu')


@pytest.mark.parametrize('keep', [0, 10, 0.5, 0.99])
def test_torn_checkpoint_is_one_line(tmp_path, keep):
    file = tmp_path / 'epoch_3.pth'
    torch.save(dict(state_dict=dict(weight=torch.ones(1000))), file)
    whole = file.read_bytes()
    file.write_bytes(whole[: keep if isinstance(keep, int) else int(len(whole) * keep)])
    with pytest.raises(
        compat.CheckpointError, match=r'epoch_3\.pth: not a readable PyTorch checkpoint'
    ) as caught:
        CheckpointLoader.load_checkpoint(str(file), map_location='cpu')
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('numpy1', [False, True])
def test_what_mmengine_saves_loads(tmp_path, numpy1):
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    content = dict(
        state_dict=dict(weight=torch.ones(2)),
        message_hub=dict(log_scalars={'train/loss': history}, scalar=np.float64(0.5)),
        meta=dict(seed=0, array=np.arange(3, dtype=np.float32)),
    )
    file = tmp_path / 'epoch_1.pth'
    torch.save(content, file, _use_new_zipfile_serialization=not numpy1)
    if numpy1:  # under the module names that NumPy 1 wrote
        file.write_bytes(file.read_bytes().replace(b'numpy._core.multiarray', b'numpy.core.multiarray'))
    loaded = CheckpointLoader.load_checkpoint(str(file), map_location='cpu')
    assert loaded['message_hub']['log_scalars']['train/loss'].mean() == 1.5
    assert loaded['message_hub']['scalar'] == 0.5
    assert loaded['meta']['array'].tolist() == [0, 1, 2]


def test_mmrazor_imports():
    import mmrazor.models  # noqa: F401
    from mmrazor.registry import MODELS

    assert MODELS.get('FpnTeacherDistill') is not None
    assert MODELS.get('PKDLoss') is not None


def test_deep_nesting_is_an_error_and_no_crash_after_mmrazor():
    import mmrazor.structures.graph.channel_flow  # noqa: F401

    assert 1000 < sys.getrecursionlimit() <= 10_000
    with pytest.raises(RecursionError):
        json.loads('[' * 100_000)


def cuda_config():
    return Config(
        dict(
            model=dict(
                backbone=dict(norm_cfg=dict(type='SyncBN', requires_grad=True)),
                necks=[dict(norm_cfg=dict(type='SyncBN'))],
            ),
            optim_wrapper=dict(
                type='AmpOptimWrapper',
                loss_scale='dynamic',
                dtype='float16',
                optimizer=dict(type='SGD', lr=0.1),
            ),
            sync_bn='torch',
        )
    )


def test_one_process_without_cuda_trains_in_fp32():
    cfg = cuda_config()
    result = compat.adapt_to_cpu(cfg)
    assert cfg.optim_wrapper == dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
    assert cfg.model == cuda_config().model  # mmengine reverts SyncBN itself when not distributed
    assert len(result) == 1
    assert 'fp32' in result[0]


@pytest.mark.parametrize(
    ('launcher', 'ranks'),
    [
        ('pytorch', dict(RANK='0', WORLD_SIZE='1', LOCAL_RANK='0')),
        ('slurm', dict(SLURM_PROCID='0', SLURM_NTASKS='1', SLURM_LOCALID='0', SLURM_NODELIST='here')),
        (
            'mpi',
            dict(OMPI_COMM_WORLD_RANK='0', OMPI_COMM_WORLD_SIZE='1', OMPI_COMM_WORLD_LOCAL_RANK='0'),
        ),
    ],
)
def test_launched_ranks_without_cuda_meet_on_gloo(monkeypatch, launcher, ranks):
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        monkeypatch.setenv(name, '')  # restored afterwards, whatever the launcher exports
    for name, value in dict(ranks, MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port)).items():
        monkeypatch.setenv(name, value)
    cfg = cuda_config()
    cfg.find_unused_parameters = True
    try:
        result = compat.adapt_to_cpu(cfg, launcher)
        assert torch.distributed.get_backend() == 'gloo'
        assert os.environ['RANK'] == '0'
        assert os.environ['WORLD_SIZE'] == '1'
    finally:
        torch.distributed.destroy_process_group()
    assert cfg.model_wrapper_cfg.device_ids is None
    assert cfg.model_wrapper_cfg.find_unused_parameters
    assert (cfg.model, cfg.sync_bn) == (cuda_config().model, 'torch')  # the built model is asked
    assert len(result) == 3, result


@pytest.fixture
def one_launched_rank(monkeypatch, tmp_path):
    """A process group of this process alone, as a launcher leaves it to the Runner."""
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/group', rank=0, world_size=1)
    monkeypatch.setenv('LOCAL_RANK', '0')
    yield
    torch.distributed.destroy_process_group()


class Projector(BaseModel):
    """mmpretrain's neck with the norm that it has by default, beside ordinary batch norm."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(4)
        self.neck = NonLinearNeck(4, 8, 4, with_last_bn_affine=False)

    def forward(self, inputs, mode):
        return self.neck((self.norm(inputs)[..., None, None],))


@pytest.mark.parametrize(('config', 'layers'), [({}, 2), (dict(sync_bn='torch'), 3)])
@pytest.mark.usefixtures('one_launched_rank')
def test_synchronised_batch_norm_that_no_config_names_is_replaced(tmp_path, config, layers):
    settings = dict(device_ids=None, broadcast_buffers=False)
    runner = Runner(
        model=Projector(),
        work_dir=str(tmp_path),
        launcher='pytorch',
        experiment_name=f'sync_bn_{layers}',
        cfg=Config(dict(model_wrapper_cfg=dict(type='MMDistributedDataParallel', **settings), **config)),
    )
    norms = [m for m in runner.model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == 3
    assert not any(isinstance(norm, torch.nn.SyncBatchNorm) for norm in norms)
    assert [norm.affine for norm in norms] == [True, True, False]
    runner.model.train()(torch.rand(4, 4), mode='tensor')
    log = next(tmp_path.rglob('*.log')).read_text()
    assert f'no CUDA: SyncBN -> BN in {layers} layers, statistics per rank' in log
    assert 'SyncBuffersHook' in [type(hook).__name__ for hook in runner.hooks]


class Plain(BaseModel):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(4)

    def forward(self, inputs, mode):
        return self.norm(inputs)


@pytest.mark.usefixtures('one_launched_rank')
def test_a_model_without_synchronised_batch_norm_keeps_its_statistics(tmp_path):
    settings = dict(device_ids=None, broadcast_buffers=False)
    runner = Runner(
        model=Plain(),
        work_dir=str(tmp_path),
        launcher='pytorch',
        experiment_name='sync_bn_none',
        cfg=Config(dict(model_wrapper_cfg=dict(type='MMDistributedDataParallel', **settings))),
    )
    assert 'SyncBN' not in next(tmp_path.rglob('*.log')).read_text()
    assert 'SyncBuffersHook' not in [type(hook).__name__ for hook in runner.hooks]


@pytest.mark.parametrize(('ranks', 'refused'), [(2, False), (3, True)])
def test_more_ranks_than_gpus_are_refused(monkeypatch, ranks, refused):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(mmengine.dist, 'init_dist', lambda *args, **kwargs: None)
    monkeypatch.setenv('LOCAL_WORLD_SIZE', str(ranks))
    if refused:
        with pytest.raises(running.UsageError, match='3 ranks on 2 GPUs, expected at most one on each'):
            running.prepare(cuda_config(), 'pytorch')
    else:
        running.prepare(cuda_config(), 'pytorch')


def test_a_file_appears_when_it_is_whole(tmp_path, monkeypatch):
    path = tmp_path / 'new' / 'epoch_1.pth'
    LocalBackend().put(b'first', path)

    def fails(descriptor):
        raise OSError('disk full')

    monkeypatch.setattr('os.fsync', fails)
    with pytest.raises(OSError, match='disk full'):
        LocalBackend().put(b'second', path)
    assert path.read_bytes() == b'first'


def test_an_epoch_is_counted_from_its_first_batch(tmp_path):
    class Net(BaseModel):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def forward(self, inputs, mode):
            return dict(loss=self.weight * inputs.sum())

    class Batches(torch.utils.data.BatchSampler):
        first = 2

        def __iter__(self):
            yield from list(super().__iter__())[self.first :]

    class Counter(Hook):
        def __init__(self):
            self.counted = []

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            self.counted.append(batch_idx)

    counter = Counter()
    data = [dict(inputs=torch.ones(1))] * 10
    Runner(
        model=Net(),
        work_dir=str(tmp_path),
        train_dataloader=torch.utils.data.DataLoader(data, batch_sampler=Batches(range(10), 2, True)),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=[counter],
        experiment_name='epoch_resume',
        default_hooks=dict(sampler_seed=None),
    ).train()
    assert counter.counted == [2, 3, 4]


def test_a_config_is_formatted_once(monkeypatch):
    yapf = importlib.import_module('yapf.yapflib.yapf_api')  # mmengine's own dependency
    calls, format_code = [], yapf.FormatCode
    monkeypatch.setattr(yapf, 'FormatCode', lambda *a, **k: calls.append(1) or format_code(*a, **k))
    config = Config(dict(model=dict(type='A', layers=list(range(40))), lr=0.25))
    first = config.pretty_text
    assert config.pretty_text == first and copy.deepcopy(config).pretty_text == first and len(calls) == 1
    config.lr = 0.5
    assert config.pretty_text == first.replace('0.25', '0.5') and len(calls) == 2
    plain = Config(dict(config), format_python_code=False).pretty_text
    assert len(calls) == 2 and plain.count('\n') < first.count('\n')


def test_mlflow_writes_to_a_folder_and_pictures_have_an_ending(tmp_path, monkeypatch):
    """MLflow is not in the lock: what it is asked for. `make test-loggers` runs it."""
    asked = {}
    stand_in = types.SimpleNamespace(
        set_tracking_uri=lambda uri: asked.update(uri=uri, allowed=os.environ.get('MLFLOW_ALLOW_FILE_STORE')),
        get_experiment_by_name=lambda name: name,
        set_experiment=lambda name: None,
        log_image=lambda image, name: asked.update(name=name),
        MlflowException=ValueError,
    )
    monkeypatch.setitem(sys.modules, 'mlflow', stand_in)
    monkeypatch.delenv('MLFLOW_ALLOW_FILE_STORE', raising=False)
    MMLogger.get_instance('mlflow', logger_name='mlflow')
    backend = MLflowVisBackend(save_dir=str(tmp_path))
    backend.add_image('val_part', np.zeros((8, 8, 3), np.uint8), step=3)
    assert asked == dict(uri=f'file://{tmp_path}/mlruns', allowed='true', name='val_part/3.png')
    monkeypatch.delenv('MLFLOW_ALLOW_FILE_STORE')
    MLflowVisBackend(save_dir=str(tmp_path), tracking_uri='http://127.0.0.1:1').experiment  # noqa: B018
    assert asked['uri'].startswith('http') and asked['allowed'] is None
