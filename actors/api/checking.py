"""Has a job processor of another package check settings, in a host process of its own that is ended afterwards."""

import select
import time

import msgspec

from protocol import messages
from protocol.messages import Message
from protocol.plugins import limits
from protocol.plugins.calls import Frames, FromHost, Load, Loaded, Raised, Rejected, frame
from protocol.plugins.process import HostProcess

_READ_BYTES = 65536


class CheckFailedError(Exception):
    """A job processor did not say whether settings are valid; the text is the reason, as words that follow "it"."""


def check(name: str, ae_title: str, settings: dict[str, str]) -> Loaded | Rejected:
    """Ask a job processor what it says to an AE title's settings.

    Args:
        name: the processor's name.
        ae_title: the AE title.
        settings: its processor settings.

    Raises:
        CheckFailedError: it is broken, or did not answer in `limits.CHECK_SECONDS`.
    """
    deadline = time.monotonic() + limits.CHECK_SECONDS
    try:
        host = HostProcess(name, ae_title)
    except OSError as error:
        raise CheckFailedError(f"its process cannot be started: {error.strerror}") from error
    answer: Message | None = None
    late = False
    try:
        host.connection.settimeout(limits.CHECK_SECONDS)
        host.connection.sendall(frame(Load(name=name, ae_title=ae_title, settings=settings)))
        answer = _first_message(host, deadline)
    except TimeoutError:
        late = True
    except (OSError, EOFError):
        # Its end tells why; and it may have hung up without ending.
        select.select([host.pidfd], [], [], max(0.0, deadline - time.monotonic()))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise CheckFailedError("said what nobody understands") from None
    finally:
        host.kill()
        ended = host.reap()
    match answer:
        case Loaded() | Rejected():
            return answer
        case Raised():
            raise CheckFailedError(f"raised {answer.error}")
    raise CheckFailedError(f"did not answer in {limits.CHECK_SECONDS:g} s" if late else ended)


def _first_message(host: HostProcess, deadline: float) -> Message:
    """Wait for its answer.

    Raises:
        TimeoutError: the deadline passed.
        EOFError: it hung up.
        OSError: as the socket says.
        msgspec.MsgspecError, UnicodeDecodeError: it said what is no answer.
    """
    frames = Frames(messages.decoder(FromHost))
    while True:
        host.connection.settimeout(max(0.001, deadline - time.monotonic()))
        data = host.connection.recv(_READ_BYTES)
        if not data:
            raise EOFError
        for message in frames.feed(data):
            return message
