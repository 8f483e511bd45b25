"""Why a step of a submission was not done, and whether that says anything of its job."""

import msgspec

from protocol.availability import LEDGER_AWAY
from protocol.errors import AdapterError, RefusedError, UnavailableError, is_shortage


class Failure(msgspec.Struct, frozen=True):
    """A step that was not done.

    Args:
        reason: a sentence without patient data.
        unreachable: the platform was away, or could not be asked from here: the job goes on by itself later.
        permanent: the platform will not do it, however often it is asked.
    """

    reason: str
    unreachable: bool = False
    permanent: bool = False


def failure_of(error: Exception) -> Failure | None:
    """What an error means; None when nobody has thought of it.

    Args:
        error: what a step has raised.
    """
    if isinstance(error, LEDGER_AWAY):
        return Failure(f"the ledger could not be read: {type(error).__name__}", unreachable=True)
    if isinstance(error, AdapterError):
        unreachable = isinstance(error, UnavailableError) or is_shortage(error)
        return Failure(str(error), unreachable=unreachable, permanent=isinstance(error, RefusedError))
    if is_shortage(error):
        return Failure(f"this process cannot ask the platform: {str(error) or type(error).__name__}", unreachable=True)
    return None
