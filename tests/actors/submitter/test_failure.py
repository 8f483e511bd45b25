"""What an error says of a job: who goes on by itself, who waits for a person."""

import errno
import os
import sqlite3

import peewee as pw
import pytest
import zmq

from actors.submitter.failure import Failure, failure_of
from protocol.errors import RefusedError, StorageError, UnavailableError

_NO_DESCRIPTORS, _NO_SPACE = (OSError(number, os.strerror(number)) for number in (errno.EMFILE, errno.ENOSPC))


def caused(by: Exception) -> StorageError:
    """A storage error as it is raised."""
    with pytest.raises(StorageError) as raised:
        raise StorageError("a file could not be linked") from by
    return raised.value


@pytest.mark.parametrize(
    "error",
    [
        UnavailableError("the platform did not answer"),
        pw.OperationalError("unable to open database file"),
        pw.InterfaceError("connection already closed"),
        _NO_DESCRIPTORS,
        zmq.ZMQError(errno.EMFILE),
        MemoryError(),
        caused(_NO_DESCRIPTORS),
    ],
    ids=repr,
)
def test_what_passes_by_itself(error: Exception) -> None:
    failure = failure_of(error)
    assert failure
    assert (failure.unreachable, failure.permanent) == (True, False)
    assert failure.reason.strip(": ") == failure.reason


@pytest.mark.parametrize("error", [caused(_NO_SPACE), StorageError("the instance is not in the spool")], ids=repr)
def test_what_is_tried_again_and_then_waits_for_a_person(error: Exception) -> None:
    assert failure_of(error) == Failure(str(error))


def test_what_is_not_tried_again() -> None:
    assert failure_of(RefusedError("no such pipeline")) == Failure("no such pipeline", permanent=True)


@pytest.mark.parametrize("error", [ValueError("x"), _NO_SPACE, pw.IntegrityError("x"), sqlite3.Error("x")], ids=repr)
def test_what_nobody_has_thought_of(error: Exception) -> None:
    assert failure_of(error) is None
