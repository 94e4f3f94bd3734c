"""Families of recipes: what trains by other code or at another size, and each at tiny settings."""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from helpers.config_grammar import CONFIGS, all_configs, distill_configs, parse_name
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.utils import import_modules_from_strings

from projects.config.names import DETECTORS

SIDE = 96
"""Of the tiny radiographs, px."""


@dataclass(frozen=True)
class Family:
    """Recipes that differ in weights, images and schedules only; `config` stands for them all."""

    folder: str
    kind: str
    method: str
    architecture: str
    config: Path

    def __str__(self):
        return '-'.join(filter(None, (self.folder, self.method, self.architecture)))


def families() -> list[Family]:
    """Return every family that the configs make up; of each a recipe whose data have both severities."""

    def preferred(path):
        return parse_name(path).images not in ('synthetic', 'synthetic-1024', 'industrial'), path.stem

    found = {}
    for path in sorted(all_configs() + distill_configs(), key=preferred):
        name = parse_name(path)
        common = name.kind == 'probe' or name.method == DETECTORS[0]  # by the kind alone
        method = name.distiller or (name.kind if common else name.method)
        architecture = name.backbone.split('-')[0]
        if name.teacher:
            architecture += '-of-' + name.teacher.split('-')[0]
        family = Family(path.parent.name, name.kind, method, architecture, path)
        found.setdefault((family.folder, family.method, family.architecture), family)
    return sorted(found.values(), key=str)


def tiny(family: Family, folder: Path, data: Path, batch: int) -> Path:
    """Write a family's recipe at tiny settings; everything that is no size stays the recipe's.

    Args:
        family: Of `families`.
        folder: Where the config goes, under the recipe's own name; a teacher's weights, drawn at random, lie
            beside it.
        data: Root of a drawn set: `images`, `train.json` and so on, `unlabeled`.
        batch: Images per rank.

    Returns:
        The config.
    """
    config = Config.fromfile(family.config)
    if isinstance(config.model.get('teacher'), str):
        config.model.teacher = Config.fromfile(CONFIGS.parent / config.model.teacher).model
    for node in dicts(config._cfg_dict):
        if 'data_root' in node:
            node.data_root = str(data)
        if 'ann_file' in node and str(node.ann_file).endswith('.json'):
            split = Path(node.ann_file).name
            node.ann_file = split if 'data_root' in node else str(data / split)
        if str(node.get('ann_file')).endswith('.txt'):  # a list of an archive
            node.update(ann_file='', data_prefix={key: 'unlabeled' for key in node.data_prefix})
        for key in ('scale', 'size', 'input_size', 'img_size'):
            if key in node and node.get('type') not in ('AnchorGenerator', 'PixelReconstructionLoss'):
                node[key] = resized(node[key])
        if node.get('type') == 'SimMIMMaskGenerator':
            node.mask_patch_size = 32 if family.folder != 'small' else 16
        if 'num_workers' in node:
            node.update(num_workers=0, persistent_workers=False, pin_memory=False)
        if isinstance(node.get('init_cfg'), dict) and node.init_cfg.get('type') == 'Pretrained':
            node.init_cfg = None
        if 'fc_out_channels' in node:
            node.fc_out_channels = 32
        if 'drop_series' in node:
            node.drop_series = ()
        if 'severity' in node and node.severity is None:  # one class, of both types that are drawn
            node.severity = dict(crack='defect', gas_pore='defect')
    for model in dicts(config.model):
        if 'backbone' in model:
            shrink(model)
    config.load_from = None
    config.train_dataloader.batch_size = batch
    if config.get('auto_scale_lr'):
        config.auto_scale_lr.base_batch_size = None  # else most steps of so few would make no update
    config.train_cfg.max_epochs = 1
    if 'val_interval' in config.train_cfg:
        config.train_cfg.val_interval = 1
    config.default_hooks.logger.interval = 1
    if 'teacher_ckpt' in config.model:
        config.model.teacher_ckpt = str(folder / 'teacher.pth')
        draw_teacher(config, folder / 'teacher.pth')
    path = folder / family.config.name
    config.dump(path)
    return path


def dicts(node):
    """Yield every dict of a config."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for value in node:
            yield from dicts(value)


def resized(value):
    """Return a size of a recipe, one number or two, as a tiny one."""
    if isinstance(value, list | tuple):
        return type(value)(resized(side) for side in value)
    return min(value, SIDE) if isinstance(value, int) else value


def shrink(model) -> None:
    """An eighth of the channels of a full-size backbone, and so of what comes after it."""
    backbone = model.backbone
    if backbone.get('arch') == 'base':
        backbone.arch = dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])
        backbone.pad_small_map = True
    elif 'depth' in backbone and backbone.get('base_channels', 64) == 64:
        backbone.update(base_channels=8, stem_channels=8)
    else:
        return
    for part in (model.get('neck'), model.get('head')):
        if part and 'in_channels' in part:
            channels = part.in_channels
            part.in_channels = [n // 8 for n in channels] if isinstance(channels, list) else channels // 8
        if part and 'input_features' in part:  # the probe's neck
            part.input_features //= 8


def draw_teacher(config, path: Path) -> None:
    """Write weights for a config's teacher."""
    import_modules_from_strings(**config.custom_imports)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        model = MODELS.build(copy.deepcopy(config.model.teacher))
    torch.save(dict(state_dict=model.state_dict()), path)
