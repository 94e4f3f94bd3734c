"""Check before the first iteration that the model has the weights that its config names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseAveragedModel, is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop
from mmengine.runner.checkpoint import CheckpointLoader

from projects.config import names
from projects.xray import box_head
from projects.xray.handover import (
    ALLOWED_MISSING,
    ALLOWED_UNEXPECTED,
    HandoverError,
    command_for,
    compare,
    dicts,
    fingerprint,
    loading_of,
    loading_of_file,
    refuse_untrained,
)


@dataclass
class _File:
    """A checkpoint: its tensors, and its metadata about the run that wrote it."""

    tensors: dict[str, torch.Tensor]
    trained_as: str | None
    loaded_as: dict | None
    classes: list[str] | None


@HOOKS.register_module()
class VerifiedLoadHook(Hook):
    """Stops a training that would not start from the weights that its config names.

    Before the weights are initialised, every file in `init_cfg` or `load_from` must exist and contain the
    prefix. After the initialisation, the model's tensors are compared with the file's. This finds a missing
    prefix, a wrong file or a later re-initialisation, even if the libraries report no problem. If `load_from`
    is set, only its file is compared, since it overwrites the weights of `init_cfg`. The whole backbone must
    match, except:

    - unexpected in the file: `mask_token`, `fc.*`, `head.*`;
    - missing in the file: `norm0`-`norm2` of a Swin that also outputs these stages, and `mask_token` if the
      target is SimMIM.

    If the checkpoint is a detector of radiographs (`load_from`), every tensor of neck and heads must match
    too. If its classes differ from the run's, `box_head.py` maps its box head to the run's classes, and the
    log lists the mapping. A test uses the same mapping.

    A checkpoint is refused if its metadata say that it had no update (iteration 0), that it was trained on
    another image set than its path names, or that its radiographs had another window or normalisation than
    this run's. A resumed run continues with its own weights, so they are not compared.
    """

    def before_run(self, runner) -> None:
        """Check that the files exist and fit, before mmengine loads them.

        Raises:
            HandoverError: A file or a prefix is missing, or the image set differs.
        """
        if not isinstance(runner._train_loop, BaseLoop):
            return  # a test initialises no weights
        self.files = {}
        for key, checkpoint, prefix in self._sources(runner):
            if checkpoint not in self.files:
                self.files[checkpoint] = self._read(key, checkpoint)
            tensors = self.files[checkpoint].tensors
            if prefix and not any(name.startswith(prefix) for name in tensors):
                raise HandoverError(
                    f"{checkpoint}: no tensor named '{prefix}*', expected by {key}.prefix; it starts with "
                    f"'{next(iter(tensors), '')}': correct the prefix, or name the right checkpoint"
                )

    def before_train(self, runner) -> None:
        """Compare the model with the file, log the result, and stop on a difference.

        Raises:
            HandoverError: A tensor of the backbone differs from the file.
        """
        files, self.files = self.files, {}
        if runner._resume and runner._has_loaded:
            return
        model = _unwrap(runner.model)
        sources = self._sources(runner)
        if runner._load_from:
            sources = [source for source in sources if source[0] == 'load_from']
        if not sources:
            runner.logger.info('Hand-over: none, training starts from random weights')
        for key, checkpoint, prefix in sources:
            path = '' if key == 'load_from' else key.removesuffix('.init_cfg').removeprefix('model')
            module = model.get_submodule(path.lstrip('.'))
            whole = key == 'load_from' and self._adapt(runner, files[checkpoint])
            self._verify(runner, module, key, checkpoint, prefix, files[checkpoint], whole)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Map the box head to the classes of the run before mmengine loads it, also in a test."""
        if not runner._resume:
            file = _File(checkpoint.get('state_dict', {}), None, None, _classes_of(checkpoint))
            if self._adapt(runner, file, runner.logger.info) and file.tensors is not checkpoint['state_dict']:
                checkpoint['state_dict'] = file.tensors

    @staticmethod
    def _adapt(runner, file: _File, report=lambda text: None) -> bool:
        """Map a file's heads to the classes of the run; True if the file is a detector of radiographs."""
        training = isinstance(runner._train_loop, BaseLoop)
        loader = runner.cfg.get('train_dataloader' if training else 'test_dataloader') or {}
        data = next((d for d in dicts(loader) if 'metainfo' in d), {})
        classes = (data.get('metainfo') or {}).get('classes')
        groups = (
            box_head.group_classes(file.classes, classes, data.get('severity'))
            if file.classes and classes
            else None
        )
        if groups is None:
            return False
        if list(file.classes) != list(classes):
            file.tensors = box_head.map_heads(file.tensors, _unwrap(runner.model).state_dict(), groups)
            report(f'Box head: {box_head.say(file.classes, classes, groups)}')
        return True

    def _sources(self, runner) -> list[tuple[str, str, str]]:
        """List (config key, checkpoint, prefix that ends in a dot or is empty) of every file to load."""
        sources, copied = [], []
        # An average copies its model's weights at its first step, whatever it contains before. So a file that
        # the model names, too, need not be in the average.
        averages = tuple(
            f'{name}.'
            for name, module in _unwrap(runner.model).named_modules()
            if isinstance(module, BaseAveragedModel) and module.steps == 0
        )
        for name, module in _unwrap(runner.model).named_modules():
            settings = getattr(module, 'init_cfg', None) or []
            for init_cfg in [settings] if isinstance(settings, dict) else settings:
                if init_cfg.get('type') == 'Pretrained':
                    prefix = init_cfg.get('prefix') or ''
                    key = '.'.join(filter(None, ('model', name, 'init_cfg')))
                    source = (init_cfg['checkpoint'], prefix and prefix.rstrip('.') + '.')
                    (copied if name.startswith(averages) else sources).append((key, *source))
        sources += [source for source in copied if source[1:] not in {other[1:] for other in sources}]
        if runner._load_from and not runner._resume:
            sources.append(('load_from', str(runner._load_from), ''))
        return sources

    @staticmethod
    def _read(key: str, checkpoint: str) -> _File:
        """Read a checkpoint that a config names."""
        if '://' not in checkpoint and not Path(checkpoint).expanduser().is_file():
            command = command_for(checkpoint)
            remedy = f'make it with `{command}`' if command else 'put it there or correct the path'
            raise HandoverError(f'{checkpoint}: no such checkpoint, expected by {key}; {remedy}')
        content = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu', logger='silent')
        meta = content.get('meta') or {}
        refuse_untrained(checkpoint, meta)
        trained_as = re.sub(r'_\d{8}_\d{6}$', '', meta.get('experiment_name', '')) or None
        named, own = names.image_set(checkpoint), names.image_set(trained_as or '')
        if named and own and named != own:
            raise HandoverError(
                f"{checkpoint}: trained on '{own}' (as {trained_as}), expected '{named}', which {key} names; "
                f'train on {named}, or keep the checkpoint in a folder with its own image set in the name'
            )
        tensors = {re.sub(r'^module\.', '', k): v for k, v in content.get('state_dict', content).items()}
        return _File(tensors, trained_as, loading_of_file(meta), _classes_of(content))

    @staticmethod
    def _verify(runner, module, key, checkpoint, prefix, file: _File, whole: bool) -> None:
        """Compare one module with a file, log the result, and raise on a difference."""
        trained_as, loaded_as = file.trained_as, file.loaded_as
        tensors = {k.removeprefix(prefix): v for k, v in file.tensors.items() if k.startswith(prefix)}
        inner = next((n for n in ('backbone', 'architecture.backbone') if _has(module, n)), '')
        backbone = module.get_submodule(inner)
        start = inner and inner + '.'
        part = {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
        result = compare(backbone, part)

        last = len(getattr(backbone, 'stages', ())) - 1
        refused = {
            'missing': [k for k in result.missing if not _may_miss(k, last)],
            'unexpected': [k for k in result.unexpected if not ALLOWED_UNEXPECTED.fullmatch(k)],
            'of another shape': result.mismatched,
            'with other values': result.different,
        }
        total = len(result.matched) + len(result.missing) + len(result.mismatched) + len(result.different)
        origin = f'{checkpoint}' + (f" (prefix '{prefix}')" if prefix else '')
        lines = [
            f'Hand-over to {type(backbone).__name__} ({key})',
            f'  file        {origin}',
            f'  trained as  {trained_as or "not said"}',
            f'  image set   {names.image_set(trained_as or "") or "not said"}',
            f'  loaded as   {_words(loaded_as) if loaded_as else "not said"}',
            f'  matched     {len(result.matched)} of {total} tensors',
            f'  missing     {_shown(result.missing, refused["missing"])}',
            f'  unexpected  {_shown(result.unexpected, refused["unexpected"])}',
            f'  mismatched  {_shown(result.mismatched, result.mismatched)}',
            f'  different   {_shown(result.different, result.different)}',
            f'  backbone    sha256 {fingerprint(backbone)}',
        ]
        if start:
            own = {k: v for k, v in module.state_dict().items() if not k.startswith(start)}
            rest = {k: v for k, v in tensors.items() if not k.startswith(start)}
            other = [k for k in own if k in rest and own[k].shape != rest[k].shape]
            lines.append(
                f'  other parts {len(own.keys() & rest.keys()) - len(other)} matched, '
                f'{len(own.keys() - rest.keys())} missing, {len(rest.keys() - own.keys())} unexpected, '
                f'mismatched: {_shown(other, [])}'
            )
        runner.logger.info('\n'.join(lines))

        own = loading_of(runner.cfg.to_dict())
        if own and loaded_as and own != loaded_as:
            raise HandoverError(
                f'{origin}: trained on radiographs loaded as {_words(loaded_as)}, expected {_words(own)}, as '
                'in this run; use one xray_load and one normalisation for both, or pretrain again'
            )
        problems = [f'{len(keys)} {what} ({_some(keys)})' for what, keys in refused.items() if keys]
        if problems:
            raise HandoverError(
                f'{origin}: {len(result.matched)} of the {total} tensors of {type(backbone).__name__} match, '
                f'expected all: {"; ".join(problems)}; {_remedy(backbone, part, start + prefix)}'
            )
        if whole:
            _check_rest(module, tensors, start, origin)


def _check_rest(module: torch.nn.Module, tensors: dict, backbone: str, origin: str) -> None:
    """Compare a detector's neck and heads with a file's.

    Args:
        module: The detector.
        tensors: Tensors of the file.
        backbone: Prefix of the backbone's names, which have been compared before.
        origin: Name of the file for messages.

    Raises:
        HandoverError: A tensor differs.
    """
    result = compare(module, tensors)
    found = {
        'missing': result.missing,
        'unexpected': result.unexpected,
        'of another shape': result.mismatched,
        'with other values': result.different,
    }
    found = {what: [k for k in keys if not k.startswith(backbone)] for what, keys in found.items()}
    problems = [f'{len(keys)} {what} ({_some(keys)})' for what, keys in found.items() if keys]
    if problems:
        raise HandoverError(
            f'{origin}: neck and heads of the detector differ, expected all alike: {"; ".join(problems)}; '
            'name the checkpoint of a detector of this architecture, or take its backbone alone by init_cfg'
        )


def _classes_of(content: dict) -> list[str] | None:
    """Return the classes in the metadata of an mmengine checkpoint; None without classes."""
    dataset_meta = (content.get('meta') or {}).get('dataset_meta') or {}
    classes = dataset_meta.get('classes') if isinstance(dataset_meta, dict) else None
    names = isinstance(classes, list | tuple) and all(isinstance(name, str) for name in classes)
    return list(classes) if names else None


def _words(loading: dict) -> str:
    return ', '.join(f'{key} {value}' for key, value in loading.items())


def _unwrap(model: torch.nn.Module) -> torch.nn.Module:
    return model.module if is_model_wrapper(model) else model


def _has(module: torch.nn.Module, name: str) -> bool:
    try:
        module.get_submodule(name)
    except AttributeError:
        return False
    return True


def _may_miss(key: str, last_stage: int) -> bool:
    """Whether a file may lack `key`: pretraining trains the last stage's norm but not the others."""
    match = ALLOWED_MISSING.fullmatch(key)
    return bool(match) and (match[1] is None or int(match[1]) < last_stage)


def _some(keys: Sequence[str]) -> str:
    return ', '.join(keys[:3]) + (', …' if len(keys) > 3 else '')


def _shown(keys: Sequence[str], refused: Sequence[str]) -> str:
    if not keys:
        return 'none'
    return f'{len(keys)} ({_some(keys)})' + ('' if refused else ', allowed')


def _remedy(backbone: torch.nn.Module, tensors: dict, prefix: str) -> str:
    """Suggest the fitting prefix, if there is one."""
    first = next(iter(backbone.state_dict()))
    for key in tensors:
        if key.endswith('.' + first):
            return f"set prefix='{prefix}{key.removesuffix(first)}' in init_cfg"
    return 'name the checkpoint of this architecture'
