#!/usr/bin/env python
"""Submit, query and cancel the Kubernetes job of a study's run; configs/study/kubernetes calls this."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.arguments import ToolParser  # noqa: E402
from projects.study import kubernetes  # noqa: E402

EXAMPLE = """example:
  MMXRAY_IMAGE=registry.plant/mmxray:1 MMXRAY_CLAIM=mmxray:/mnt/mmxray \\
    python tools/study.py configs/study/paper.yaml --profile configs/study/kubernetes"""


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns 0 done, 1 the cluster refuses."""
    parser = ToolParser(__doc__, EXAMPLE)
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    submit = commands.add_parser('submit', help='print the name of the job')
    submit.add_argument('script', type=Path, help='job script of Snakemake')
    submit.add_argument('--gpus', type=int, default=0, help='NVIDIA GPUs')
    submit.add_argument('--cpus', type=int, default=1, help='cores')
    submit.add_argument('--memory-mb', type=int, default=16000, help='memory')
    submit.add_argument('--minutes', type=int, default=1440, help='time limit of the job')
    status = commands.add_parser('status', help='print running, success or failed')
    status.add_argument('name', help='name of the job')
    cancel = commands.add_parser('cancel', help='delete jobs')
    cancel.add_argument('names', nargs='+', help='names of the jobs')
    args = parser.parse_args(argv)
    try:
        if args.command == 'submit':
            print(kubernetes.submit(args.script, args.gpus, args.cpus, args.memory_mb, args.minutes))
        elif args.command == 'status':
            try:
                print(kubernetes.status(args.name))
            except kubernetes.KubernetesError as error:
                # Snakemake asks again soon. Any other answer would end the study while its pods continue.
                print(f'error: {error}', file=sys.stderr)
                print('running')
        else:
            kubernetes.cancel(args.names)
    except kubernetes.KubernetesError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
