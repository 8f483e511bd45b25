"""The other side's systems: sources, which may send, and destinations, to which results may go."""

import time
from typing import Any

from actors.api import validation
from actors.api.entities import Destination, Source
from actors.api.registry import Registry, kept_key
from actors.api.validation import Body
from protocol import exports, ledger
from protocol.config import kinds


class Sources(Registry[Source]):
    """The table of sources, by AE title."""

    noun = "source"

    def query(self) -> tuple[Any, Any]:
        """All rows."""
        return ledger.Source.select(), ledger.Source.ae_title

    def entity(self, row: ledger.Source) -> Source:
        """A row as its entity."""
        return Source.of(row)

    def key(self, entity: Source) -> str:
        """Its AE title."""
        return entity.ae_title

    def find(self, key: str, rows: list[Any]) -> Any | None:
        """By AE title."""
        return next((row for row in rows if row.ae_title == key), None)

    def read(self, body: Body, old: Source | None) -> Source:
        """An AE title and its hosts; PUT may leave the AE title out, since the path says it."""
        reader = body.read if old else body.required
        given = reader("aeTitle", kinds.ae_title(), "")
        return Source(
            ae_title=kept_key(body, "aeTitle", given, old.ae_title if old else None, str.__eq__),
            host_ip=body.required("hostIp", validation.hosts(), ""),
        )

    def taken(self, wanted: Source, others: list[Any]) -> list[str]:
        """AE titles are unique."""
        if any(row.ae_title == wanted.ae_title for row in others):
            return [f"aeTitle {wanted.ae_title!r} is taken already: replace that source by PUT; it may have many hosts"]
        return []

    def insert(self, wanted: Source) -> None:
        """Make a row."""
        ledger.Source.create(ae_title=wanted.ae_title, host_ip=wanted.host_ip, created_ns=time.time_ns())

    def update(self, row: ledger.Source, wanted: Source) -> None:
        """Change the hosts."""
        row.host_ip = wanted.host_ip
        row.save()


class Destinations(Registry[Destination]):
    """The table of destinations, by name without case."""

    noun = "destination"

    def query(self) -> tuple[Any, Any]:
        """All rows."""
        return ledger.Destination.select(), ledger.Destination.name

    def entity(self, row: ledger.Destination) -> Destination:
        """A row as its entity."""
        return Destination.of(row)

    def key(self, entity: Destination) -> str:
        """Its name."""
        return entity.name

    def find(self, key: str, rows: list[Any]) -> Any | None:
        """By name, without case."""
        return next((row for row in rows if _same(row.name, key)), None)

    def read(self, body: Body, old: Destination | None) -> Destination:
        """A name, an AE title, a host and a port; PUT may leave the name out, since the path says it."""
        reader = body.read if old else body.required
        given = reader("name", validation.text(64, "a name"), "")
        if "," in given or "://" in given or exports.is_dicomweb(given):
            body.errors.append(
                f"name {given!r} could not be told from a list or a DICOMweb service: leave out , and ://"
            )
        return Destination(
            name=kept_key(body, "name", given, old.name if old else None, _same),
            ae_title=body.required("aeTitle", kinds.ae_title(), ""),
            host_ip=body.required("hostIp", validation.host(), ""),
            port=body.required("port", kinds.whole(1, 65535), 0),
        )

    def taken(self, wanted: Destination, others: list[Any]) -> list[str]:
        """Names are unique; AE titles may repeat."""
        if any(_same(row.name, wanted.name) for row in others):
            return [f"name {wanted.name!r} is taken already: choose another, or replace that one by PUT"]
        return []

    def insert(self, wanted: Destination) -> None:
        """Make a row."""
        ledger.Destination.create(
            name=wanted.name,
            ae_title=wanted.ae_title,
            host_ip=wanted.host_ip,
            port=wanted.port,
            created_ns=time.time_ns(),
        )

    def update(self, row: ledger.Destination, wanted: Destination) -> None:
        """Change all but the name."""
        row.ae_title, row.host_ip, row.port = wanted.ae_title, wanted.host_ip, wanted.port
        row.save()


def _same(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()
