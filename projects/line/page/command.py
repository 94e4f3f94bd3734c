"""The command that serves the inspection page of an exported detector on this machine."""

import argparse
import ipaddress
import re
import sys
from contextlib import closing
from pathlib import Path

import uvicorn

from projects import __version__
from projects.line.runtime import FolderError, Inspector
from projects.line.runtime.archive import ArchiveError, check_apart
from projects.line.runtime.engines import EngineError

from .server import Session, build


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description='Serve the inspection page of an exported detector on this machine.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='example:\n  %(prog)s exported/NAME --images data/synthetic/images',
    )
    parser.add_argument('model', help='folder that tools/export.py wrote')
    parser.add_argument('--images', metavar='DIR', help='archive whose folders the page offers')
    parser.add_argument(
        '--out', default='work_dirs/inspect', metavar='DIR', help='corrections (work_dirs/inspect)'
    )
    parser.add_argument(
        '--host', default='127.0.0.1', help='address to serve on (127.0.0.1: this machine only)'
    )
    parser.add_argument('--port', type=int, default=8000, help='port to serve on (8000)')
    parser.add_argument(
        '--name',
        action='append',
        default=[],
        help='name or address under which other machines call it, beside that of --host; may be repeated',
    )
    parser.add_argument(
        '--inspector', default='', metavar='NAME', help='who decides, as the record has it (the login name)'
    )
    parser.add_argument(
        '--second-reader',
        action='store_true',
        help="decide without seeing the first reader's decisions; they go to corrections-second.json",
    )
    parser.add_argument('--version', action='version', version=f'mmxray {__version__}')
    args = parser.parse_args(argv)
    if not 0 <= args.port < 65536:
        parser.error(f'--port {args.port}: expected 0 to 65535')
    args.name = [in_address(name) for name in args.name]
    for name in args.name:
        if not re.fullmatch(r'[\w.-]+|\[[\da-f:]+\]', name, re.ASCII):
            parser.error(f'--name {name}: expected a name or address alone, such as line-pc.plant')
    if args.host in ('', '0', '0.0.0.0', '::') and not args.name:
        parser.error(
            f'--host {args.host}: serves every address of this machine, and answers to given names only; '
            'add --name NAME, as it stands in the address that others open'
        )
    return args


def in_address(host: str) -> str:
    """Write a host as browsers do in an address: IPv6 short and in brackets."""
    try:
        return f'[{ipaddress.IPv6Address(host.removeprefix("[").removesuffix("]"))}]'
    except ValueError:
        return host


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    args = parse_args(argv)
    if args.images and not Path(args.images).is_dir():
        print(f'error: {args.images}: expected a folder of radiographs; correct --images', file=sys.stderr)
        return 2
    try:
        if args.images:
            check_apart(Path(args.images), Path(args.out))
    except ArchiveError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    try:
        session = Session(
            Inspector(args.model),
            Path(args.out),
            args.images and Path(args.images),
            args.second_reader,
            args.inspector,
        )
    except (ArchiveError, FolderError, EngineError, OSError) as error:
        print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
        return 1
    try:
        with closing(session):
            serve(args, session)
    except OSError as error:
        print(
            f'error: {session.decisions.path}: not written ({error.strerror or error}); make room, and the '
            'next start writes it from the record, which is whole',
            file=sys.stderr,
        )
        return 1
    return 0


def serve(args: argparse.Namespace, session: Session) -> None:
    """Serve a sitting until it is interrupted."""
    if args.host not in ('127.0.0.1', 'localhost', '::1'):
        print(f'served to the network at {args.host}, without a password: anyone there can see and correct')
    host = in_address(args.host)
    app = build(session, ('127.0.0.1', 'localhost', host, *args.name))
    called = args.name[0] if args.name else host
    print(f'detector {session.inspector.digest}')
    print(f'http://{called}:{args.port}/ (Ctrl-C ends it); decisions go to {args.out}', flush=True)
    uvicorn.run(app, host=args.host, port=args.port, log_level='warning', server_header=False)
    record = session.decisions.record
    print(f'{record.count} entries in {record.path}, the last one of hash {record.head}')
