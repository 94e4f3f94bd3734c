"""Serve the inspection page of an exported detector on this machine; see projects/line/page."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.line.page.command import in_address, main, parse_args  # noqa: E402

__all__ = ['in_address', 'main', 'parse_args']

if __name__ == '__main__':
    sys.exit(main())
