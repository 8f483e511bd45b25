"""FHIR sources: one read of one resource, as it comes, after a look whether it is what was asked for."""

import xml.parsers.expat
from collections.abc import Iterable, Iterator
from urllib.parse import quote

import msgspec

from actors.retriever.sources.base import DeniedError
from actors.retriever.sources.http import HttpCalls
from protocol.inference import FhirResource, HttpSource

_VERSIONS = {"R1": "0.0", "R2": "1.0", "R3": "3.0", "R4": "4.0"}
_MOST_BYTES = 64 * 1024 * 1024


class _JsonType(msgspec.Struct, rename="camel"):
    resource_type: str


class Fhir:
    """One FHIR server.

    Args:
        source: where and as whom.
    """

    def __init__(self, source: HttpSource) -> None:
        self._calls = HttpCalls(source)

    def read(self, resource: FhirResource) -> Iterator[bytes]:
        """The bytes of a resource.

        Raises:
            AwayError, DeniedError: while it is iterated over.
        """
        accept = f"application/fhir+{resource.form}; fhirVersion={_VERSIONS[resource.release]}"
        path = f"/{quote(resource.resource_type)}/{quote(resource.resource_id)}"
        with self._calls.get(path, accept) as answer:
            yield from _bounded(answer.chunks())

    def close(self) -> None:
        """Close connections."""
        self._calls.close()


def _bounded(chunks: Iterable[bytes]) -> Iterator[bytes]:
    count = 0
    for chunk in chunks:
        count += len(chunk)
        if count > _MOST_BYTES:
            raise DeniedError(f"the resource is larger than {_MOST_BYTES} bytes")
        yield chunk


def check_resource(data: bytes, resource: FhirResource) -> None:
    """Look whether this is the resource, and no page that says why not.

    Raises:
        DeniedError: it is something else.
    """
    try:
        found = _json_type(data) if resource.form == "json" else _xml_type(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, xml.parsers.expat.ExpatError):
        raise DeniedError(f"its answer is no FHIR {resource.form}") from None
    if found != resource.resource_type:
        raise DeniedError("its answer is a FHIR resource of another type")


def _json_type(data: bytes) -> str:
    return msgspec.json.decode(data, type=_JsonType).resource_type


def _xml_type(data: bytes) -> str:
    """The root element's name; entities are not expanded by this parser, since nothing reads their text."""
    root: list[str] = []
    parser = xml.parsers.expat.ParserCreate()

    def begins(name: str, _: object) -> None:
        if not root:
            root.append(name.rpartition(":")[2])

    def refuse(*_: object) -> None:
        raise xml.parsers.expat.ExpatError("a FHIR resource has no document type")

    parser.StartElementHandler = begins
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(data, True)
    return root[0]
