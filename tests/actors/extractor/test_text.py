"""Raw values as text: padding, several values, character sets, numbers."""

# ruff: noqa: RUF001 - letters that look alike are what this is about

import struct

import pytest

from actors.extractor.text import as_text


def text(vr: str, raw: bytes, character_set: str = "", sign: str = "<") -> str:
    return as_text(vr.encode(), raw, character_set.encode(), sign)


@pytest.mark.parametrize(
    ("character_set", "raw", "expected"),
    [
        # PS3.5 Annex H.3.1, H.3.2 (Japanese) and Annex I.2 (Korean); Greek and Latin-1 as their sets have them.
        (
            "\\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
        ),
        (
            "ISO 2022 IR 13\\ISO 2022 IR 87",
            b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
            "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎",
        ),
        (
            "\\ISO 2022 IR 149",
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7",
            "Hong^Gildong=洪^吉洞",
        ),
        ("ISO_IR 126", b"\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2 ", "Διονυσιος"),
        ("ISO_IR 100", b"Buc^J\xe9r\xf4me ", "Buc^Jérôme"),
        ("ISO_IR 144", b"\xbb\xee\xda^\xd1", "Люк^б"),
        ("ISO_IR 192", "Wang^XiaoDong=王^小东".encode(), "Wang^XiaoDong=王^小东"),
        ("GB18030", "Wang^XiaoDong=王^小东".encode("gb18030"), "Wang^XiaoDong=王^小东"),
        ("\\ISO 2022 IR 100\\ISO 2022 IR 126", b"Dion\x1b-F\xe9^\x1b-A\xe9", "Dionι^é"),
        # A code extension ends at the delimiter of a name's components.
        ("ISO 2022 IR 100\\ISO 2022 IR 126", b"\x1b-F\xe9^\xe9", "ι^é"),
        ("", b"M\xfcller", "Müller"),
        ("ISO-IR 126", b"\xe9", "ι"),
        ("ISO_2022_IR_87", b"\x1b$B;3\x1b(B", "山"),
        ("ISO_IR 9999", b"M\xfcller", "Müller"),
        ("unicode_escape", b"\\x41\xfc", "\\x41ü"),
        ("ISO_IR 192", b"M\xfcller", "M\ufffdller"),
        ("ISO_IR 192", b"\x1b%Gx", "\x1b%Gx"),
    ],
)
def test_character_sets(character_set: str, raw: bytes, expected: str) -> None:
    assert text("PN", raw, character_set) == expected


def test_a_kanji_with_a_backslash_among_its_bytes_is_one_value() -> None:
    raw = "表\\予".encode("iso2022_jp")
    assert text("LO", raw, "\\ISO 2022 IR 87") == "表\\予"
    kanji = b"\x1b$B\x30\x5c\x1b(B"
    assert text("LO", kanji, "\\ISO 2022 IR 87") == kanji.decode("iso2022_jp")
    assert text("LO", "誠\\誠".encode("gb18030"), "GB18030") == "誠\\誠"


def test_only_text_is_decoded_by_the_character_set() -> None:
    assert text("CS", b"\xe9", "ISO_IR 126") == "é"
    assert text("LO", b"\xe9", "ISO_IR 126") == "ι"


@pytest.mark.parametrize(
    ("vr", "raw", "expected"),
    [
        ("UI", b"1.2.3\0", "1.2.3"),
        ("LO", b" Thorax \0 ", "Thorax"),
        ("PN", b" Doe^John ", " Doe^John"),
        ("LT", b" a\\b  ", " a\\b"),
        ("DS", b"1.5 \\ 2.5 ", "1.5\\2.5"),
        ("CS", b"ORIGINAL\\PRIMARY ", "ORIGINAL\\PRIMARY"),
        ("LO", b"\\", "\\"),
        ("LO", b"", ""),
        ("LO", b"A\0B", "A\ufffdB"),
        ("SQ", b"abc", ""),
        ("OB", b"abc", ""),
        ("UN", b"text ", "text"),
        ("UN", b"\x01\x02", ""),
        ("UN", b"\xff\x85\x00\x00", ""),
        ("US", struct.pack("<2H", 1, 65535), "1\\65535"),
        ("SL", struct.pack("<l", -5), "-5"),
        ("FD", struct.pack("<d", 0.1), "0.1"),
        ("FL", struct.pack("<f", 2.5), "2.5"),
        ("AT", struct.pack("<2H", 0x0018, 0x00FF), "001800FF"),
        ("US", b"\x01", ""),
    ],
)
def test_values(vr: str, raw: bytes, expected: str) -> None:
    assert text(vr, raw) == expected


def test_numbers_in_big_endian() -> None:
    assert text("US", b"\x02\x00", sign=">") == "512"
    assert text("AT", b"\x00\x18\x00\xff", sign=">") == "001800FF"
