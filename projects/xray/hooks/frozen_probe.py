"""Probing of the frozen backbone during pretraining: patches with and without a defect."""

import cv2
import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.dist import is_main_process, master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch.nn.functional import cross_entropy, normalize, one_hot

from projects.radiograph.image import ImagingError
from projects.radiograph.parts import recorded_part
from projects.xray.datasets import DatasetError, load_defects
from projects.xray.seeding import leaf_datasets
from projects.xray.transforms import LoadXray

from .drawing import _pixels, _unwrap, _view_size


@HOOKS.register_module()
class ProbeHook(Hook):
    """Tests every few epochs how well the frozen backbone separates patches with and without a defect.

    The labels are `train.json` and `val.json` beside the archive, in the folder (or URL) of the training
    set's `ann_file`, with the radiographs in `images/`. If the labels or their radiographs cannot be read,
    one line gives the reason and the hook is off. Each radiograph with boxes that a detector would learn
    (`datasets.load_defects`, no `iscrowd`) gives two square patches: one around a box and a similar one that
    touches no box, so chance is 0.5. Radiographs are loaded as in training; patches stay in memory.

    Scalars on val: `probe/knn_accuracy` (weighted 20 nearest neighbours by cosine, T = 0.07: Wu et al.,
    arXiv:1805.01978), `probe/linear_accuracy` (logistic regression). A picture shows the embedding of val by
    PCA, coloured by patch and by part. PCA is used instead of UMAP since it is deterministic, needs no
    dependency and keeps distances, so that maps of two epochs can be compared.

    The first point, epoch 0, is the backbone before training. No choice depends on these numbers.

    Args:
        interval: Epochs between two probes; the last epoch is always probed.
        max_images: Largest number of radiographs per split, spread evenly over it.
        side: Side of a patch as a share of the image's shorter side; at least twice the defect.
        neighbors: Number of nearest neighbours.
        batch_size: Patches per forward pass.
    """

    priority = 'LOW'

    def __init__(
        self,
        interval: int = 5,
        max_images: int = 400,
        side: float = 0.35,
        neighbors: int = 20,
        batch_size: int = 64,
    ):
        self.interval = interval
        self.max_images = max_images
        self.side = side
        self.neighbors = neighbors
        self.batch_size = batch_size
        self.splits = None

    def before_train(self, runner) -> None:
        """Cut the patches and probe the initial backbone."""
        if not is_main_process():
            return
        dataset = leaf_datasets(runner.train_dataloader.dataset)[0]
        # No pathlib: the root may be a URL.
        root = str(dataset.data_root).rstrip('/') or '.'
        folder = dataset.ann_file.rpartition('/')[0] or '.' if dataset.ann_file else root
        try:
            labels = [load_defects(f'{folder}/{name}.json', None) for name in ('train', 'val')]
            load = next(step for step in dataset.pipeline.transforms if isinstance(step, LoadXray))
            size = _view_size(runner.train_dataloader.dataset)
            splits = [
                cut_patches(coco, f'{root}/images', load, size, self.side, self.max_images) for coco in labels
            ]
        except (DatasetError, ImagingError) as error:
            runner.logger.info(f'Probe: off, no readable labelled split beside the archive ({error})')
            return
        counts = [len(split['labels']) for split in splits]
        runner.logger.info(f'Probe: {counts[0]} patches of {folder}/train.json, {counts[1]} of val.json')
        if min(counts) < 4:
            runner.logger.info('Probe: off, too few patches, expected 4 of each; label more radiographs')
            return
        self.splits = splits
        if runner.iter == 0:
            self._probe(runner, 0)

    @master_only
    def after_train_epoch(self, runner) -> None:
        """Probe every `interval` epochs and after the last epoch."""
        epoch = runner.epoch + 1
        if self.splits and (epoch % self.interval == 0 or epoch == runner.max_epochs):
            self._probe(runner, epoch)

    def _probe(self, runner, epoch: int) -> None:
        model = _unwrap(runner.model)
        train, val = (embed(model, split['patches'], self.batch_size) for split in self.splits)
        truth, expected = (torch.from_numpy(split['labels']) for split in self.splits)
        found = dict(
            knn_accuracy=nearest_neighbors(train, truth, val, self.neighbors),
            linear_accuracy=logistic_regression(train, truth, val),
        )
        scalars = {f'probe/{k}': float((v == expected).float().mean()) for k, v in found.items()}
        runner.visualizer.add_scalars(scalars, step=epoch)
        shown = ', '.join(f'{name.removeprefix("probe/")} {value:.3f}' for name, value in scalars.items())
        runner.logger.info(f'Probe after epoch {epoch}: {shown} (chance 0.5)')
        runner.visualizer.add_image('embedding', draw_embedding(val, self.splits[1], epoch), epoch)


def cut_patches(coco, images, load, size: int, side: float, max_images: int) -> dict:
    """Cut a patch with a defect and a patch without one from each labelled radiograph.

    Args:
        coco: Result of `load_defects`.
        images: Image folder, or its URL.
        load: `LoadXray`; if it shrinks the image, boxes shrink too.
        size: Side of the returned patches, px.
        side: Side of the cut, as a share of the image's shorter side.
        max_images: Largest number of radiographs, spread evenly.

    Returns:
        `patches` (N, 1, size, size) uint8, `labels` (N,) int64 (1: defect), `parts` N names.

    Raises:
        DatasetError: A radiograph's aspect ratio differs from its annotations.
    """
    boxes = {}
    for annotation in coco['annotations']:
        boxes.setdefault(annotation['image_id'], []).append([*annotation['bbox'], not annotation['iscrowd']])
    boxes = {image_id: np.array(rows, float) for image_id, rows in boxes.items()}
    records = [image for image in coco['images'] if image['id'] in boxes and boxes[image['id']][:, 4].any()]
    chosen = np.linspace(0, len(records) - 1, min(max_images, len(records))).round().astype(int)
    patches, labels, parts = [], [], []
    for record in (records[i] for i in chosen):
        path = f'{images}/{record["file_name"]}'
        pixels = load(dict(img_path=path))['img']
        scale = pixels.shape[1] / record['width']
        if abs(pixels.shape[0] - record['height'] * scale) > 1:
            raise DatasetError(
                f'{path}: {pixels.shape[1]} x {pixels.shape[0]} px as loaded, but its boxes were drawn on '
                f'{record["width"]} x {record["height"]} px; convert the data set again'
            )
        own, learnt = boxes[record['id']][:, :4] * scale, boxes[record['id']][:, 4] > 0
        own[:, 2:] += own[:, :2]  # x1, y1, x2, y2
        drawn = np.random.default_rng(abs(record['id']))
        target = own[learnt][drawn.integers(learnt.sum())]
        edge = max(side * min(pixels.shape), 2 * max(target[2:] - target[:2]))
        edge = int(min(edge, *pixels.shape))
        room = np.array(pixels.shape[::-1]) - edge
        corner = np.clip(((target[:2] + target[2:]) / 2 - edge / 2).round().astype(int), 0, room)
        empty = _empty_corner(pixels, own, edge, corner, drawn)
        if empty is None:
            continue
        for label, (x, y) in ((1, corner), (0, empty)):
            cut = pixels[y : y + edge, x : x + edge]
            how = cv2.INTER_AREA if edge > size else cv2.INTER_LINEAR
            patches.append(cv2.resize(cut, (size, size), interpolation=how))
            labels.append(label)
            parts.append(recorded_part(record) or recorded_part(record, 'series') or '')
    shape = (0, 1, size, size)
    patches = np.stack(patches)[:, None] if patches else np.zeros(shape, np.uint8)
    return dict(patches=patches, labels=np.array(labels, np.int64), parts=parts)


def _empty_corner(pixels, boxes, edge: int, corner, drawn) -> np.ndarray | None:
    """Find a square that touches no box and resembles the defect's square; None after a hundred tries.

    Of up to 20 random squares the nearest in mean and standard deviation is chosen. Otherwise air beside the
    part would make the task trivial.
    """

    def look(x, y):
        mean, std = cv2.meanStdDev(pixels[y : y + edge, x : x + edge])
        return np.array([mean.item(), std.item()])

    room = np.array(pixels.shape[::-1]) - edge
    tries = drawn.integers(room + 1, size=(100, 2))
    x, y = tries[:, :1], tries[:, 1:]
    touches = (boxes[:, 0] < x + edge) & (x < boxes[:, 2]) & (boxes[:, 1] < y + edge) & (y < boxes[:, 3])
    empty = tries[~touches.any(1)][:20]
    if not len(empty):
        return None
    target = look(*corner)
    return min(empty, key=lambda place: np.abs(look(*place) - target).sum())


@torch.no_grad()
def embed(model: torch.nn.Module, patches: np.ndarray, batch_size: int) -> torch.Tensor:
    """Return L2-normalised features (N, C) float32 on the CPU: the average of the backbone's last map.

    Args:
        model: A self-supervised model; its mode is restored.
        patches: (N, 1, H, W) uint8, uint16 or float32.
        batch_size: Patches per forward pass.
    """
    mode = model.training
    model.eval()
    features = []
    for start in range(0, len(patches), batch_size):
        batch = torch.from_numpy(patches[start : start + batch_size])
        inputs = model.data_preprocessor(dict(inputs=batch, data_samples=None), False)['inputs']
        last = model.extract_feat(inputs)[-1]
        features.append(normalize(last.flatten(2).mean(2).float(), dim=1).cpu())
    model.train(mode)
    return torch.cat(features)


def nearest_neighbors(train, truth, val, neighbors: int = 20, temperature: float = 0.07) -> torch.Tensor:
    """Classify by the weighted vote of the nearest neighbours.

    Args:
        train: (N, C) L2-normalised.
        truth: (N,) labels.
        val: (M, C) L2-normalised.
        neighbors: Number of neighbours that vote.
        temperature: T; a vote has the weight exp(cosine / T).

    Returns:
        (M,) labels.
    """
    similarity, index = (val @ train.T).topk(min(neighbors, len(train)), dim=1)
    votes = one_hot(truth[index]) * (similarity / temperature).exp()[..., None]
    return votes.sum(1).argmax(1)


def logistic_regression(train, truth, val, decay: float = 1e-3) -> torch.Tensor:
    """Classify by logistic regression on standardised features, fitted by L-BFGS from zero.

    Args:
        train: (N, C).
        truth: (N,) labels.
        val: (M, C).
        decay: Factor of the squared weights in the loss.

    Returns:
        (M,) labels.
    """
    mean, std = train.mean(0), train.std(0) + 1e-6
    train, val = (train - mean) / std, (val - mean) / std
    with torch.enable_grad():
        weight = torch.zeros(train.shape[1], int(truth.max()) + 1, requires_grad=True)
        bias = torch.zeros(weight.shape[1], requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn='strong_wolfe')

        def closure():
            optimizer.zero_grad()
            loss = cross_entropy(train @ weight + bias, truth) + decay * weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
    return (val @ weight + bias).argmax(1)


def draw_embedding(features: torch.Tensor, split: dict, epoch: int) -> np.ndarray:
    """Draw features on their two principal axes, coloured by patch and by part.

    Args:
        features: (N, C).
        split: See `cut_patches`.
        epoch: For the title.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    centred = features - features.mean(0)
    _, lengths, axes = torch.linalg.svd(centred, full_matrices=False)
    # The largest weight of each axis is made positive; otherwise maps of two epochs may be mirrored.
    axes = axes[:2] * axes[:2].gather(1, axes[:2].abs().argmax(1, keepdim=True)).sign()
    points = (centred @ axes.T).numpy()
    shares = (lengths.square() / lengths.square().sum())[:2].tolist()
    figure = Figure(figsize=(11, 5), dpi=100, layout='constrained')
    by_patch, by_part = figure.subplots(1, 2)
    for label, name, color in ((0, 'no defect', '#56b4e9'), (1, 'defect', '#d55e00')):
        chosen = split['labels'] == label
        by_patch.scatter(*points[chosen].T, s=12, c=color, label=name, alpha=0.7, linewidths=0)
    parts = np.array(split['parts'])
    names, counts = np.unique(parts, return_counts=True)
    largest = names[np.argsort(-counts)][:9]
    colors = matplotlib.colormaps['tab10'].colors
    others = ~np.isin(parts, largest)
    if others.any():
        label = f'{len(names) - len(largest)} others'
        by_part.scatter(*points[others].T, s=12, color='0.75', label=label, alpha=0.7, linewidths=0)
    for name, color in zip(sorted(largest), colors):
        chosen = parts == name
        by_part.scatter(
            *points[chosen].T, s=12, color=color, label=name or 'part not said', alpha=0.8, linewidths=0
        )
    for plot, title in ((by_patch, 'by patch'), (by_part, 'by part')):
        plot.set(title=f'Embedding of val, epoch {epoch}, {title}', xticks=[], yticks=[])
        plot.set_xlabel(f'first axis, {shares[0]:.0%} of the variance')
        plot.set_ylabel(f'second axis, {shares[-1]:.0%}')
        plot.legend(fontsize=8)
    return _pixels(figure)
