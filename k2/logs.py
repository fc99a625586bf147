"""Writes the logs of a process as JSON lines on stderr, a bounded number of each message.

Standard logging with a handler: libraries that log land in the same stream. A line within a span
that is recorded has its `trace_id` and `span_id`.

A message is a logger and a text before its arguments are put in. Of one message,
`limits.LOG_LINES_MAX` lines are written in `limits.LOG_WINDOW_S`; what more there was is counted,
and said in one line when the time is over and the process logs again, or ends. What sends traces
fails many times a minute, in several texts, while its collector is away: of all its loggers one
line is written in `limits.LOG_EXPORTER_S`, with the number of those before it that were left out.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections import OrderedDict
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO, TypeAlias

from k2 import limits, tracing
from k2.metrics import counter

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_TEXT_MAX = 256  # of a message's text that tells it from others
_EXPORTER = "opentelemetry."  # begins the names of its loggers
_LEFT_OUT = "%d more lines were left out: %s"

_LINES = counter("k2_log_lines_total", "Log lines written.", "level")
_SUPPRESSED = counter(
    "k2_log_suppressed_total", "Log lines left out, because many of the same message came."
)

_Message: TypeAlias = tuple[str, str]  # logger, text


@dataclass
class _Window:
    """The lines of one message since a time."""

    since_s: float
    level: int
    lines: int = 0

    @property
    def suppressed(self) -> int:
        return max(0, self.lines - limits.LOG_LINES_MAX)


class _JsonLines(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object: at, level, process, logger, message, ids, extras, an exception."""
        line: dict[str, object] = {
            "at": round(record.created, 6),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= tracing.ids()
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class LimitedHandler(logging.StreamHandler[TextIO]):
    """Writes records to a stream, and counts those that are too many of one message.

    Args:
        stream: takes the lines.
        file: takes them too, where there is one.
    """

    def __init__(self, stream: TextIO, file: logging.Handler | None = None) -> None:
        super().__init__(stream)
        self._file = file
        self._windows: OrderedDict[_Message, _Window] = OrderedDict()  # by time
        self._exporter_since_s = -math.inf
        self._exporter_left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, unless many of its message were written; logging holds the lock."""
        self._end_windows(record.created)
        if record.name.startswith(_EXPORTER):
            self._emit_exporter(record)
            return
        message = (record.name, str(record.msg)[:_TEXT_MAX])
        window = self._windows.get(message)
        if window is None:
            if len(self._windows) >= limits.LOG_MESSAGES_MAX:
                self._end_oldest(record.created)
            window = self._windows[message] = _Window(record.created, record.levelno)
        window.lines += 1
        if window.suppressed:
            _SUPPRESSED.inc()
        else:
            self._write(record)

    def _emit_exporter(self, record: logging.LogRecord) -> None:
        if 0 <= record.created - self._exporter_since_s < limits.LOG_EXPORTER_S:
            self._exporter_left_out += 1
            _SUPPRESSED.inc()
            return
        if self._exporter_left_out:
            record.suppressed = self._exporter_left_out
        self._exporter_since_s, self._exporter_left_out = record.created, 0
        self._write(record)

    def close(self) -> None:
        """Say what was left out last."""
        self.acquire()
        try:
            while self._windows:
                self._end_oldest(next(iter(self._windows.values())).since_s)
        finally:
            self.release()
        if self._file is not None:
            self._file.close()
        super().close()

    def _end_windows(self, now_s: float) -> None:
        while self._windows:
            oldest = next(iter(self._windows.values()))
            if 0 <= now_s - oldest.since_s < limits.LOG_WINDOW_S:
                return
            self._end_oldest(now_s)

    def _end_oldest(self, now_s: float) -> None:
        (name, text), window = self._windows.popitem(last=False)
        if window.suppressed:
            said = logging.makeLogRecord(
                {
                    "name": name,
                    "levelno": window.level,
                    "levelname": logging.getLevelName(window.level),
                    "msg": _LEFT_OUT,
                    "args": (window.suppressed, text),
                    "created": now_s,
                    "suppressed": window.suppressed,
                }
            )
            self._write(said)

    def _write(self, record: logging.LogRecord) -> None:
        _LINES.labels(record.levelname.lower()).inc()
        super().emit(record)
        if self._file is not None:
            self._file.emit(record)


def set_up(process: str, level: str, folder: Path | None = None) -> None:
    """Send this process's logs to stderr as JSON lines.

    Args:
        process: the name that each line carries.
        level: debug, info, warning or error.
        folder: has them too, in a bounded file of the process and an older one of that size.
    """
    formatter, file = _JsonLines(process), None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{process}.log"
        file = RotatingFileHandler(path, maxBytes=limits.LOG_BYTES_MAX, backupCount=1)
        file.setFormatter(formatter)
    handler = LimitedHandler(sys.stderr, file)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
