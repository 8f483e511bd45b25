"""What a round tells the main loop: which files are kept, and how it ended."""

import msgspec
import peewee as pw

from protocol.errors import AdapterError, is_shortage


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is durable; its fields are those of its row, and whether a receiver has counted its bytes."""

    path: str
    name: str
    size: int
    study_uid: str = ""
    series_uid: str = ""
    sop_instance_uid: str = ""
    attributes: dict[str, str] = {}
    source: int = 0
    retrieved_ns: int
    counted: bool = False


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a round ended.

    Args:
        missing: what was wanted and not found, without patient data.
        problems: what sources said.
        away: whether a source could not be reached, so that this was no try.
        broken_off: why it ended before its end, which is no try either.
    """

    missing: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    away: bool = False
    broken_off: str = ""


def nothing(problem: str) -> Outcome:
    """A round that has found nothing of what was wanted.

    Args:
        problem: why, without patient data.
    """
    return Outcome(missing=("everything",), problems=(problem,))


def outcome_of(error: Exception) -> Outcome | None:
    """What an error that ended a round means; None when nobody has thought of it.

    Args:
        error: what was raised.
    """
    if isinstance(error, pw.PeeweeException):
        return Outcome(broken_off=f"the ledger could not be read: {type(error).__name__}")
    if is_shortage(error):
        return Outcome(broken_off=f"this process cannot retrieve: {str(error) or type(error).__name__}")
    if isinstance(error, (AdapterError, msgspec.MsgspecError)):
        return nothing(str(error))
    return None
