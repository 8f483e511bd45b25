"""Multipart bodies as a stream: any chunks, any boundary, nothing kept; what was cut short is an error."""

import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.dicomweb.multipart import MultipartError, Part, read_parts

TYPE = 'multipart/related; type="application/dicom"; boundary={}'
BOUNDARIES = ["b", "----=_Part_1.2", "'()+_,-./:=?", "simple boundary with spaces and end", "x" * 70, "-x"]


def encode(parts: list[bytes], boundary: str, *, headers: str = "Content-Type: application/dicom\r\n") -> bytes:
    body = b"".join(b"\r\n--%s\r\n%s\r\n%s" % (boundary.encode(), headers.encode(), part) for part in parts)
    return body.removeprefix(b"\r\n") + b"\r\n--%s--\r\n" % boundary.encode()


def decode(data: bytes, boundary: str = "b", step: int = 1 << 16) -> list[bytes]:
    chunks = (data[at : at + step] for at in range(0, len(data), step))
    return [b"".join(part) for part in read_parts(chunks, TYPE.format(f'"{boundary}"'))]


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_parts_come_back_whatever_the_chunks(boundary: str, step: int) -> None:
    parts = [b"", b"one", b"\r\n", b"\r\n--", b"-" * 9, bytes(range(256)), b"\r\n\r\n--\r\r\n-"]
    assert decode(encode(parts, boundary), boundary, step) == parts


@given(parts=st.lists(st.binary(max_size=60)), step=st.integers(1, 40))
def test_any_bytes_in_any_chunks(parts: list[bytes], step: int) -> None:
    boundary = "never-in-the-data"
    assert decode(encode(parts, boundary), boundary, step) == parts


def test_what_stands_around_the_parts_is_skipped() -> None:
    body = b"a preamble\r\nof lines --b\r\n" + encode([b"x"], "b") + b"and an epilogue\r\n--b\r\n\r\n"
    for step in (1, 5, 1000):
        assert decode(body, step=step) == [b"x"]


@pytest.mark.parametrize("step", [1, 1000])
def test_parts_without_headers_without_a_body_and_with_padding(step: int) -> None:
    assert decode(b"--b  \t\r\n\r\nx\r\n--b\r\nA: b\r\n\r\n--b--", step=step) == [b"x", b""]


def test_headers_are_told() -> None:
    body = encode([b"x"], "b", headers="Content-TYPE: application/dicom; transfer-syntax=1.2\r\nX:y:z\r\n")
    (headers,) = [part.headers for part in read_parts([body], TYPE.format("b"))]
    assert headers == {"content-type": "application/dicom; transfer-syntax=1.2", "x": "y:z"}


def test_a_part_that_nobody_reads_is_skipped() -> None:
    parts = read_parts([encode([b"one", b"two" * 1000, b"three"], "b")], TYPE.format("b"))
    next(parts)
    next(parts)
    assert b"".join(next(parts)) == b"three"


def test_every_cut_is_an_error_and_no_part_is_complete_by_it() -> None:
    body = encode([b"first", b"second"], "b").rstrip(b"\r\n")
    for length in range(len(body)):
        complete: list[bytes] = []
        with pytest.raises(MultipartError):
            complete.extend(b"".join(part) for part in read_parts([body[:length]], TYPE.format("b")))
        assert complete == [b"first", b"second"][: len(complete)], length


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"x" * 2_000_000, "does not begin with its boundary"),
        (b"--bc\r\n\r\nx\r\n--b--", "goes on as something else"),
        (b"--b" + b" " * 5000, "goes on as something else"),
        (b"--b\r\nA: " + b"x" * 100_000, "headers without an end"),
        (b"--b\r\nContent-Length: 2\r\n\r\nxyz\r\n--b--", "not as long"),
        (b"", "cut short"),
    ],
)
def test_nonsense_is_an_error(body: bytes, what: str) -> None:
    with pytest.raises(MultipartError, match=what):
        decode(body, step=4096)


@pytest.mark.parametrize("content_type", ["text/html", "", "multipart/related", "multipart/related; boundary=", "\r\n"])
def test_other_content_is_refused(content_type: str) -> None:
    with pytest.raises(MultipartError):
        list(read_parts([b"--b--"], content_type))


def test_a_length_that_is_no_number_says_nothing() -> None:
    body = b"--b\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nx\r\n--b--"
    assert [b"".join(part) for part in read_parts([body], TYPE.format("b"))] == [b"x"]


def test_a_single_object_without_multipart_is_one_part() -> None:
    (data,) = [b"".join(part) for part in read_parts([b"DI", b"CM"], "application/dicom; transfer-syntax=1.2")]
    assert data == b"DICM"


def test_memory_does_not_grow_with_the_part() -> None:
    def body() -> Iterator[bytes]:
        yield b"--b\r\nContent-Type: application/dicom\r\n\r\n"
        yield from (bytes(65536) for _ in range(1000))
        yield b"\r\n--b--"

    tracemalloc.start()
    try:
        sizes = [sum(map(len, part)) for part in read_parts(body(), TYPE.format("b"))]
        assert sizes == [65_536_000]
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_part_is_an_iterator_of_its_bytes() -> None:
    part = Part({}, iter([b"x"]))
    assert list(part) == [b"x"]
    assert part.content_type == ""
