"""The cost of a recipe on this CPU, computed from its operations without running a step."""

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope
from torch.utils.flop_counter import FlopCounterMode

from projects.benchmark.train import matmul_rate
from projects.config.variables import dicts
from projects.prepare.anchors import resize_of
from projects.runs.digests import data_sets

EFFICIENCY = 0.5
"""Share of the matrix-product rate that a training step reaches on a CPU; measurements: docs/speed.md."""
RADIOGRAPHS = 1000


def cost_on_cpu(cfg: Config) -> str | None:
    """Return the time of a recipe on this CPU for 1000 radiographs, in words; None if it is not computable.

    Operations of the backbone, neck and proposal network are counted on meta tensors. A backward pass counts
    as two forward passes; a frozen backbone has no backward pass.
    """
    try:
        operations = _forward_operations(cfg)
    except Exception:  # a model that does not run on meta tensors has no computable cost
        return None
    frozen = cfg.model.type == 'ImageClassifier'
    rate = matmul_rate(amp=False)
    seconds = RADIOGRAPHS * operations * (1 if frozen else 3) / (EFFICIENCY * rate)
    epochs = cfg.train_cfg.max_epochs
    return (
        f'cost on this CPU ({rate / 1e9:.0f} GFLOP/s): {_clock(seconds)} for an epoch of {RADIOGRAPHS:,} '
        f'radiographs, {_clock(seconds * epochs)} for the {epochs} epochs'
    )


def _clock(seconds: float) -> str:
    if seconds < 5400:
        return f'{max(1, round(seconds / 60))} min'
    return f'{seconds / 3600:.0f} hours' if seconds < 48 * 3600 else f'{seconds / 86400:.0f} days'


def _forward_operations(cfg: Config) -> int:
    """Floating-point operations of a radiograph's forward pass."""
    model = cfg.model.to_dict()
    if cfg.get('data_preprocessor'):
        model['data_preprocessor'] = cfg.data_preprocessor.to_dict()
    model['backbone'].pop('init_cfg', None)
    (width, height), views = _input(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        built = MODELS.build(ConfigDict(model)).to('meta').eval()
        images = torch.empty(1, 3, height, width, device='meta')
        with FlopCounterMode(display=False) as counter:
            maps = built.backbone(images, *([None] if model['type'] == 'SimMIM' else []))
            if model.get('rpn_head'):
                built.rpn_head(built.neck(maps))
    return views * counter.get_total_flops()


def _input(cfg: Config) -> tuple[tuple[int, int], int]:
    """Width and height of the model's input in px, and the number of views per radiograph."""
    pipeline = data_sets(cfg, 'train_dataloader')[0]['pipeline']
    steps = [step for step in dicts(pipeline) if isinstance(step.get('type'), str)]
    views = next((step['num_views'] for step in steps if step['type'] == 'XrayMultiView'), 1)
    crops = [s['scale'] for s in steps if s['type'] == 'XrayRandomResizedCrop']
    crops += [s['size'] for s in steps if s['type'] == 'XrayFlawCrop']
    if crops:
        return (crops[0], crops[0]), int(views)
    resize = resize_of(pipeline)
    return (resize[0] if resize and isinstance(resize[0], tuple) else (224, 224)), 1
