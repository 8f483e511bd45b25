"""What an error that ends a round means: whether it was a try."""

import errno
import subprocess
import sys

import msgspec
import peewee as pw
import pytest

from actors.retriever.outcome import outcome_of
from protocol.errors import StorageError, UnavailableError


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files"),
        MemoryError(),
        RuntimeError("can't start new thread"),
        caused(UnavailableError("it cannot be reached"), OSError(errno.ENFILE, "Too many open files in system")),
        pw.OperationalError("unable to open database file"),
    ],
)
def test_no_try(error: Exception) -> None:
    outcome = outcome_of(error)
    assert outcome
    assert outcome.broken_off
    assert not outcome.missing


@pytest.mark.parametrize("error", [StorageError("the disk is broken"), msgspec.ValidationError("no order")])
def test_a_try(error: Exception) -> None:
    outcome = outcome_of(error)
    assert outcome
    assert (outcome.missing, outcome.problems, outcome.broken_off) == (("everything",), (str(error),), "")


@pytest.mark.parametrize("error", [ValueError("?"), RuntimeError("can't"), OSError(errno.EIO, "Input/output error")])
def test_what_nobody_has_thought_of(error: Exception) -> None:
    assert outcome_of(error) is None


def test_a_machine_without_threads() -> None:
    """In a process that has no room for another stack."""
    script = (
        "import resource, threading\n"
        "from actors.retriever.outcome import outcome_of\n"
        "threading.stack_size(512 * 1024 * 1024)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (600 * 1024 * 1024,) * 2)\n"
        "try:\n"
        "    while True:\n"
        "        threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "except RuntimeError as error:\n"
        "    print(outcome_of(error).broken_off)\n"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout == "this process cannot retrieve: can't start new thread\n"
