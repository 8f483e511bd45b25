"""Small values that the parts of the SCU share: a destination, the deadlines, and what went wrong."""

import msgspec


class ScuDestination(msgspec.Struct, frozen=True, kw_only=True):
    """Where to send.

    Args:
        name: for people.
        ae_title: the called AE title.
        host: an address or a name.
        port: of TCP.
    """

    name: str
    ae_title: str
    host: str
    port: int


class Deadlines(msgspec.Struct, frozen=True, kw_only=True):
    """How long is waited for a peer.

    Args:
        connect_seconds: for the connection, for each of the host's addresses.
        acse_seconds: for the answer to the association's request, and to its release.
        write_seconds: for the peer to take anything.
        response_seconds: for the response, from the last byte of the object on.
        slowest_bytes_per_second: what an object has to travel with, on top of the other deadlines.
    """

    connect_seconds: float = 10.0
    acse_seconds: float = 30.0
    write_seconds: float = 30.0
    response_seconds: float = 60.0
    slowest_bytes_per_second: float = 16_000.0


class BrokenError(Exception):
    """The connection is of no more use: closed, aborted, or what came was no DICOM. Another one may be.

    Args:
        what: a few words, without anything that the peer wrote.
    """


class TooSlowError(BrokenError):
    """The peer did nothing within a deadline; it would not on another connection either."""


class RejectedError(BrokenError):
    """The peer rejected the association."""
