"""One tree of errors: each class has an exit code (sysexits.h) and a sentence that names the remedy."""

import errno
from collections.abc import Sequence

_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})

_NO_THREAD = "can't start new thread"  # as CPython says it, in a RuntimeError without a number


class AdapterError(Exception):
    """Anything that this system says about itself; `str()` of it is what a person reads."""

    exit_code = 70


class ConfigurationError(AdapterError):
    """What is configured cannot work; restarting does not help, so the supervisor does not restart it.

    Args:
        problems: one sentence a problem, each with its remedy; a single string is one problem.
    """

    exit_code = 78

    def __init__(self, problems: Sequence[str] | str) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class CannotCreateError(AdapterError):
    """A file, directory or socket that is needed cannot be made; the sentence names it and its remedy."""

    exit_code = 73


class UsageError(AdapterError):
    """The command line asked for something that does not exist in this form."""

    exit_code = 64


class NotFoundError(AdapterError):
    """What was named (a job, a study, an AE title) is not known here."""

    exit_code = 1


class UnavailableError(AdapterError):
    """A part that is needed for this does not answer now; the same call may succeed later."""

    exit_code = 69


class LedgerError(AdapterError):
    """The ledger cannot be opened now; the process is started again, with growing pauses."""

    exit_code = 69


class StorageError(AdapterError):
    """The spool could not take or give something: no space, an input/output error, a failed sync."""

    exit_code = 74


class RefusedError(AdapterError):
    """Another process understood a command and will not do it; the sentence is its reason."""

    exit_code = 1


class IllegalTransitionError(AdapterError):
    """A row was about to take a state that its life cycle does not allow: a fault of this program."""


def is_shortage(error: BaseException) -> bool:
    """Whether something failed since this process, or the machine, has no descriptors, threads or memory left.

    That says nothing of what was to be done: the same call succeeds when there is some again.

    Args:
        error: with what caused it.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or getattr(cause, "errno", None) in _SHORTAGES:
            return True
        if isinstance(cause, RuntimeError) and str(cause) == _NO_THREAD:
            return True
        cause = cause.__cause__
    return False
