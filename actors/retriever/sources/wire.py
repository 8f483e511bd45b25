"""What pynetdicom lacks for associations of ours: bounds of what an archive may send, and that no answer is lost.

It takes a PDU of any length into memory, waits for the rest of one without end, and collects a response's identifier
whatever its size. And its own thread may take an answer away from whoever waits for it.
"""

import time
from collections.abc import Callable
from typing import Any

from pynetdicom.association import Association

_LONGEST_PDU = 1024 * 1024  # some send longer ones than were negotiated
_PDU_SECONDS = 60.0
_PIECE = 256 * 1024


def keep_answers(association: Association) -> None:
    """Have all messages go to whoever waits for them.

    An association's thread looks for requests of the peer. It is told to pause while an operation waits for answers,
    but may have been let go just before and look once more: an answer that is there then is thrown away, and the
    operation waits for it until its deadline. A peer of ours has nothing to request outside of an operation.

    Args:
        association: that we have requested, established.
    """
    take = association.dimse.get_msg

    def take_if_waited_for(block: bool = False) -> Any:
        """As `DIMSEServiceProvider.get_msg`; the thread alone does not wait."""
        return take(block) if block else (None, None)

    association.dimse.get_msg = take_if_waited_for  # type: ignore[method-assign]


def bounded(most_bytes: int) -> Callable[[Any], None]:
    """A handler of `evt.EVT_CONN_OPEN`.

    Args:
        most_bytes: of all that comes on the association; 0 for what is written to a file as it comes.
    """

    def bind(event: Any) -> None:
        connection = event.assoc.dul.socket
        received = 0

        def recv(count: int) -> bytearray:
            """As `AssociationSocket.recv`, whose errors end the association."""
            nonlocal received
            received += count
            if count > _LONGEST_PDU:
                raise OSError(f"a PDU of {count} bytes")
            if 0 < most_bytes < received:
                raise OSError(f"more than {most_bytes} bytes")
            data, deadline = bytearray(), time.monotonic() + _PDU_SECONDS
            patience = connection.socket.gettimeout()
            try:
                while len(data) < count:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise TimeoutError("the rest of a PDU")
                    connection.socket.settimeout(left)
                    piece = connection.socket.recv(min(count - len(data), _PIECE))
                    if not piece:
                        break
                    data += piece
            finally:
                connection.socket.settimeout(patience)
            return data

        connection.recv = recv

    return bind
