"""Hooks: weights proven to arrive, a finite loss, the pace of a run, pictures of what the model saw."""

import ast
import copy
import hashlib
import json
import re
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop
from mmengine.runner.checkpoint import CheckpointLoader
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'

# What may differ in a hand-over, and nothing else. Integer buffers (`num_batches_tracked` counts batches,
# `relative_position_index` follows from the window size) carry nothing learnt.
ALLOWED_UNEXPECTED = re.compile(r'mask_token|fc\..*|head\..*')
ALLOWED_MISSING = re.compile(r'norm([0-2])\.(weight|bias)|mask_token')
NOT_LEARNT = ('num_batches_tracked', 'relative_position_index')

IMAGE_SET = re.compile(r'_(industrial|castings-a|castings-b|synthetic)(?=-|_|$)')


class HandoverError(ValueError):
    """A run would start from other weights than its config says; one line with the remedy."""


@dataclass
class Handover:
    """One comparison of a model's tensors with those of a file; keys are relative to the module."""

    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    mismatched: list[str]
    different: list[str]


def compare(module: torch.nn.Module, state: dict[str, torch.Tensor]) -> Handover:
    """Compare a module's tensors with a file's.

    The file is loaded into a copy, through the module's own loading code, so that what it converts (old
    names, tables of another window size) counts as what it becomes. The module itself is only read.

    Args:
        module: The module as it will be trained.
        state: Tensors of the file under the module's own names.

    Returns:
        Keys `matched` (equal values), `missing` in the file, `unexpected` in it, `mismatched` in shape, and
        `different`: in the file, but with other values in the module.
    """
    duplicate = copy.deepcopy(module).cpu()
    missing, unexpected, errors = [], [], []

    def load(part, tensors, prefix):
        part._load_from_state_dict(tensors, prefix, {}, True, missing, unexpected, errors)
        for name, child in part.named_children():
            inner = f'{prefix}{name}.'
            load(child, {k: v for k, v in tensors.items() if k.startswith(inner)}, inner)

    load(duplicate, dict(state), '')
    mismatched = [match[1] for match in (re.match(r'size mismatch for (\S+):', e) for e in errors) if match]
    loaded = duplicate.state_dict()
    matched, different = [], []
    for key, tensor in module.state_dict().items():
        if key.endswith(NOT_LEARNT) or key in missing or key in mismatched:
            continue
        (matched if torch.equal(tensor.cpu(), loaded[key]) else different).append(key)
    return Handover(
        matched,
        [k for k in missing if not k.endswith(NOT_LEARNT)],
        [k for k in unexpected if not k.endswith(NOT_LEARNT)],
        [k for k in mismatched if not k.endswith(NOT_LEARNT)],
        different,
    )


def fingerprint(module: torch.nn.Module) -> str:
    """Return 12 hexadecimal digits of the SHA-256 of a module's learnt tensors, whatever their order."""
    digest = hashlib.sha256()
    for key, tensor in sorted(module.state_dict().items()):
        if not key.endswith(NOT_LEARNT):
            digest.update(key.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def command_for(checkpoint: str) -> str | None:
    """Return the command that makes a checkpoint, or None when no config has its folder's name."""
    for folder in reversed(Path(checkpoint).parent.parts):
        for config in sorted(CONFIGS.glob(f'*/{folder}.py')):
            gpus = re.search(r'_(\d+)xb', folder)
            name = config.relative_to(CONFIGS.parent)
            if gpus and gpus[1] != '1':
                return f'tools/dist_train.sh {name} {gpus[1]}'
            return f'python tools/train.py {name}'
    return None


def image_set(name: str) -> str | None:
    """Return the image set that a config stem, or a path that contains one, names last."""
    found = [match[1] for part in Path(name).parts for match in IMAGE_SET.finditer(part)]
    return found[-1] if found else None


def loading_of(config: dict) -> dict | None:
    """Return how a config's training radiographs reach its model, None where it has no LoadXray.

    Args:
        config: Config; only `train_dataloader` and the first `data_preprocessor` with a mean are looked at.

    Returns:
        `window`, `dtype`, `mean` and `std`; the size to which larger radiographs are shrunk may differ.
    """
    loads = (d for d in _dicts(config.get('train_dataloader')) if d.get('type') == 'LoadXray')
    load = next(loads, None)
    norms = (d.get('data_preprocessor') for d in _dicts(config))
    norm = next((d for d in norms if isinstance(d, dict) and d.get('mean') is not None), {})
    return load and _loading(load, norm.get('mean') or (), norm.get('std') or ())


def _loading(load: dict, mean: Sequence[float], std: Sequence[float]) -> dict:
    window = dict(load.get('window') or dict(type='full'))
    return dict(
        window={key: value for key, value in window.items() if (key, value) != ('log', False)},
        dtype=load.get('dtype', 'uint8'),
        mean=[round(float(value), 4) for value in mean],
        std=[round(float(value), 4) for value in std],
    )


def loading_of_file(meta: dict) -> dict | None:
    """Return the same of the run that wrote a file, None where the file does not say.

    Args:
        meta: Text of `backbone.safetensors`, or `meta` of a checkpoint, whose dumped config is read but never
            run.
    """
    try:
        if meta.get('load'):
            load = _value_of(ast.parse(meta['load'], mode='eval').body)
            return _loading(load, json.loads(meta['mean']), json.loads(meta['std'])) if load else None
        statements = ast.parse(meta.get('cfg') or '').body
        config = {
            s.targets[0].id: _value_of(s.value)
            for s in statements
            if isinstance(s, ast.Assign) and isinstance(s.targets[0], ast.Name)
        }
        return loading_of(config)
    # What a file of another origin calls `cfg` or `mean` is anything.
    except (SyntaxError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _value_of(node: ast.expr):
    """Value of an expression of a dumped config: dicts in either form, lists, constants; None for others."""
    if isinstance(node, ast.Call):
        named = {k.arg: _value_of(k.value) for k in node.keywords}
        return named | (named.pop(None, None) or {})  # `**{…}`, of keys that are no names
    if isinstance(node, ast.Dict):
        return {_value_of(k): _value_of(v) for k, v in zip(node.keys, node.values)}
    if isinstance(node, ast.List | ast.Tuple):
        return [_value_of(element) for element in node.elts]
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def _dicts(node):
    """Yield every dict of a config."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    for value in node if isinstance(node, list | tuple) else ():
        yield from _dicts(value)


@HOOKS.register_module()
class VerifiedLoadHook(Hook):
    """Stops a training that would not start from the weights its config names.

    Before the weights are initialised, every file that `init_cfg` or `load_from` names must exist and hold
    the prefix; after it, the model's tensors are compared with the file's, so that a missing prefix, a wrong
    file or a later re-initialisation is caught whatever the libraries log. `load_from` is compared when it
    is set, since it overwrites what `init_cfg` loaded. The whole backbone must match, bar:

    - unexpected in the file: `mask_token`, `fc.*`, `head.*`;
    - missing in the file: `norm0`-`norm2` of a Swin that outputs those stages too, and `mask_token` when the
      target is SimMIM.

    A checkpoint that says it was trained on another image set than its path names is refused, and one that
    says that its radiographs were windowed or normalised otherwise than those of this run. Nothing is
    compared on resume, where the run goes on with its own weights.
    """

    def before_run(self, runner) -> None:
        """Check that the files are there and fit, before mmengine loads them.

        Raises:
            HandoverError: A file or a prefix is missing, or the image set is another.
        """
        if not isinstance(runner._train_loop, BaseLoop):
            return  # a test: nothing is initialised
        self.files = {}
        for key, checkpoint, prefix in self._sources(runner):
            if checkpoint not in self.files:
                self.files[checkpoint] = self._read(key, checkpoint)
            tensors = self.files[checkpoint][0]
            if prefix and not any(name.startswith(prefix) for name in tensors):
                raise HandoverError(
                    f"{checkpoint}: no tensor named '{prefix}*', expected by {key}.prefix; it starts with "
                    f"'{next(iter(tensors), '')}': correct the prefix, or name the right checkpoint"
                )

    def before_train(self, runner) -> None:
        """Compare the model with the file, print the result, stop on a difference.

        Raises:
            HandoverError: Part of the backbone did not get the file's weights.
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
            self._verify(runner, module, key, checkpoint, prefix, *files[checkpoint])

    def _sources(self, runner) -> list[tuple[str, str, str]]:
        """List (config key, checkpoint, prefix ending in a dot or empty) of every file that is loaded."""
        sources = []
        for name, module in _unwrap(runner.model).named_modules():
            settings = getattr(module, 'init_cfg', None) or []
            for init_cfg in [settings] if isinstance(settings, dict) else settings:
                if init_cfg.get('type') == 'Pretrained':
                    prefix = init_cfg.get('prefix') or ''
                    key = '.'.join(filter(None, ('model', name, 'init_cfg')))
                    sources.append((key, init_cfg['checkpoint'], prefix and prefix.rstrip('.') + '.'))
        if runner._load_from and not runner._resume:
            sources.append(('load_from', str(runner._load_from), ''))
        return sources

    @staticmethod
    def _read(key: str, checkpoint: str) -> tuple[dict, str | None, dict | None]:
        """Return a file's tensors, the experiment that wrote it, and how that loaded its radiographs."""
        if '://' not in checkpoint and not Path(checkpoint).expanduser().is_file():
            command = command_for(checkpoint)
            remedy = f'make it with `{command}`' if command else 'put it there or correct the path'
            raise HandoverError(f'{checkpoint}: no such checkpoint, expected by {key}; {remedy}')
        content = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu', logger='silent')
        meta = content.get('meta') or {}
        trained_as = re.sub(r'_\d{8}_\d{6}$', '', meta.get('experiment_name', '')) or None
        named, own = image_set(checkpoint), image_set(trained_as or '')
        if named and own and named != own:
            raise HandoverError(
                f"{checkpoint}: trained on '{own}' (as {trained_as}), expected '{named}', which {key} names; "
                f'train on {named}, or name the checkpoint that it is'
            )
        tensors = {re.sub(r'^module\.', '', k): v for k, v in content.get('state_dict', content).items()}
        return tensors, trained_as, loading_of_file(meta)

    @staticmethod
    def _verify(runner, module, key, checkpoint, prefix, tensors, trained_as, loaded_as) -> None:
        """Compare one module, log the block, raise on a difference."""
        tensors = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
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
            f'  image set   {image_set(trained_as or "") or "not said"}',
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
                'this run loads its own; use one xray_load and one normalisation for both, or pretrain again'
            )
        problems = [f'{len(keys)} {what} ({_some(keys)})' for what, keys in refused.items() if keys]
        if problems:
            raise HandoverError(
                f'{origin}: {len(result.matched)} of the {total} tensors of {type(backbone).__name__} match, '
                f'expected all: {"; ".join(problems)}; {_remedy(backbone, part, start + prefix)}'
            )


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
    """Whether a file may lack `key`: the last stage's norm is trained in pretraining, the others are not."""
    match = ALLOWED_MISSING.fullmatch(key)
    return bool(match) and (match[1] is None or int(match[1]) < last_stage)


def _some(keys: Sequence[str]) -> str:
    return ', '.join(keys[:3]) + (', …' if len(keys) > 3 else '')


def _shown(keys: Sequence[str], refused: Sequence[str]) -> str:
    if not keys:
        return 'none'
    return f'{len(keys)} ({_some(keys)})' + ('' if refused else ', allowed')


def _remedy(backbone: torch.nn.Module, tensors: dict, prefix: str) -> str:
    """Name the prefix that would fit, if one does."""
    first = next(iter(backbone.state_dict()))
    for key in tensors:
        if key.endswith('.' + first):
            return f"set prefix='{prefix}{key.removesuffix(first)}' in init_cfg"
    return 'name the checkpoint of this architecture'


class LossError(ValueError):
    """The loss is not finite; one line that names the radiographs."""


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops a training whose loss is NaN or infinite, and names the radiographs of that batch."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Check every iteration; the message hub has read the loss from the device already.

        Raises:
            LossError: A loss is not finite.
        """
        broken = [
            k for k, v in outputs.items() if 'loss' in k and not torch.isfinite(torch.as_tensor(v)).all()
        ]
        if broken:
            files = [sample.get('img_path', '?') for sample in data_batch.get('data_samples') or []]
            raise LossError(
                f'epoch {runner.epoch + 1}, iteration {runner.iter + 1}: {", ".join(broken)} not finite on '
                f'{", ".join(files) or "a batch without file names"}; look at these radiographs and their '
                'annotations, else lower optim_wrapper.optimizer.lr'
            )


@HOOKS.register_module()
class PaceHook(Hook):
    """Shows a run's pace: the loader's share of the time in the log, and a progress bar on a terminal.

    The scalar `data_share` is waiting for data over the whole time of the last 100 iterations, in [0, 1]. The
    bar goes to stderr, only where that is a terminal; log lines are printed above it, and log files hold
    plain lines.
    """

    priority = 'LOW'  # after IterTimerHook, whose times it reads

    def __init__(self):
        self.times = deque(maxlen=100)
        self.bar = None

    def before_train_epoch(self, runner) -> None:
        """Start a bar for the epoch."""
        if sys.stderr.isatty() and is_main_process():
            epoch = f'epoch {runner.epoch + 1}/{runner.max_epochs}'
            loader = runner.train_dataloader
            done = getattr(loader.batch_sampler, 'first', 0)  # of a resumed epoch
            self.bar = tqdm(total=len(loader), initial=done, desc=epoch, unit='it', leave=False)
            self.above = logging_redirect_tqdm([runner.logger])
            self.above.__enter__()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Update the share and the bar."""
        hub = runner.message_hub
        self.times.append([hub.get_scalar(f'train/{name}').current() for name in ('data_time', 'time')])
        waited, total = np.sum(self.times, axis=0)
        hub.update_scalar('train/data_share', waited / total)
        if self.bar is not None:
            self.bar.update()

    def after_train_epoch(self, runner) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.above.__exit__(None, None, None)
            self.bar.close()
            self.bar = None


# Long side of a panel, px: two stay readable side by side on a screen.
PANEL = 768
MARGIN = 12
HEADER = 36
BACKGROUND = (24, 24, 24)
FOREGROUND = (235, 235, 235)
IGNORED = (150, 150, 150)


@HOOKS.register_module()
class XrayVisualizationHook(Hook):
    """Draws predictions beside the truth on the windowed radiograph that the model saw.

    Nothing is read from disk again: the pixels are `data_batch['inputs']`, whatever the file's format and
    depth. The truth comes from the dataset, in the file's frame, whatever the pipeline does to it.

    Args:
        interval: Draw at every `interval`-th validation.
        num_images: So many images, spread evenly over the dataset; the same ones each time. None: all.
        score_thr: Predictions below this score are left out.
        draw: False turns the hook off.
        out_dir: Folder for PNG files, `<image stem>_<image id>.png`, instead of the visualizer.
    """

    def __init__(
        self,
        interval: int = 1,
        num_images: int | None = 8,
        score_thr: float = 0.3,
        draw: bool = True,
        out_dir: str | None = None,
    ):
        self.interval = interval
        self.num_images = num_images
        self.score_thr = score_thr
        self.draw = draw
        self.out_dir = out_dir
        self.validations = 0

    def before_val_epoch(self, runner) -> None:
        """Choose the images of this validation."""
        drawn = self.draw and self.validations % self.interval == 0
        self.wanted = self._choose(runner.val_dataloader.dataset) if drawn else {}
        self.validations += 1

    def before_test_epoch(self, runner) -> None:
        """Choose the images of the test."""
        self.wanted = self._choose(runner.test_dataloader.dataset) if self.draw else {}

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Draw the chosen images of a validation batch."""
        self._draw(runner, data_batch, outputs, runner.val_dataloader.dataset, 'val', runner.epoch)

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Draw the chosen images of a test batch."""
        self._draw(runner, data_batch, outputs, runner.test_dataloader.dataset, 'test', 0)

    def _choose(self, dataset) -> dict:
        """Map image ids to dataset indices."""
        count = len(dataset)
        picked = count if self.num_images is None else min(self.num_images, count)
        indices = np.linspace(0, count - 1, picked).round().astype(int).tolist()
        return {dataset.get_data_info(i)['img_id']: i for i in indices}

    def _draw(self, runner, data_batch, outputs, dataset, mode, step) -> None:
        for pixels, sample in zip(data_batch['inputs'], outputs):
            index = self.wanted.get(sample.img_id)
            if index is None:
                continue
            classes, palette = dataset.metainfo['classes'], dataset.metainfo['palette']
            scale = np.tile(sample.get('scale_factor', (1.0, 1.0)), 2)
            instances = dataset.get_data_info(index)['instances']
            truth = [
                (np.array(i['bbox']) * scale, -1 if i['ignore_flag'] else i['bbox_label'], None)
                for i in instances
            ]
            found = sample.pred_instances.cpu().numpy()
            found = found[found.scores >= self.score_thr]
            order = np.argsort(-found.scores)
            predicted = [(found.bboxes[i] * scale, found.labels[i], found.scores[i]) for i in order]
            path = Path(sample.img_path)
            note = f'score from {self.score_thr:.2f}'
            picture = draw_comparison(_to_gray(pixels), truth, predicted, classes, palette, path.name, note)
            if self.out_dir is None:
                runner.visualizer.add_image(f'{mode}_{path.stem}', picture, step)
            else:
                file = Path(self.out_dir) / f'{path.stem}_{sample.img_id}.png'
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(file, compress_level=3)  # half the time of the usual 6


def _to_gray(pixels: torch.Tensor) -> np.ndarray:
    """Turn a (1, H, W) input of any depth into (H, W) uint8; floats are 8-bit gray levels already."""
    array = pixels[0].cpu().numpy()
    if array.dtype == np.uint16:
        array = array / 257
    return array.round().clip(0, 255).astype(np.uint8)


def draw_comparison(image, truth, predicted, classes, palette, title='', note='') -> np.ndarray:
    """Draw the truth (left) and the prediction (right) on one radiograph.

    Args:
        image: (H, W) uint8.
        truth: Tuples of box [x1, y1, x2, y2] in px of `image`, label (-1: ignored region), None.
        predicted: The same with a score in place of None, best first.
        classes: Class names by label.
        palette: RGB colours by label.
        title: Shown above the truth, usually the file's name.
        note: Shown above the prediction, usually the score threshold.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    height, width = image.shape
    scale = PANEL / max(height, width)
    size = round(width * scale), round(height * scale)
    panel = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    sheet = Image.new('RGB', (2 * size[0] + 3 * MARGIN, size[1] + HEADER + 2 * MARGIN), BACKGROUND)
    for left, what, boxes in (
        (MARGIN, f'truth  {title}', truth),
        (2 * MARGIN + size[0], f'prediction  {note}', predicted),
    ):
        drawn = panel.convert('RGB')
        _draw_boxes(drawn, [(np.asarray(box) * scale, *rest) for box, *rest in boxes], classes, palette)
        sheet.paste(drawn, (left, MARGIN + HEADER))
        _draw_header(sheet, left, size[0], what, boxes, classes, palette)
    return np.asarray(sheet)


def _draw_header(sheet, left, width, what, boxes, classes, palette) -> None:
    """Write what a panel shows, and at its right end the boxes per class in the class's colour."""
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(20)
    right = left + width
    for label in reversed(range(len(classes))):
        count = sum(box[1] == label for box in boxes)
        text = f'{count} {classes[label]}'
        right -= pen.textlength(text, font)
        pen.text((right, MARGIN + HEADER / 2 - 4), text, tuple(palette[label]), font, anchor='lm')
        right -= 18
    while what and pen.textlength(what, font) > right - left:
        what = what[:-2].rstrip('…') + '…' if len(what) > 2 else ''
    pen.text((left, MARGIN + HEADER / 2 - 4), what, FOREGROUND, font, anchor='lm')


def _draw_boxes(panel, boxes, classes, palette) -> None:
    """Draw outlines, then labels where they hide neither one another nor, if it can be, a box."""
    pen, font = ImageDraw.Draw(panel), ImageFont.load_default(15)
    outlines = []
    for box, label, _ in boxes:
        x1, y1, x2, y2 = (float(v) for v in box)
        colour = IGNORED if label < 0 else tuple(palette[label])
        pen.rectangle((x1 - 3, y1 - 3, x2 + 3, y2 + 3), outline=(0, 0, 0), width=1)
        pen.rectangle((x1 - 2, y1 - 2, x2 + 2, y2 + 2), outline=colour, width=2)
        outlines.append((x1 - 3, y1 - 3, x2 + 3, y2 + 3))
    tags = []
    for (_, label, score), outline in zip(boxes, outlines):
        # With one class its name says nothing.
        words = [classes[label]] if len(classes) > 1 and label >= 0 else []
        text = ' '.join(words + ([] if score is None else [f'{score:.2f}']))
        if not text:
            continue
        spot = _free_spot(outline, pen.textlength(text, font) + 8, 19, panel.size, tags, outlines)
        if spot is None:
            continue
        colour = tuple(palette[label])
        pen.rectangle(spot, fill=colour)
        light = np.dot(colour, (0.299, 0.587, 0.114)) > 140
        ink = (0, 0, 0) if light else (255, 255, 255)
        pen.text((spot[0] + 4, (spot[1] + spot[3]) / 2), text, ink, font, anchor='lm')
        tags.append(spot)


def _free_spot(outline, width, height, size, tags, outlines):
    """Find room for a label at its box: clear of other labels, and of other boxes while that is possible."""
    x1, y1, x2, y2 = outline
    above, below = y1 - height, y2
    corners = [(x1, above), (x1, below), (x2 - width, above), (x2 - width, below), (x2, y1), (x1 - width, y1)]
    spots = [
        (x, y, x + width, y + height)
        for x, y in corners
        if x >= 0 and y >= 0 and x + width <= size[0] and y + height <= size[1]
    ]
    for obstacles in (tags + [o for o in outlines if o != outline], tags):
        for spot in spots:
            if not any(_overlap(spot, other) for other in obstacles):
                return spot
    return None


def _overlap(a, b) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
