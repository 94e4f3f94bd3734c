"""Exact resuming: checkpoints between epochs, a stop at SIGTERM, and the same result as without a kill."""

import signal
import sys
import time
import zipfile
from collections import deque
from pathlib import Path

import torch
from mmengine import dist
from mmengine.hooks import Hook, ParamSchedulerHook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop

from projects import __version__
from projects.errors import MMXrayError
from projects.xray.seeding import SeededBatches, SeededDataset, _WorkerInit, seed_generators

EXIT_STOPPED = 143


"""Exit code of a run that SIGTERM ended after its checkpoint: 128 + 15, the convention of shells."""


KEPT = 2


"""Number of kept checkpoints between epochs: if the newest is damaged, the one before it is used."""


class ResumeError(MMXrayError, ValueError):
    """A run cannot be resumed; one line with the remedy."""


@HOOKS.register_module()
class ResumeHook(Hook):
    """Makes a run resumable from any iteration with the same result, and writes checkpoints for this.

    Besides the checkpoints of `CheckpointHook`, the hook writes `resume_<iteration>.pth` every `minutes`
    minutes, at the next update of the weights. It keeps the last two and removes them when the training has
    ended. The time stamp of a checkpoint is always later than that of the checkpoint from which its run
    resumed, even if the clocks of the nodes differ.

    SIGTERM (a preempted job) ends the run with one line and exit code 143: after the iteration, with a new
    checkpoint, or after the validation batch, without one. A second SIGTERM has no effect, since torchrun
    forwards the signal that the scheduler has already sent to the ranks. With loops other than
    `EpochBasedTrainLoop` mmengine resumes the run, and the hook only writes checkpoints.

    A resume with another number of GPUs or another batch size continues the epoch after the same number of
    samples, with the optimizer settings and schedules of the config. Only in this case the result differs,
    and the log says so.

    Args:
        minutes: Minutes between two checkpoints.

    Raises:
        ResumeError: The model has other tensors than the checkpoint, or the ranks have loaded different ones.
    """

    priority = 'LOWEST'  # after all other hooks of an iteration

    def __init__(self, minutes: float = 10.0):
        self.seconds = 60 * minutes
        self.loaded = None
        self.refitted = False
        self.stamp = 0.0
        self.kept = deque(maxlen=KEPT)
        self.batches = None
        self.rank_buffers = None
        self.stopped = False
        self.former = None

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Remember the checkpoint's position in the epoch, and drop its state that does not fit this run."""
        if not runner._resume:
            return
        self._compare(runner, checkpoint['state_dict'])
        self._move(runner, checkpoint['message_hub']['runtime_info'])
        self.loaded = checkpoint.get('resume_state', {})
        self.stamp = _written(checkpoint['meta'])
        self.kept.append(Path(runner._load_from or '').name)
        if 'length' in self.loaded and isinstance(runner.train_loop, EpochBasedTrainLoop):
            self.refitted = any(self.loaded[key] != value for key, value in self._epoch(runner).items())
        if self.refitted:
            # Schedules count iterations of the old batch size, whose learning rate may not fit the new one.
            checkpoint.pop('param_schedulers', None)
            optimizer, own = checkpoint['optimizer'], runner.optim_wrapper.optimizer
            optimizer.pop('base_param_settings', None)
            for saved, group in zip(optimizer['param_groups'], own.param_groups):
                saved.update({key: value for key, value in group.items() if key != 'params'})

    @staticmethod
    def _compare(runner, saved: dict) -> None:
        """Refuse a checkpoint that does not fit; mmengine would continue with partly random weights."""
        own = _unwrap(runner.model).state_dict()
        for name in [*own, *saved]:
            if name.startswith('teacher.') and name not in saved:
                continue  # StudentHook removes the teacher, which comes from its own file
            expected, found = (
                f'of shape {tuple(tensors[name].shape)}' if name in tensors else 'absent'
                for tensors in (own, saved)
            )
            if found != expected:
                raise ResumeError(
                    f'{runner._load_from or runner.work_dir}: {name} is {found}, expected {expected}; go on '
                    'with the config that the run was begun with, or give another --work-dir'
                )

    @staticmethod
    def _move(runner, info: dict) -> None:
        """Point to checkpoints in this work dir; a copied run would otherwise delete the original's."""
        for key, path in info.items():
            if key in ('last_ckpt', 'best_ckpt') or key.startswith('best_ckpt_'):
                info[key] = str(Path(runner.work_dir, Path(path).name))

    def before_train(self, runner) -> None:
        """Restore the position of the checkpoint, and make the loader's draws stateless."""
        self.former = signal.signal(signal.SIGTERM, self._stop)
        if getattr(self.former, '__func__', None) is ResumeHook._stop:
            self.former = signal.SIG_DFL  # set by an earlier training that failed
        self.due = time.monotonic() + self.seconds
        if dist.is_main_process():
            for torn in Path(runner.work_dir).glob('*.pth.*part'):  # truncated by a kill
                torn.unlink()
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            runner.logger.warning(
                'ResumeHook: not an EpochBasedTrainLoop, a resumed run draws other random numbers'
            )
            return
        loader = runner.train_dataloader
        self.batches = SeededBatches(loader.batch_sampler)
        if hasattr(loader.sampler, 'seed'):
            loader.sampler.seed = runner.seed  # the checkpoint's, which may differ from the config's
        # DataLoader forbids these assignments because an iterator may be running; here none is.
        vars(loader).update(
            dataset=SeededDataset(loader.dataset, runner.seed),
            batch_sampler=self.batches,
            worker_init_fn=_WorkerInit(loader.worker_init_fn),
        )
        if runner.val_loop is not None:
            vars(runner.val_loop.dataloader).update(
                worker_init_fn=_WorkerInit(runner.val_loop.dataloader.worker_init_fn)
            )
        if self.loaded is not None:
            self._take_up(runner, self.loaded)

    def _take_up(self, runner, state: dict) -> None:
        loop, model = runner.train_loop, _unwrap(runner.model)
        places = dist.all_gather(torch.tensor([loop.epoch, loop.iter]))
        if any(not torch.equal(place, places[0]) for place in places):
            raise ResumeError(
                f'{runner.work_dir}: the ranks have loaded the iterations {[int(p[1]) for p in places]}, '
                'expected one; put the work dir on storage that all nodes share'
            )
        length, batch = self._epoch(runner).values()
        first = loop.iter - loop.epoch * state['length'] if 'length' in state else 0
        if self.refitted:
            seen = first * state['batch']
            first = length if first == state['length'] else min(seen // batch, length)
            loop._iter = loop.epoch * length + first
            runner.optim_wrapper.initialize_count_status(runner.model, loop.iter, loop.max_iters)
            self._step_schedules(runner, length)
            place = f'at batch {first + 1} of {length}' if first < length else 'with the next epoch'
            runner.logger.warning(
                f'Resumed with {length} batches of {batch} after {state["length"]} of {state["batch"]}: '
                f'goes on {place}, after as many samples; the result differs from an uninterrupted run'
            )
        else:
            if len(state.get('buffers', ())) == dist.get_world_size():
                buffers = dict(model.named_buffers())
                for name, value in state['buffers'][dist.get_rank()].items():
                    buffers[name].copy_(value)
            parameters = dict(model.named_parameters())
            for name, value in state.get('gradients', {}).items():
                # In the memory layout of the weight, which fused optimizers assume.
                parameters[name].grad = torch.empty_like(parameters[name]).copy_(value)
        self.batches.first = first
        if first:
            runner.logger.info(f'Resumed in epoch {loop.epoch + 1} after batch {first} of {length}')
        elif loop.epoch and self._validates(runner):
            # The kill may have come during the validation of the checkpoint's epoch.
            runner.val_loop.run()

    @staticmethod
    def _step_schedules(runner, length: int) -> None:
        """Advance the schedules of the config, step by step, to the position of the run."""
        loop, hook = runner.train_loop, ParamSchedulerHook()
        runner.optim_wrapper._global_step = loop.iter  # avoids mmengine's warning of early schedules
        for done in range(1, loop.iter + 1):
            hook.after_train_iter(runner, done)
            if done % length == 0 and done <= loop.epoch * length:
                hook.after_train_epoch(runner)

    @staticmethod
    def _validates(runner) -> bool:
        loop = runner.train_loop
        due = loop.epoch % loop.val_interval == 0 or loop.epoch == loop.max_epochs
        return runner.val_loop is not None and loop.epoch >= loop.val_begin and due

    def before_train_epoch(self, runner) -> None:
        """Set the loader's epoch."""
        if self.batches is not None:
            self.batches.epoch = runner.epoch

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Seed the model's random draws: drop path, box sampling."""
        seed_generators(runner.seed, runner.iter, dist.get_rank(), 0)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Write a checkpoint if one is due, and exit after SIGTERM."""
        wrapper = runner.optim_wrapper
        count = wrapper._accumulative_counts
        pending = wrapper.inner_count % count != 0 and wrapper.inner_count != wrapper._max_counts
        if pending:
            if self.batches is not None and batch_idx + 1 == len(self.batches):
                self._average_gradients(runner)
            return
        due = dist.is_main_process() and time.monotonic() >= self.due
        # The ranks must agree: a signal may reach them in different iterations.
        stop, due = self._any(self.stopped, due)
        if stop or due:
            path = self._save(runner)
        if stop:
            runner.logger.warning(
                f'Stopped by SIGTERM in epoch {runner.epoch + 1} after iteration {runner.iter + 1}; wrote '
                f'{path}; go on with --resume'
            )
            self._restore_signal()
            sys.exit(EXIT_STOPPED)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Exit after SIGTERM; a resumed run continues from the last checkpoint and validates again."""
        (stop,) = self._any(self.stopped)
        if stop:
            runner.logger.warning(
                f'Stopped by SIGTERM while validating epoch {runner.epoch}; go on with --resume'
            )
            self._restore_signal()
            sys.exit(EXIT_STOPPED)

    def after_train_epoch(self, runner) -> None:
        """Let the next epoch start with its first batch."""
        if self.batches is not None:
            self.batches.first = 0

    def after_train(self, runner) -> None:
        """Remove the checkpoints between epochs, since the last epoch's checkpoint exists."""
        self._restore_signal()
        if dist.is_main_process():
            for path in Path(runner.work_dir).glob('resume_*.pth'):
                path.unlink()

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add the state that mmengine leaves out to every resumable checkpoint."""
        checkpoint['meta']['mmxray_version'] = __version__
        checkpoint['meta']['stamp'] = self.stamp = max(time.time(), self.stamp + 1e-3)
        if 'optimizer' not in checkpoint:
            return
        self.due = time.monotonic() + self.seconds
        if self.batches is None:
            return
        state = self._epoch(runner)
        if self.rank_buffers is not None:
            state['buffers'] = self.rank_buffers
        wrapper = runner.optim_wrapper
        if wrapper.inner_count % wrapper._accumulative_counts != 0:
            named = _unwrap(runner.model).named_parameters()
            state['gradients'] = {k: v.grad.cpu().clone() for k, v in named if v.grad is not None}
        checkpoint['resume_state'] = state

    def _save(self, runner) -> Path:
        """Write a checkpoint of this iteration; all ranks take part."""
        folder, name = Path(runner.work_dir), f'resume_{runner.iter + 1}.pth'
        if dist.get_world_size() > 1:
            # Without SyncBN the statistics differ between ranks until the end of the epoch (SyncBuffersHook).
            buffers = {k: v.cpu().clone() for k, v in _unwrap(runner.model).named_buffers()}
            self.rank_buffers = dist.all_gather_object(buffers)
        runner.save_checkpoint(str(folder), name, by_epoch=False)
        self.rank_buffers = None
        if dist.is_main_process():
            self.kept.append(name)
            for path in folder.glob('resume_*.pth'):
                if path.name not in self.kept:
                    path.unlink()
        dist.barrier()  # no rank exits while the file is written
        return folder / name

    @staticmethod
    def _average_gradients(runner) -> None:
        """Average pending gradients at the end of an epoch, so that rank 0's checkpoint includes all ranks.

        Data-parallel training averages them before the update anyway. Averaging now only changes the order of
        summation, and does so in every run.
        """
        if dist.get_world_size() > 1:
            parameters = _unwrap(runner.model).parameters()
            dist.all_reduce_params([p.grad for p in parameters if p.grad is not None], op='mean')

    @staticmethod
    def _any(*flags: bool) -> list[bool]:
        if dist.get_world_size() == 1:
            return list(flags)
        raised = torch.tensor([int(flag) for flag in flags])
        dist.all_reduce(raised, op='max')
        return raised.bool().tolist()

    @staticmethod
    def _epoch(runner) -> dict[str, int]:
        """Number of batches per epoch, and of samples per batch on all ranks."""
        batches = runner.train_dataloader.batch_sampler
        return dict(length=len(batches), batch=batches.batch_size * dist.get_world_size())

    def _stop(self, number, frame) -> None:
        self.stopped = True

    def _restore_signal(self) -> None:
        if self.former is not None:
            signal.signal(signal.SIGTERM, self.former)
            self.former = None


def _unwrap(model: torch.nn.Module) -> torch.nn.Module:
    return model.module if is_model_wrapper(model) else model


def _written(meta: dict) -> float:
    """Return the time of a checkpoint, s since 1970; without a stamp from its local time in seconds."""
    if 'stamp' in meta:
        return meta['stamp']
    return time.mktime(time.strptime(meta['time'], '%Y%m%d_%H%M%S'))


def newest_checkpoint(folder: str | Path, say=print, since: float = 0.0) -> Path | None:
    """Return the newest complete checkpoint of a work dir, or None without one.

    A checkpoint is complete if its checksums match. Its age is the time stored inside it, which survives
    copying.

    Args:
        folder: Work dir.
        say: Called with one line for each damaged checkpoint, which is skipped.
        since: Skip older checkpoints, s since 1970.

    Raises:
        ResumeError: mmengine's file `last_checkpoint` names a checkpoint, but none can be read. With `since`
            there is no error, since the file may be from an older run.
    """
    folder = Path(folder)
    pointer = folder / 'last_checkpoint'
    named = pointer.read_text().strip() if pointer.is_file() else ''
    files = {path for kind in ('epoch', 'iter', 'resume') for path in folder.glob(f'{kind}_*.pth')}
    if named and Path(named).is_file():
        files |= {Path(named)} if Path(named).name not in {path.name for path in files} else set()
    dated = []
    for path in files:
        try:
            meta = torch.load(path, map_location='cpu', weights_only=True, mmap=True)['meta']
            dated.append((_written(meta), meta['iter'], path))
        except Exception as error:  # a damaged pickle can raise any error
            say(f'not resumed: {path}: not a readable PyTorch checkpoint ({type(error).__name__})')
    for _, _, path in sorted((entry for entry in dated if entry[0] >= since), reverse=True):
        broken = zipfile.ZipFile(path).testzip()
        if broken is None:
            return path
        say(f'not resumed: {path}: not a readable PyTorch checkpoint ({broken} is damaged)')
    if named and not since:
        raise ResumeError(
            f'{pointer}: names {named}, which is not there or is damaged; restore it, or delete {pointer} to '
            'start again'
        )
    return None
