"""Loading a complete checkpoint, and a test on the val set."""

import contextlib
from collections.abc import Iterator

from mmengine.config import Config
from mmengine.runner import Runner, TestLoop

from projects.xray.handover import HandoverError, refuse_untrained


def load_strictly(runner: Runner, checkpoint: str, config: str) -> dict:
    """Load a checkpoint only if all weights match: results of a partly loaded model mean nothing.

    Returns:
        dict: The checkpoint's `meta` about its training (`seed`, `epoch`, …); may be empty.

    Raises:
        HandoverError: A key or a shape differs, or no update has changed the weights.
    """
    try:
        meta = runner.load_checkpoint(checkpoint, map_location='cpu', strict=True).get('meta') or {}
    except RuntimeError as error:
        if 'do not match' not in str(error):
            raise
        differences = ' '.join(str(error).split())
        if len(differences) > 300:
            differences = differences[:300] + ' …'
        raise HandoverError(
            f'{checkpoint}: its weights are not those of the model in {config}, expected every key and shape '
            f'alike ({differences}); give the checkpoint that this config trained'
        ) from None
    refuse_untrained(checkpoint, meta)
    return meta


@contextlib.contextmanager
def on_val(runner: Runner, cfg: Config) -> Iterator[None]:
    """Let the runner test on the val set without drawing; `Runner.val` would save a best checkpoint."""
    hooks = [hook for hook in runner.hooks if getattr(hook, 'draw', False)]
    for hook in hooks:
        hook.draw = False
    own, runner._test_loop = runner._test_loop, TestLoop(runner, cfg.val_dataloader, cfg.val_evaluator)
    yield
    runner._test_loop = own
    for hook in hooks:
        hook.draw = True
