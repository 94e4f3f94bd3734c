"""Inspect radiographs: with an exported folder, or with a config and its checkpoint in PyTorch."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.line.runtime import command  # noqa: E402


def main(argv=None):
    """Run the tool; returns the exit code."""
    return command.main(argv, from_config)


def from_config(args):
    """Inspect with the detector in PyTorch."""
    # Only a config needs the libraries that take seconds to import.
    from projects.line.export import graphs
    from projects.xray import running

    def inspect(_):
        config, checkpoint, _ = args.source
        cfg = running.read_experiment(config, loader='val_dataloader')
        if not Path(checkpoint).is_file():
            raise running.UsageError(f'{checkpoint}: no such checkpoint; train {config} first')
        return command.infer(args, graphs.inspector_of(cfg, checkpoint, args.threshold))

    return running.one_line_errors(inspect)(args)


if __name__ == '__main__':
    sys.exit(main())
