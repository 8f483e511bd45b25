"""Who may send: the last known AE titles and sources, written by the API, read by receivers and extractors.

It is a file in the spool, so that receiving needs neither the ledger nor the API. A reader looks at the file's
identity before each use, so a change holds from the next association on without a message.
"""

import ipaddress
import os
from pathlib import Path

import msgspec

from protocol.spool import write_durably


class AeTitleRule(msgspec.Struct, frozen=True, kw_only=True):
    """What a receiver and an extractor need to know of an AE title.

    Args:
        ae_title: the called AE title, compared exactly.
        ignored_sop_classes: UIDs that are answered Success and not stored.
        tags: elements that its job processor groups by, as GGGGEEEE.
        accepting: False when it was deleted and instances of it may still be on the way.
    """

    ae_title: str
    ignored_sop_classes: frozenset[str] = frozenset()
    tags: tuple[str, ...] = ()
    accepting: bool = True


class SourceRule(msgspec.Struct, frozen=True, kw_only=True):
    """A calling AE title and the hosts from which it may call (addresses, CIDR networks, names)."""

    ae_title: str
    host_ip: str


class AccessList(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that admission is decided by."""

    ae_titles: tuple[AeTitleRule, ...] = ()
    sources: tuple[SourceRule, ...] = ()


def normalize_address(address: str) -> str:
    """An address as it is compared: without zone, and as IPv4 when it is one mapped into IPv6."""
    text = address.partition("%")[0]
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return text
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)


class AccessFile:
    """The access list on disk, read again when it has changed.

    Args:
        path: `Spool.access`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._decoder = msgspec.json.Decoder(AccessList)
        self._seen: tuple[int, int, int] | None = None
        self._current = AccessList()

    def current(self) -> AccessList:
        """The list as it stands now; before the first one was written, an empty list, which admits nobody."""
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return self._current
        identity = (status.st_ino, status.st_mtime_ns, status.st_size)
        if identity != self._seen:
            self._current = self._decoder.decode(self._path.read_bytes())
            self._seen = identity
        return self._current

    def replace(self, access: AccessList) -> None:
        """Write a new list durably; it holds for every process from now on."""
        write_durably(self._path, msgspec.json.format(msgspec.json.encode(access), indent=1))
