"""Training in the channels-last memory layout, which is faster on tensor cores."""

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Converts a model to the channels-last memory layout.

    PyTorch's convolutions follow the layout of their weights, so only the weights are converted, before a
    checkpoint is loaded and training starts. Not for detectors: mmcv's operators assume channels first.

    No recipe without mixed precision uses the hook. On a CPU it shortens a SimSiam step of ResNet-18 to five
    sixths. But if views are nearly identical (eight generated radiographs, PyTorch 2.10), gradients differ
    from double precision by up to 0.5 % instead of 0.003 %, so that loss curves diverge after a few steps. On
    an H100 in mixed precision a step of ResNet-50 also takes five sixths of the time (docs/speed.md). There,
    add the hook to `custom_hooks`, as the pretraining in configs/one_gpu does.
    """

    def before_run(self, runner) -> None:
        """Change the layout of the weights."""
        to_channels_last(runner.model)

    def before_train(self, runner) -> None:
        """Change the layout of the optimizer's state in a resumed run."""
        align(runner.optim_wrapper.optimizer)


def to_channels_last(model: torch.nn.Module) -> None:
    """Change the memory layout of a model's convolution weights; values, shapes and objects stay."""
    model.to(memory_format=torch.channels_last)


def align(optimizer: torch.optim.Optimizer) -> None:
    """Convert an optimizer's state to the memory layout of its weights.

    Fused optimizers process weights and state in memory order. With momentum in another layout, such as from
    a run without the hook, they would silently train wrongly.
    """
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape:
                state[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)
