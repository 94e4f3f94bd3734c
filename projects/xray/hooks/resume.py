"""Checkpoints between epochs, SIGTERM, and a resumed run that is the run that was never killed."""

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


"""Exit code of a run that SIGTERM ended after its checkpoint was written: 128 + 15, as a shell counts."""


KEPT = 2


"""Checkpoints between epochs that are kept: should the newest be damaged, the one before it is whole."""


class ResumeError(MMXrayError, ValueError):
    """A run cannot be taken up; one line with the remedy."""


@HOOKS.register_module()
class ResumeHook(Hook):
    """Makes a run repeatable from any of its iterations, and leaves checkpoints to go on from.

    Beside the checkpoints of `CheckpointHook`, `resume_<iteration>.pth` is written every so many minutes at
    the next update of the weights; the last two are kept and removed when the training has ended. Each
    checkpoint is stamped later than the one from which its run went on, whatever the clocks of the nodes say.

    SIGTERM (a preempted job) ends the run after the iteration, or after the validation batch: checkpoint, one
    line, exit code 143. A second one changes nothing: torchrun passes on what the scheduler has sent to the
    ranks already. Loops other than `EpochBasedTrainLoop` keep mmengine's own way of resuming, for them only
    the checkpoints hold.

    On resume with another number of GPUs or another batch, an epoch goes on where as many samples had been
    seen, with the optimizer's settings and the schedules of the config; only then the result is another, and
    the log says so.

    Args:
        minutes: Between two checkpoints.

    Raises:
        ResumeError: The model has other tensors than the checkpoint, or the ranks have not loaded the same.
    """

    priority = 'LOWEST'  # after everything else that an iteration changes

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
        """Remember what the checkpoint says about the place in the epoch, change what must not come back."""
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
            # They count in iterations of the former batch, and its learning rate need not fit this one.
            checkpoint.pop('param_schedulers', None)
            optimizer, own = checkpoint['optimizer'], runner.optim_wrapper.optimizer
            optimizer.pop('base_param_settings', None)
            for saved, group in zip(optimizer['param_groups'], own.param_groups):
                saved.update({key: value for key, value in group.items() if key != 'params'})

    @staticmethod
    def _compare(runner, saved: dict) -> None:
        """Stop where mmengine, which loads what fits, would go on with weights that are partly random."""
        own = _unwrap(runner.model).state_dict()
        for name in [*own, *saved]:
            if name.startswith('teacher.') and name not in saved:
                continue  # StudentHook leaves it out; it comes from its own file
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
        """Name the run's checkpoints in this work dir, else a copied run removes those of the original."""
        for key, path in info.items():
            if key in ('last_ckpt', 'best_ckpt') or key.startswith('best_ckpt_'):
                info[key] = str(Path(runner.work_dir, Path(path).name))

    def before_train(self, runner) -> None:
        """Take up the place of the checkpoint; from here on the loader's draws have no state."""
        self.former = signal.signal(signal.SIGTERM, self._stop)
        if getattr(self.former, '__func__', None) is ResumeHook._stop:
            self.former = signal.SIG_DFL  # left behind by a training that failed
        self.due = time.monotonic() + self.seconds
        if dist.is_main_process():
            for torn in Path(runner.work_dir).glob('*.pth.*part'):  # a kill during the write
                torn.unlink()
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            runner.logger.warning('ResumeHook: not an EpochBasedTrainLoop, a resumed run draws other numbers')
            return
        loader = runner.train_dataloader
        self.batches = SeededBatches(loader.batch_sampler)
        if hasattr(loader.sampler, 'seed'):
            loader.sampler.seed = runner.seed  # of the checkpoint, should it be another than the config's
        # DataLoader forbids these assignments, for fear of a running iterator; here none runs yet.
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
                f'goes on {place}, after as many samples; the result is not that of an undisturbed run'
            )
        else:
            if len(state.get('buffers', ())) == dist.get_world_size():
                buffers = dict(model.named_buffers())
                for name, value in state['buffers'][dist.get_rank()].items():
                    buffers[name].copy_(value)
            parameters = dict(model.named_parameters())
            for name, value in state.get('gradients', {}).items():
                # In the memory layout of the weight, which fused optimizers take for granted.
                parameters[name].grad = torch.empty_like(parameters[name]).copy_(value)
        self.batches.first = first
        if first:
            runner.logger.info(f'Resumed in epoch {loop.epoch + 1} after batch {first} of {length}')
        elif loop.epoch and self._validates(runner):
            # The kill may have come while the epoch of the checkpoint was being validated.
            runner.val_loop.run()

    @staticmethod
    def _step_schedules(runner, length: int) -> None:
        """Bring the schedules of the config to where the run goes on, step by step as it would have gone."""
        loop, hook = runner.train_loop, ParamSchedulerHook()
        runner.optim_wrapper._global_step = loop.iter  # else mmengine warns of schedules before updates
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
        """Tell the loader the epoch."""
        if self.batches is not None:
            self.batches.epoch = runner.epoch

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Seed what the model draws: dropped paths, sampled boxes."""
        seed_generators(runner.seed, runner.iter, dist.get_rank(), 0)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Write a checkpoint when one is due; end when SIGTERM came."""
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
        """End when SIGTERM came; a resumed run goes on after the last checkpoint and validates again."""
        (stop,) = self._any(self.stopped)
        if stop:
            runner.logger.warning(
                f'Stopped by SIGTERM while validating epoch {runner.epoch}; go on with --resume'
            )
            self._restore_signal()
            sys.exit(EXIT_STOPPED)

    def after_train_epoch(self, runner) -> None:
        """The next epoch starts with its first batch."""
        if self.batches is not None:
            self.batches.first = 0

    def after_train(self, runner) -> None:
        """Remove the checkpoints between epochs: the last epoch's has been written."""
        self._restore_signal()
        if dist.is_main_process():
            for path in Path(runner.work_dir).glob('resume_*.pth'):
                path.unlink()

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add what mmengine leaves out, to every checkpoint that can be resumed from."""
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
            # Without SyncBN each rank has statistics of its own until the epoch ends (SyncBuffersHook).
            buffers = {k: v.cpu().clone() for k, v in _unwrap(runner.model).named_buffers()}
            self.rank_buffers = dist.all_gather_object(buffers)
        runner.save_checkpoint(str(folder), name, by_epoch=False)
        self.rank_buffers = None
        if dist.is_main_process():
            self.kept.append(name)
            for path in folder.glob('resume_*.pth'):
                if path.name not in self.kept:
                    path.unlink()
        dist.barrier()  # nobody leaves while the file is being written
        return folder / name

    @staticmethod
    def _average_gradients(runner) -> None:
        """Share pending gradients at the end of an epoch, so that rank 0's checkpoint holds everybody's.

        Data-parallel training averages them before the update anyway; doing so now changes nothing but
        the order of summation, in every run alike.
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
        """Number of batches of an epoch, and of samples of a batch on all ranks."""
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
    """Return when a checkpoint was written, s since 1970; without ResumeHook to the second, in local time."""
    if 'stamp' in meta:
        return meta['stamp']
    return time.mktime(time.strptime(meta['time'], '%Y%m%d_%H%M%S'))


def newest_checkpoint(folder: str | Path, say=print, since: float = 0.0) -> Path | None:
    """Return the whole checkpoint of a work dir that was written last, or None when there is none.

    Whole means that every byte has the checksum it was written with. The time is the one that the checkpoint
    itself holds, which survives copying.

    Args:
        folder: Work dir.
        say: Called with one line per damaged checkpoint that is passed over.
        since: Leave out what was written before, s since 1970.

    Raises:
        ResumeError: mmengine's file `last_checkpoint` names a checkpoint, but none can be read; not with
            `since`, when it may be that of an older run.
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
        except Exception as error:  # whatever a damaged pickle raises
            say(f'not resumed: {path}: not a readable PyTorch checkpoint ({type(error).__name__})')
    for _, _, path in sorted((entry for entry in dated if entry[0] >= since), reverse=True):
        broken = zipfile.ZipFile(path).testzip()
        if broken is None:
            return path
        say(f'not resumed: {path}: not a readable PyTorch checkpoint ({broken} is damaged)')
    if named and not since:
        raise ResumeError(
            f'{pointer}: names {named}, which is not there or not whole; put it back, or delete {pointer} to '
            'start again'
        )
    return None
