"""Inspect radiographs with an exported folder, or with a config and its checkpoint in PyTorch."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.line.runtime import command  # noqa: E402


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    return command.main(argv, from_config)


def from_config(args: argparse.Namespace) -> int:
    """Inspect with the detector in PyTorch."""
    # The libraries take seconds to import; an exported folder does not need them.
    from projects.line.export import graphs
    from projects.runs import running

    def inspect(_: argparse.Namespace) -> int:
        config, checkpoint, _ = args.source
        cfg = running.read_experiment(config, loader='val_dataloader')
        if not Path(checkpoint).is_file():
            raise running.UsageError(f'{checkpoint}: no such checkpoint; train {config} first')
        return command.infer(args, graphs.inspector_of(cfg, checkpoint, args.threshold))

    return running.one_line_errors(inspect)(args)


if __name__ == '__main__':
    sys.exit(main())
