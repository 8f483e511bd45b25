"""Who the tests' patients are, and the search for them in every log of the suite.

Nothing above Debug may name a patient. Logs come here when a gateway or an actor of a test ends; at the end of the
session `conftest` searches all of them, tracebacks and whatever else was written included.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

PATIENT_NAME = "Zzyzxowski^Quillfeather"
JAPANESE_NAME = "Yamada^Tarou=山田^太郎=やまだ^たろう"  # PS3.5 §H.3.1
GREEK_NAME = "Διονυσιος"
LATIN_1_NAME = "Buc^Jérôme"  # PS3.5 §H.3.2
BIRTH_DATE = "19341106"
PATIENT_ID_PREFIX = "PAT-"
"""Every Patient ID of a test begins with it, so that any of them is found."""

LOGS = "DICOM_ADAPTER_TEST_LOGS"
"""The variable with the directory in which logs are collected; without it they are not."""

_NAMES = (PATIENT_NAME, JAPANESE_NAME, GREEK_NAME, LATIN_1_NAME)
_WORDS = {word for name in _NAMES for word in re.split(r"[\^=]", name) if len(word) > 3 or not word.isascii()}
_PATIENTS = re.compile(
    "|".join(_WORDS)
    + rf"|(?<![0-9a-f]){BIRTH_DATE[:4]}-?{BIRTH_DATE[4:6]}-?{BIRTH_DATE[6:]}(?![0-9a-f])"
    + rf"|\b{PATIENT_ID_PREFIX}",
    re.IGNORECASE,
)
# Text lines, with their time or with journald's priority; whatever has no level of ours is searched.
_EXEMPT_TEXT = re.compile(r"(?:\S+ \S+ |<7>)(?:debug|trace): ")
# What an administrator asked for: it is in the log only when `logDimseDatasets` is on.
_ASKED_FOR = frozenset(("dimse_request", "dimse_dataset", "dimse_response"))
_EVENT = re.compile(r"(?:\S+ \S+ |<\d>)\w+: adapter\.receiver \[[\w-]+\] (\w+)")


def collect(name: str, text: str) -> None:
    """Keep a log for the search at the end of the session.

    Args:
        name: of the process, or the gateway.
        text: all that it wrote.
    """
    directory = os.environ.get(LOGS)
    if directory and text:
        test = os.environ.get("PYTEST_CURRENT_TEST", "between tests")
        number = len(os.listdir(directory))
        Path(directory, f"{os.getpid()}-{number:06d}.log").write_text(f"{name}, {test}\n{text}", errors="replace")


def search(text: str) -> list[str]:
    """The lines above Debug that name a patient."""
    return [line for line in text.splitlines() if _PATIENTS.search(line) and not _is_exempt(line)]


def search_collected(directory: Path) -> Iterator[str]:
    """Where, and in which line, collected logs name a patient."""
    for path in sorted(directory.iterdir()):
        origin, _, text = path.read_text().partition("\n")
        for line in search(text):
            yield f"{origin}: {line[:1000]}"


def _is_exempt(line: str) -> bool:
    if line.startswith("{"):
        try:
            told = json.loads(line)
        except ValueError:
            return False
        return told.get("level") in ("debug", "trace") or told.get("event") in _ASKED_FOR
    event = _EVENT.match(line)
    return _EXEMPT_TEXT.match(line) is not None or (event is not None and event[1] in _ASKED_FOR)
