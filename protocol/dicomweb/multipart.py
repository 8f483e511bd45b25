"""Reading multipart/related (RFC 2387, RFC 2046 §5.1) as a stream: parts of any size in little memory.

`PartsParser` takes bytes as they come and tells what they mean; `read_parts` is the same for who has an iterator of
chunks. Delimiters decide where a part ends; a body that ends without its last one was cut short, and that is an error.
"""

import re
from collections.abc import Iterable, Iterator
from email.message import Message
from typing import NamedTuple

from protocol.errors import UnavailableError

_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,64}/[a-z0-9!#$&^_.+-]{1,64}", re.ASCII)  # RFC 6838 §4.2
_LONGEST_HEADERS_BYTES = 64 * 1024  # of one part
_LONGEST_PREAMBLE_BYTES = 1024 * 1024
_MOST_DIGITS = 18
_LONGEST_BOUNDARY = 256  # the standard has 70
_LONGEST_PADDING = 1024  # white space behind a delimiter


class MultipartError(UnavailableError):
    """What a server sent is no whole multipart body; another try may bring one."""


class PartBegins(NamedTuple):
    """A part's headers, their names in lower case."""

    headers: dict[str, str]


class PartEnds(NamedTuple):
    """A part is complete; so many bytes were in it."""

    length: int


Event = PartBegins | bytes | PartEnds


def media_type(content_type: str) -> str:
    """A Content-Type without its parameters, in lower case; empty when it is malformed."""
    found = content_type.partition(";")[0].strip().lower()
    return found if _MEDIA_TYPE.fullmatch(found) else ""


def boundary_of(content_type: str) -> bytes:
    """The boundary of a multipart body.

    Raises:
        MultipartError: the content type is not multipart, or has no boundary that can be one.
    """
    if not media_type(content_type).startswith("multipart/"):
        raise MultipartError(f"the server answered {media_type(content_type) or 'no content type'}, not multipart")
    message = Message()
    message["Content-Type"] = content_type
    try:
        boundary = (message.get_boundary("") or "").encode("latin-1")
    except UnicodeError:
        boundary = b""
    if not 0 < len(boundary) <= _LONGEST_BOUNDARY or b"\r" in boundary or b"\n" in boundary:
        raise MultipartError("the server's multipart answer names no usable boundary")
    return boundary


class PartsParser:
    """Tells what a multipart body's bytes mean, in whatever pieces they come; it keeps less than one header block.

    Args:
        content_type: of the body, with its boundary.

    Raises:
        MultipartError: the content type has no boundary.
    """

    def __init__(self, content_type: str) -> None:
        self._delimiter = b"\r\n--" + boundary_of(content_type)
        self._buffer = b"\r\n"  # a delimiter may be the body's first line
        self._state = self._preamble
        self._skipped = 0
        self._length = 0
        self._expected: int | None = None
        self._done = False

    def feed(self, data: bytes) -> Iterator[Event]:
        """Take the next bytes; iterate to the end before feeding again.

        Raises:
            MultipartError: they are no multipart body.
        """
        if self._done:
            return  # an epilogue means nothing
        self._buffer += data
        while event := self._state():
            if not isinstance(event, bool):
                yield event

    def close(self) -> None:
        """The body is at its end.

        Raises:
            MultipartError: it was cut short.
        """
        if not self._done:
            raise MultipartError("the server's multipart answer was cut short: its last delimiter is missing")

    # Each state takes what it can from the buffer; it returns an event, True to go on, or False for want of bytes.

    def _preamble(self) -> Event | bool:
        at = self._buffer.find(self._delimiter)
        if at >= 0:
            self._buffer = self._buffer[at + len(self._delimiter) :]
            self._state = self._after_delimiter
            return True
        kept = min(len(self._buffer), len(self._delimiter) - 1)
        self._skipped += len(self._buffer) - kept
        self._buffer = self._buffer[len(self._buffer) - kept :]
        if self._skipped > _LONGEST_PREAMBLE_BYTES:
            raise MultipartError("the server's multipart answer does not begin with its boundary")
        return False

    def _after_delimiter(self) -> Event | bool:
        if self._buffer.startswith(b"--"):
            self._done = True
            self._buffer = b""
            return False
        end = self._buffer.find(b"\r\n")
        padding = self._buffer.rstrip(b"\r") if end < 0 else self._buffer[:end]
        if end < 0 and padding == b"-":
            return False
        if padding.strip(b" \t") or len(padding) > _LONGEST_PADDING:
            raise MultipartError("the server's multipart answer has a boundary that goes on as something else")
        if end < 0:
            return False
        self._buffer = self._buffer[end:]  # with the line end: there may be no header at all
        self._state = self._headers
        return True

    def _headers(self) -> Event | bool:
        end = self._buffer.find(b"\r\n\r\n")
        if max(end, len(self._buffer) if end < 0 else 0) > _LONGEST_HEADERS_BYTES:
            raise MultipartError("a part of the server's multipart answer has headers without an end")
        rest = self._buffer[end + 2 :]  # the empty line's own end begins the delimiter of a part without a body
        if end < 0 or (len(rest) < len(self._delimiter) and self._delimiter.startswith(rest)):
            return False
        headers = _headers(self._buffer[:end])
        self._buffer = rest if rest.startswith(self._delimiter) else rest[2:]
        self._length = 0
        stated = headers.get("content-length", "")
        is_number = stated.isascii() and stated.isdigit() and len(stated) <= _MOST_DIGITS
        self._expected = int(stated) if is_number else None
        self._state = self._body
        return PartBegins(headers)

    def _body(self) -> Event | bool:
        at = self._buffer.find(self._delimiter)
        end = at if at >= 0 else len(self._buffer) - len(self._delimiter) + 1
        if end > 0:
            data, self._buffer = self._buffer[:end], self._buffer[end:]
            self._length += len(data)
            return data
        if at < 0:
            return False
        self._buffer = self._buffer[len(self._delimiter) :]
        self._state = self._after_delimiter
        if self._expected is not None and self._expected != self._length:
            raise MultipartError("a part of the server's multipart answer is not as long as its headers say")
        return PartEnds(self._length)


def _headers(block: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in block.split(b"\r\n"):
        name, colon, value = line.decode("latin-1").partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return headers


class Part:
    """A part of a multipart body; iterate over it for its bytes, before the next part is asked for.

    Args:
        headers: names in lower case.
        chunks: of its bytes.
    """

    def __init__(self, headers: dict[str, str], chunks: Iterator[bytes]) -> None:
        self.headers = headers
        self.content_type = headers.get("content-type", "")
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks


def read_parts(chunks: Iterable[bytes], content_type: str) -> Iterator[Part]:
    """Read a body part by part; a part that nobody iterates over is skipped.

    A body that is `application/dicom` itself, as some servers send a single object, is one part.

    Args:
        chunks: the body as it comes.
        content_type: of the answer.

    Raises:
        MultipartError: the body is no multipart one, or was cut short; it comes while parts or their bytes are read.
    """
    if media_type(content_type) == "application/dicom":
        yield Part({"content-type": content_type}, iter(chunks))
        return
    events = _events(chunks, PartsParser(content_type))
    for event in events:
        if isinstance(event, PartBegins):
            part = _bytes_of_part(events)
            yield Part(event.headers, part)
            for _ in part:  # what was not read
                pass


def _events(chunks: Iterable[bytes], parser: PartsParser) -> Iterator[Event]:
    for chunk in chunks:
        yield from parser.feed(chunk)
    parser.close()


def _bytes_of_part(events: Iterator[Event]) -> Iterator[bytes]:
    for event in events:
        if isinstance(event, bytes):
            yield event
        elif isinstance(event, PartEnds):
            return
