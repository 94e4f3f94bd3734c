"""Two configs side by side, as a page that opens from disk."""

from collections.abc import Sequence
from pathlib import Path

import jinja2

from projects.config.configs import ABSENT, Row


def write_config_page(path: Path, a: str, b: str, rows: Sequence[tuple[Row, tuple[object, object]]]) -> None:
    """Write the comparison of two configs.

    Args:
        path: Of the HTML file.
        a: Name of the first config.
        b: Name of the second.
        rows: Rows of `align` in order, each with the two values to show.

    Raises:
        OSError: The file cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True
    )
    shown = [
        dict(key=row.key, differs=row.differs, values=['' if v is ABSENT else _text(row, v) for v in values])
        for row, values in rows
    ]
    different = sum(row['differs'] for row in shown)
    path.write_text(
        environment.get_template('config_page.html.j2').render(a=a, b=b, rows=shown, different=different),
        encoding='utf-8',
    )


def _text(row: Row, value: object) -> str:
    return str(value) if row.moved else repr(value)
