"""The listening sockets: opened once, held as long as the supervisor lives, inherited by those who accept."""

import errno
import socket
from collections.abc import Sequence

from protocol.config import Settings
from protocol.errors import ConfigurationError
from supervisor.systemd import listen_descriptors

_BACKLOG = 1024


class Listeners:
    """The DICOM port's and the API's sockets.

    Args:
        settings: the addresses and ports.

    Raises:
        ConfigurationError: a port is taken, not allowed, or not the one that systemd was told to open.
    """

    def __init__(self, settings: Settings) -> None:
        scp, api = settings.dicom.scp, settings.api
        inherited = [socket.socket(fileno=fd) for fd in listen_descriptors()]
        known = {scp.port: "DicomAdapter.dicom.scp.port", api.port: "DicomAdapter.api.port"}
        for one in inherited:
            port = one.getsockname()[1]
            if port not in known:
                raise ConfigurationError(
                    f"systemd opened port {port}, but the configuration has DICOM port {scp.port} and API port "
                    f"{api.port}: make ListenStream= of the socket unit and the configuration equal"
                )
            _check_address(one, scp.bind if port == scp.port else (api.bind,), known[port])
            one.setblocking(False)
        self.dicom = [one for one in inherited if one.getsockname()[1] == scp.port]
        self.api = [one for one in inherited if one.getsockname()[1] == api.port]
        if not self.dicom:
            self.dicom = open_all(scp.bind, scp.port, known[scp.port])
        if not self.api:
            self.api = open_all([api.bind], api.port, known[api.port])

    def of(self, kind: str) -> tuple[int, ...]:
        """The descriptors that an actor of this kind accepts on."""
        sockets = {"receiver": self.dicom, "api": self.api}.get(kind, [])
        return tuple(one.fileno() for one in sockets)

    def close(self) -> None:
        """Refuse new connections from now on."""
        for one in (*self.dicom, *self.api):
            one.close()


def _check_address(inherited: socket.socket, addresses: Sequence[str], setting: str) -> None:
    """See that systemd did not open more than was meant to be open.

    Raises:
        ConfigurationError: it did.
    """
    address = inherited.getsockname()[0]
    resolved = {target[0] for one in addresses for *_, target in socket.getaddrinfo(one, None, type=socket.SOCK_STREAM)}
    if not resolved & {"0.0.0.0", "::", address}:  # noqa: S104 # compared, not bound
        raise ConfigurationError(
            f"systemd opened {address}, but {setting.rpartition('.')[0]}.bind has {', '.join(addresses)}: make "
            "ListenStream= of the socket unit and the configuration equal"
        )


def open_all(addresses: Sequence[str], port: int, setting: str) -> list[socket.socket]:
    """Listen on every address.

    Args:
        addresses: IPv4 or IPv6 addresses, or names.
        port: TCP port.
        setting: the setting that a problem's sentence names.

    Raises:
        ConfigurationError: one cannot be bound.
    """
    opened: list[socket.socket] = []
    try:
        for address in addresses:
            opened.append(_open(address, port, setting))
    except ConfigurationError:
        for one in opened:
            one.close()
        raise
    return opened


def _open(address: str, port: int, setting: str) -> socket.socket:
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError(
            f"the address {address} cannot be used ({error.strerror}): check {setting.rpartition('.')[0]}.bind"
        ) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(target)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ConfigurationError(_sentence(error, address, port, setting)) from error
    return listener


def _sentence(error: OSError, address: str, port: int, setting: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {address} is taken by another process: stop that one, or set {setting}"
    if error.errno == errno.EACCES:
        return (
            f"port {port} needs a privilege that this user does not have: start by systemd (AmbientCapabilities="
            f"CAP_NET_BIND_SERVICE, or the socket unit), or set {setting} to 1024 or above"
        )
    return f"port {port} on {address} cannot be opened ({error.strerror}): check {setting} and its bind address"
