"""STOW-RS (PS3.18 §10.5): a request's body straight from the files, and what its answer says of each instance."""

import os
import secrets
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from protocol.dicomweb.multipart import media_type
from protocol.errors import StorageError

ANSWER_TYPE = "application/dicom+json"
"""What we ask for; XML is read too."""
LONGEST_ANSWER_BYTES = 4 * 1024 * 1024
_CHUNK_BYTES = 256 * 1024
_REFERENCED, _FAILED = "00081199", "00081198"
_INSTANCE, _FAILURE_REASON = "00081155", "00081197"
_PROCESSING_FAILURE = 0x0110


class StoreBody:
    """The body of a STOW-RS request: its files as they are, each in a part of its own.

    Args:
        paths: of the files.
        sizes: of the files in bytes, in the same order.
    """

    def __init__(self, paths: Sequence[str], sizes: Sequence[int]) -> None:
        boundary = f"part-{secrets.token_hex(16)}"
        self._files = list(zip(paths, sizes, strict=True))
        self._start = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        self._end = f"--{boundary}--\r\n".encode()
        length = sum(sizes) + len(self._files) * (len(self._start) + 2) + len(self._end)
        self.headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Content-Length": str(length),
            "Accept": ANSWER_TYPE,
        }

    def __iter__(self) -> Iterator[bytes]:
        """The body's bytes.

        Raises:
            StorageError: a file cannot be read, or is not as long as it was.
        """
        for path, size in self._files:
            yield self._start
            yield from _content(path, size)
            yield b"\r\n"
        yield self._end


def _content(path: str, size: int) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size != size:
                raise StorageError("a file changed its size while it was sent")
            left = size
            while left:
                data = file.read(min(left, _CHUNK_BYTES))
                if not data:
                    raise StorageError("a file became shorter while it was sent")
                left -= len(data)
                yield data
    except OSError as error:
        raise StorageError(f"a file cannot be read: {(error.strerror or type(error).__name__).lower()}") from None


class StoreAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a server's answer says.

    Args:
        stored: SOP Instance UIDs that it names as stored, with a warning or without.
        failed: SOP Instance UIDs that it names as not stored, and its reasons (0008,1197).
    """

    stored: frozenset[str] = frozenset()
    failed: dict[str, int] = {}


def read_answer(content_type: str, body: bytes) -> StoreAnswer | None:
    """Read the Store Instances Response (PS3.18 annex I) as JSON or XML; None when the body is none, or empty."""
    try:
        if media_type(content_type).endswith("xml") or body.lstrip()[:1] == b"<":
            dataset = _from_xml(body)
        else:
            dataset = msgspec.json.decode(body)
        if isinstance(dataset, list) and len(dataset) == 1:
            (dataset,) = dataset
        if not isinstance(dataset, dict):
            return None
        stored = frozenset(_texts(_items(dataset, _REFERENCED)))
        failed = {uid: _reason(item) for item in _items(dataset, _FAILED) for uid in _texts([item])}
    except (msgspec.DecodeError, ET.ParseError, UnicodeError, ValueError, RecursionError):
        return None
    return StoreAnswer(stored=stored - failed.keys(), failed=failed)


def _items(dataset: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    element = dataset.get(tag)
    items = element.get("Value") if isinstance(element, dict) else None
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _texts(items: Sequence[dict[str, Any]]) -> Iterator[str]:
    for item in items:
        value = _first(item, _INSTANCE)
        if isinstance(value, str):
            yield value.strip(" \0")


def _reason(item: dict[str, Any]) -> int:
    try:
        return int(_first(item, _FAILURE_REASON))
    except (TypeError, ValueError):
        return _PROCESSING_FAILURE


def _first(item: dict[str, Any], tag: str) -> Any:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None


def _from_xml(body: bytes) -> dict[str, Any]:
    """The Native DICOM Model (PS3.19 §A.1) as the DICOM JSON Model has it, as far as it is looked at."""
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise ValueError("a document type is no part of an answer")
    root = ET.fromstring(body)  # noqa: S314 # without a document type there is nothing to expand
    if not root.tag.endswith("NativeDicomModel"):
        raise ValueError("no dataset")
    dataset: dict[str, Any] = {}
    for attribute in _children(root, "DicomAttribute"):
        items = [
            {
                value.get("tag", ""): {"Value": [text.text or "" for text in _children(value, "Value")]}
                for value in _children(item, "DicomAttribute")
            }
            for item in _children(attribute, "Item")
        ]
        dataset[attribute.get("tag", "")] = {"Value": items}
    return dataset


def _children(element: ET.Element, name: str) -> Iterator[ET.Element]:
    return (child for child in element if child.tag.rpartition("}")[2] == name)
