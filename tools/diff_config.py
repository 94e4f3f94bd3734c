"""Show the differences between two resolved configs key by key, or print one resolved config.

Example:
    python tools/diff_config.py configs/simsiam/A.py configs/simsiam/B.py --allow model.backbone.init_cfg
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from projects.arguments import ToolParser  # noqa: E402
from projects.config.configs import ConfigError, Row, align, load_config, under  # noqa: E402

EPILOG = """\
A and B are config files (also dumped ones, as in a work dir) or pkg::paths of an installed package.

examples:
  python tools/diff_config.py configs/simsiam/A.py configs/simsiam/B.py --allow model.backbone.init_cfg
  python tools/diff_config.py work_dirs/RUN/CONFIG.py configs/faster_rcnn/CONFIG.py
  python tools/diff_config.py mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py
  python tools/diff_config.py configs/simsiam/A.py configs/simmim/B.py --html diff.html

Items of a list are compared by their type: an added hook is one line. --allow takes keys as printed, or with
numbers for list items.

exit: 0 no difference outside --allow, 1 a difference, 2 wrong use"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits 2 on wrong use."""
    parser = ToolParser(
        description=__doc__.splitlines()[0],
        epilog=EPILOG,
    )
    parser.add_argument('a', metavar='A', help='a config')
    parser.add_argument('b', metavar='B', nargs='?', help='another config; without it, A is printed resolved')
    parser.add_argument(
        '--allow',
        metavar='PREFIX',
        nargs='+',
        action='extend',
        default=[],
        help='dotted keys below which the configs may differ',
    )
    parser.add_argument('--html', metavar='F', type=Path, help='also write a page with both side by side')
    args = parser.parse_args(argv)
    if (args.allow or args.html) and args.b is None:
        parser.error(f'{"--allow" if args.allow else "--html"} needs two configs')
    return args


def is_allowed(row: Row, prefixes: Sequence[str]) -> bool:
    """Whether the key of a row (as printed or with numbers) equals or lies below one of the prefixes."""
    return any(under(key, prefixes) for key in (row.key, *row.keys))


def format_differences(found: Sequence[Row], allow: Sequence[str], width: int) -> str:
    """Return differences in columns: key, value in A, value in B; `!` marks differences not allowed.

    Args:
        found: Rows that differ.
        allow: Prefixes below which a difference is allowed.
        width: Columns of the terminal; in wider rows the two values are below the key.
    """
    rows = [
        (' ' if is_allowed(row, allow) else '!', row.key, *map(str if row.moved else repr, values_of(row)))
        for row in found
    ]
    key, left, right = (max((len(row[i]) for row in rows), default=0) for i in (1, 2, 3))
    lines = []
    for mark, name, a, b in rows:
        if key + left + right + 7 <= width:
            lines.append(f'{mark} {name:{key}}  {a:{left}}  {b}')
        else:
            lines.append(f'{mark} {name}\n      A  {a}\n      B  {b}')
    return '\n'.join(lines)


def values_of(row: Row) -> tuple[Any, Any]:
    """Return the shown values of a row, or the two positions of a moved item."""
    return (f'moved: number {row.a}', f'number {row.b}') if row.moved else (row.a, row.b)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    args = parse_args(argv)
    try:
        a = load_config(args.a)
        if args.b is None:
            print(a.pretty_text)
            return 0
        rows = align(a, load_config(args.b))
    except ConfigError as error:
        print(f'diff_config: {error}', file=sys.stderr)
        return 2
    found = sorted((row for row in rows if row.differs), key=lambda row: row.key)
    outside = sum(not is_allowed(row, args.allow) for row in found)
    print(f'A  {args.a}\nB  {args.b}')
    if found:
        print(format_differences(found, args.allow, shutil.get_terminal_size((110, 24)).columns))
    allowed = f', {len(found) - outside} allowed' if args.allow else ''
    print(
        f'{len(found)} differences{allowed}, {outside} outside' if args.allow else f'{len(found)} differences'
    )
    if args.html:
        from projects.report.config_page import write_config_page

        try:
            write_config_page(args.html, args.a, args.b, [(row, values_of(row)) for row in rows])
        except OSError as error:
            print(
                f'diff_config: {args.html}: {error.strerror}; name a file that can be written',
                file=sys.stderr,
            )
            return 2
        print(f'written: {args.html}')
    return 1 if outside else 0


if __name__ == '__main__':
    sys.exit(main())
