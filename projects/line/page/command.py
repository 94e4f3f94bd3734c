"""The command that serves the inspection page of an exported detector on this machine."""

import argparse
import ipaddress
import re
import resource
import ssl
import sys
from contextlib import closing
from pathlib import Path

import uvicorn

from projects.arguments import ToolParser
from projects.line.runtime import FolderError, Inspector
from projects.line.runtime.archive import ArchiveError, check_apart
from projects.line.runtime.drift import Line
from projects.line.runtime.engines import EngineError

from .access import Access, AccessError, add_user, read_tokens
from .connections import BoundedProtocol
from .logs import log_to
from .server import Session, build

LOOPBACK = ('127.0.0.1', 'localhost', '::1')
EVERY_ADDRESS = ('', '0', '0.0.0.0', '::')


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = ToolParser(
        description='Serve the inspection page of an exported detector on this machine.',
        epilog='example:\n  %(prog)s exported/NAME --images data/synthetic/images',
    )
    parser.add_argument('model', nargs='?', help='folder that tools/export.py wrote')
    parser.add_argument('--key', metavar='FILE', help='public ed25519 key (PEM) that must have signed it')
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
        help='another name or address by which other machines open the page; may be repeated',
    )
    parser.add_argument(
        '--inspector', default='', metavar='NAME', help='name of the inspector in the record (the login name)'
    )
    parser.add_argument(
        '--log', metavar='FILE', help='JSON lines of inspections and decisions; - for standard error'
    )
    parser.add_argument(
        '--second-reader',
        action='store_true',
        help="decide without seeing the first reader's decisions; corrections-second.json takes the second's",
    )
    parser.add_argument(
        '--shadow', metavar='FOLDER', help='a second detector, whose verdicts are recorded and not acted upon'
    )
    parser.add_argument(
        '--watched',
        type=Path,
        metavar='DIR',
        help="OUT of a process that watches a folder: the operator's page shows its verdicts too",
    )
    Line.add_options(parser)
    access = parser.add_argument_group('access, needed to serve other machines')
    access.add_argument(
        '--tokens', type=Path, metavar='FILE', help='users, one per line: name:role:SHA-256 of a token'
    )
    access.add_argument(
        '--add-user', metavar='NAME:ROLE', help='make a token for an inspector or a reader, print it, and end'
    )
    access.add_argument('--tls-cert', type=Path, metavar='FILE', help='certificate chain, PEM')
    access.add_argument('--tls-key', type=Path, metavar='FILE', help='its key, PEM')
    access.add_argument(
        '--user-header',
        default='',
        metavar='NAME',
        help='header in which a proxy that logs people in names the user',
    )
    access.add_argument('--role-header', default='', metavar='NAME', help='header with the role of the user')
    access.add_argument(
        '--proxy',
        action='append',
        metavar='ADDRESS',
        help='address whose headers are accepted (this machine)',
    )
    return parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exits 2 on wrong use."""
    parser = options()
    args = parser.parse_args(argv)
    if not 0 <= args.port < 65536:
        parser.error(f'--port {args.port}: expected 0 to 65535')
    args.name = [in_address(name) for name in args.name]
    for name in args.name:
        if not re.fullmatch(r'[\w.-]+|\[[\da-f:]+\]', name, re.ASCII):
            parser.error(f'--name {name}: expected a name or address alone, such as line-pc.plant')
    if args.host in EVERY_ADDRESS and not args.name:
        parser.error(
            f'--host {args.host}: serves every address of this machine, but answers to given names only; '
            'add --name NAME, the name in the address that other machines open'
        )
    if not args.model and not args.add_user:
        parser.error('expected a folder that tools/export.py wrote')
    if args.add_user and not args.tokens:
        parser.error('--add-user: add --tokens FILE, where it goes')
    if bool(args.tls_cert) != bool(args.tls_key):
        parser.error('expected --tls-cert and --tls-key together')
    if args.role_header and not args.user_header:
        parser.error('--role-header: add --user-header, which names the user')
    if not args.add_user:
        check_exposed(parser, args)
    return args


def check_exposed(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse a network address without a login, or with tokens that others could read on the network."""
    if args.host in LOOPBACK:
        return
    if not args.tokens and not (args.user_header and args.proxy):
        parser.error(
            f'--host {args.host}: anybody there could decide on parts; add --tokens FILE with --tls-cert and '
            '--tls-key, or --user-header NAME with --proxy ADDRESS of a proxy that logs people in'
        )
    if args.tokens and not args.tls_cert:
        parser.error(f'--host {args.host}: tokens could be read on their way; add --tls-cert and --tls-key')


def access_of(args: argparse.Namespace) -> Access:
    """Return the access rule.

    Raises:
        AccessError: The file of tokens cannot be used.
    """
    tokens = read_tokens(args.tokens) if args.tokens else {}
    proxies = tuple(args.proxy) if args.proxy else Access.proxies
    return Access(tokens, args.user_header, args.role_header, proxies)


def check_certificate(args: argparse.Namespace) -> None:
    """Refuse a certificate that cannot be served.

    Raises:
        AccessError: A file cannot be read or is not PEM, or certificate and key do not belong together.
    """
    if not args.tls_cert:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(args.tls_cert, args.tls_key)
    except OSError as error:  # the base of ssl's errors, too
        raise AccessError(
            f'{args.tls_cert}, {args.tls_key}: expected a certificate and its key in PEM '
            f'({error.strerror or error}); correct --tls-cert and --tls-key'
        ) from None


def in_address(host: str) -> str:
    """Write a host as browsers do in an address: IPv6 short and in brackets."""
    try:
        return f'[{ipaddress.IPv6Address(host.removeprefix("[").removesuffix("]"))}]'
    except ValueError:
        return host


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    args = parse_args(argv)
    if args.add_user:
        return new_user(args)
    if args.images and not Path(args.images).is_dir():
        print(f'error: {args.images}: expected a folder of radiographs; correct --images', file=sys.stderr)
        return 2
    if args.watched and not args.watched.is_dir():
        print(
            f'error: {args.watched}: expected the --out of a watched folder; make it, or correct --watched',
            file=sys.stderr,
        )
        return 2
    try:
        if args.images:
            check_apart(Path(args.images), Path(args.out))
    except ArchiveError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    try:
        access = access_of(args)
        if args.log:
            log_to(args.log)
        check_certificate(args)  # before the detector is loaded
        session = Session(
            Inspector(args.model, key=args.key),
            Path(args.out),
            args.images and Path(args.images),
            args.second_reader,
            args.inspector,
            Line.of(args),
            Inspector(args.shadow, key=args.key) if args.shadow else None,
            args.watched,
        )
    except (AccessError, ArchiveError, FolderError, EngineError, OSError) as error:
        print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
        return 1
    try:
        with closing(session):
            serve(args, session, access)
    except OSError as error:
        print(
            f'error: {session.decisions.path}: not written ({error.strerror or error}); make room: the next '
            'start writes it from the record, which is complete',
            file=sys.stderr,
        )
        return 1
    return 0


def new_user(args: argparse.Namespace) -> int:
    """Make a token and print it; returns the exit code."""
    try:
        print(add_user(args.tokens, args.add_user))
    except (AccessError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


def serve(args: argparse.Namespace, session: Session, access: Access) -> None:
    """Serve a sitting until Ctrl-C."""
    # A connection that never ends its TLS handshake lasts a minute and must not exhaust the descriptors.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    host = in_address(args.host)
    app = build(session, ('127.0.0.1', 'localhost', host, *args.name), access)
    called, scheme = args.name[0] if args.name else host, 'https' if args.tls_cert else 'http'
    print(f'{scheme}://{called}:{args.port}/ (Ctrl-C ends it); decisions go to {args.out}')
    print(f'detector {session.inspector.digest}', flush=True)
    uvicorn.run(app, host=args.host, port=args.port, **settings(args))
    if session.shadow:
        print(session.shadow.in_words())
    record = session.decisions.record
    print(f'{record.count} entries in {record.path}; the last entry has the hash {record.head}')


def settings(args: argparse.Namespace) -> dict:
    """Return the settings of uvicorn."""
    return dict(
        http=BoundedProtocol,
        # A header must not fake the address of a client.
        proxy_headers=False,
        ssl_certfile=args.tls_cert,
        ssl_keyfile=args.tls_key,
        log_level='warning',
        log_config=None if args.log else uvicorn.config.LOGGING_CONFIG,
        server_header=False,
    )


if __name__ == '__main__':
    sys.exit(main())
