"""Logs for programs: one JSON object per line."""

import json
import logging
from datetime import UTC, datetime


class JsonLines(logging.Formatter):
    """Formats a log record as a JSON object: time, level, logger, event, and the facts of the record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; JSON escapes line breaks in names."""
        entry = dict(
            time=datetime.fromtimestamp(record.created, UTC).isoformat(timespec='milliseconds'),
            level=record.levelname.lower(),
            logger=record.name,
            event=record.getMessage(),
            **getattr(record, 'facts', {}),
        )
        if record.exc_info:
            entry['error'] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def log_to(file: str) -> None:
    """Write the logs of this process as JSON lines.

    Args:
        file: Its path, or '-' for standard error.

    Raises:
        OSError: The file cannot be written.
    """
    handler = logging.StreamHandler() if file == '-' else logging.FileHandler(file)
    handler.setFormatter(JsonLines())
    for name, level in (('mmxray', logging.INFO), ('uvicorn', logging.WARNING)):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
