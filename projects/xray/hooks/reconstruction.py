"""Pictures of SimMIM's input, mask and reconstruction."""

import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from projects.xray.seeding import SeededDataset

from .drawing import _fixed_draws, _unwrap


@HOOKS.register_module()
class ReconstructionHook(Hook):
    """Draws input, masked input and reconstruction of a SimMIM pretraining, always of the same radiographs.

    Args:
        interval: Epochs between two pictures; the last epoch is always drawn.
        num_images: Rows of the picture, spread evenly over the training set.
    """

    priority = 'LOW'

    def __init__(self, interval: int = 5, num_images: int = 4):
        self.interval = interval
        self.num_images = num_images

    @master_only
    def after_train_epoch(self, runner) -> None:
        """Draw every `interval` epochs and after the last epoch."""
        epoch = runner.epoch + 1
        if epoch % self.interval == 0 or epoch == runner.max_epochs:
            model, dataset = _unwrap(runner.model), runner.train_dataloader.dataset
            picture = draw_reconstructions(model, dataset, self.num_images)
            runner.visualizer.add_image('reconstruction', picture, epoch)


@torch.no_grad()
def draw_reconstructions(model: torch.nn.Module, dataset, num_images: int) -> np.ndarray:
    """Draw one row per radiograph: input, masked (gray), reconstruction in the masked patches.

    Args:
        model: SimMIM; its mode is restored.
        dataset: Training set; its crops and masks are drawn from a fixed seed.
        num_images: Number of rows.

    Returns:
        (H, W) uint8, repeated to (H, W, 3).
    """
    dataset = dataset.dataset if isinstance(dataset, SeededDataset) else dataset
    chosen = np.linspace(0, len(dataset) - 1, min(num_images, len(dataset))).round().astype(int)
    with _fixed_draws():
        samples = [dataset[int(i)] for i in chosen]
    mode = model.training
    model.eval()
    inputs = torch.stack([sample['inputs'] for sample in samples])
    inputs = model.data_preprocessor(dict(inputs=inputs, data_samples=None), False)['inputs']
    small = torch.stack([torch.as_tensor(sample['data_samples'].mask) for sample in samples]).to(
        inputs.device
    )
    rebuilt = model.neck(model.backbone(inputs, small)[0])
    model.train(mode)
    factor = inputs.shape[-1] // small.shape[-1]
    mask = small.repeat_interleave(factor, 1).repeat_interleave(factor, 2)[:, None].float()
    mean, std = model.data_preprocessor.mean, model.data_preprocessor.std
    gray, filled = (
        (x * std + mean).mean(1, keepdim=True) for x in (inputs, inputs * (1 - mask) + rebuilt * mask)
    )
    panels = torch.cat([gray, gray * (1 - mask) + 128 * mask, filled], dim=3)
    rows = torch.nn.functional.pad(panels, (2, 2, 2, 2), value=255).cpu()
    sheet = rows[:, 0].flatten(0, 1).round().clamp(0, 255).byte().numpy()
    return np.repeat(sheet[..., None], 3, axis=2)
