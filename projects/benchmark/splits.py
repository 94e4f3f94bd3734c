"""Reading the annotations of a split, for the benchmarks that take a data set."""

import json
from pathlib import Path
from typing import Any

from projects.errors import UsageError


def truth_of(path: Path) -> dict[str, Any]:
    """Read a COCO file.

    Raises:
        UsageError: The file does not exist or is no COCO file.
    """
    try:
        truth = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f'{path}: expected the annotations of a split ({error.strerror}); correct the folder, or make it '
            'with tools/make_synthetic.py or tools/convert_dataset.py'
        ) from None
    except ValueError:
        truth = None
    if not isinstance(truth, dict) or not {'images', 'annotations', 'categories'} <= truth.keys():
        raise UsageError(f'{path}: expected COCO annotations; write it again')
    return truth
