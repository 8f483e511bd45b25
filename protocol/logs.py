"""Logging set-up: one line an event, an event's name plus fields, levels per category, no patient data.

A category is a dotted name; ours are `adapter.<actor>` and `adapter.supervisor`. The original's names stay valid
in `Logging.LogLevel`: the table below says which of ours each one means.
"""

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from protocol.config import Settings

TRACE = 5
_NEVER = 100
LEVELS: dict[str, int] = {
    "trace": TRACE,
    "debug": logging.DEBUG,
    "information": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "none": _NEVER,
}
_NAMES = {TRACE: "trace", 10: "debug", 20: "info", 30: "warn", 40: "error", 50: "critical"}
_PRIORITIES = {TRACE: 7, 10: 7, 20: 6, 30: 4, 40: 3, 50: 2}  # sd-daemon(3)
_COLOURS = {TRACE: "90", 10: "90", 20: "32", 30: "33", 40: "31", 50: "1;31"}

_SERVER = "Nvidia.Clara.DicomAdapter.Server"
ORIGINAL_CATEGORIES: dict[str, tuple[str, ...]] = {
    "Nvidia": ("adapter",),
    "Nvidia.Clara.DicomAdapter": ("adapter",),
    _SERVER: ("adapter",),
    f"{_SERVER}.Services.Disk": ("adapter.guardian",),
    f"{_SERVER}.Services.Export": ("adapter.exporter",),
    f"{_SERVER}.Services.Http": ("adapter.api",),
    f"{_SERVER}.Services.Jobs": ("adapter.submitter", "adapter.retriever", "adapter.platform"),
    f"{_SERVER}.Services.Scp": ("adapter.receiver", "adapter.extractor"),
    f"{_SERVER}.Processors": ("adapter.processor",),
    f"{_SERVER}.Processors.AeTitleJobProcessor": ("adapter.processor",),
    "Dicom": ("pynetdicom", "pydicom", "adapter.receiver", "adapter.exporter"),
    "System": ("asyncio",),
    "System.Net.Http": ("httpx", "httpcore"),
    "Microsoft": ("litestar", "uvicorn"),
    "Microsoft.Hosting.Lifetime": ("adapter.supervisor",),
    "Microsoft.EntityFrameworkCore": ("peewee",),
}


class EventLogger:
    """Writes events: a name and fields. Fields never hold a patient's name, ID, birth date, or such a path.

    Args:
        category: a dotted name.
    """

    def __init__(self, category: str) -> None:
        self._logger = logging.getLogger(category)

    def enabled(self, level: int) -> bool:
        """Whether events of this level are written."""
        return self._logger.isEnabledFor(level)

    def trace(self, event: str, **fields: Any) -> None:
        """The smallest steps; may hold patient data."""
        self._logger.log(TRACE, event, extra={"fields": fields})

    def debug(self, event: str, **fields: Any) -> None:
        """What helps a developer, such as each instance; may hold patient data."""
        self._logger.debug(event, extra={"fields": fields})

    def info(self, event: str, **fields: Any) -> None:
        """What an operator wants to know afterwards."""
        self._logger.info(event, extra={"fields": fields})

    def warning(self, event: str, **fields: Any) -> None:
        """What is wrong, while the work goes on."""
        self._logger.warning(event, extra={"fields": fields})

    def error(self, event: str, **fields: Any) -> None:
        """What failed."""
        self._logger.error(event, extra={"fields": fields})

    def critical(self, event: str, **fields: Any) -> None:
        """What stops this process."""
        self._logger.critical(event, extra={"fields": fields})

    def unexpected(self, event: str, **fields: Any) -> None:
        """An exception that nobody foresaw, with its traceback; the test harness fails on this marker.

        The exception's own message may quote patient data: it is told in a line at Debug.
        """
        self._logger.error(event, exc_info=True, extra={"fields": {"marker": "UNEXPECTED", **fields}})
        self.debug(f"{event}_message", text=str(sys.exception()))


class Repeats:
    """Sums up what one peer does again and again: the first is written, the rest once a minute as a count.

    Args:
        write: writes an event: a name and fields.
        seconds: the length of a period.
        whose: the name of the field that has the peer, or what else does something again and again.
    """

    def __init__(self, write: Callable[..., None], seconds: float = 60.0, *, whose: str = "peer") -> None:
        self._write = write
        self._seconds = seconds
        self._whose = whose
        self._open: dict[tuple[str, str], tuple[float, int, dict[str, Any]]] = {}

    def add(self, event: str, peer: str, **fields: Any) -> None:
        """One more event of this peer."""
        key = (event, peer)
        known = self._open.get(key)
        if known is None:
            self._open[key] = (time.monotonic() + self._seconds, 0, fields)
            self._write(event, **{self._whose: peer}, **fields)
        else:
            self._open[key] = (known[0], known[1] + 1, fields)

    def flush(self, *, everything: bool = False) -> None:
        """Write the counts of periods that are over; call it every few seconds."""
        clock = time.monotonic()
        for key, (ends, count, fields) in list(self._open.items()):
            if everything or clock >= ends:
                del self._open[key]
                if count:
                    self._write(key[0], **{self._whose: key[1]}, repeated=count, **fields)


# What libraries say at lower levels names URLs, and identifiers in them: patients'.
_LIBRARIES = {
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "pynetdicom": logging.CRITICAL,  # at ERROR it tells texts of exceptions, which hold values of elements
    "pydicom": logging.CRITICAL,
}


def set_up(settings: Settings, actor: str) -> None:
    """Set logging up for this process; calling it again applies changed levels.

    Args:
        settings: `logging` is used.
        actor: the process's name, on each line.
    """
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_formatter(settings, actor))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    for name, logger in logging.Logger.manager.loggerDict.items():
        if isinstance(logger, logging.Logger):
            logger.setLevel(logging.NOTSET)
            logger.propagate = True
            logger.handlers.clear()
            logger.disabled = name.startswith("uvicorn.access")
    for library, level in _LIBRARIES.items():
        logging.getLogger(library).setLevel(level)
    for category, level in _levels(settings.logging.levels).items():
        logging.getLogger(category or None).setLevel(level)
    logging.raiseExceptions = False


def _levels(configured: Mapping[str, str]) -> dict[str, int]:
    """Our categories' levels; of two original names that mean one of ours, the longer wins, then our own name."""
    levels = {"": logging.INFO}
    for name in sorted(configured, key=len):
        if name.lower() == "default":
            levels[""] = LEVELS[configured[name].lower()]
    originals = {name.lower(): ours for name, ours in ORIGINAL_CATEGORIES.items()}
    for name in sorted(configured, key=len):
        for ours in _meant_by(name.lower(), originals):
            levels[ours] = LEVELS[configured[name].lower()]
    for name, level in configured.items():
        if name.split(".")[0] == "adapter":
            levels[name] = LEVELS[level.lower()]
    return levels


def _meant_by(name: str, originals: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Our categories for an original one; a class of a namespace that is not in the table means its namespace."""
    while name:
        if name in originals:
            return originals[name]
        name = name.rpartition(".")[0]
    return ()


def _formatter(settings: Settings, actor: str) -> logging.Formatter:
    if settings.logging.format == "json":
        return _JsonFormatter(actor)
    if os.environ.get("JOURNAL_STREAM"):
        return _TextFormatter(actor, colours=False, journald=True)
    colours = sys.stdout.isatty() and not settings.logging.disable_colors
    return _TextFormatter(actor, colours=colours, journald=False)


def printable(text: str) -> str:
    """Text with control characters, among them terminal escapes and line ends, as visible escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _trace_of(record: logging.LogRecord) -> list[str]:
    """The frames of an exception and its type, never its message, since that may quote patient data."""
    if not record.exc_info or record.exc_info[1] is None:
        return []
    error = record.exc_info[1]
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
    return [*lines, type(error).__name__]


class _TextFormatter(logging.Formatter):
    def __init__(self, actor: str, *, colours: bool, journald: bool) -> None:
        super().__init__()
        self._actor = actor
        self._colours = colours
        self._journald = journald

    def format(self, record: logging.LogRecord) -> str:
        level = _NAMES.get(record.levelno, record.levelname.lower())
        if self._colours:
            level = f"\x1b[{_COLOURS.get(record.levelno, '0')}m{level}\x1b[0m"
        fields = getattr(record, "fields", {})
        told = "".join(f" {name}={_value(value)}" for name, value in fields.items())
        trace = _trace_of(record)
        if trace:
            told += f" trace={_value(' | '.join(trace))}"
        line = f"{level}: {record.name} [{self._actor}] {printable(record.getMessage())}{told}"
        if self._journald:
            return f"<{_PRIORITIES.get(record.levelno, 6)}>{line}"
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        return f"{clock}.{int(record.msecs):03d} {line}"


class _JsonFormatter(logging.Formatter):
    def __init__(self, actor: str) -> None:
        super().__init__()
        self._actor = actor

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": _NAMES.get(record.levelno, record.levelname.lower()),
            "category": record.name,
            "actor": self._actor,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        trace = _trace_of(record)
        if trace:
            line["trace"] = trace
        return msgspec.json.encode(line, enc_hook=str).decode()


def _value(value: object) -> str:
    text = printable(str(value))
    return msgspec.json.encode(text).decode() if not text or " " in text or "=" in text or '"' in text else text
