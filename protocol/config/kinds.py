"""What a setting may be: each kind says in words what is allowed, and turns a written value into the one used.

Values come from JSON, YAML, environment variables and command lines, so numbers and booleans may be text, as
the .NET configuration binder of the original has it.
"""

import ipaddress
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

LARGEST = 2**31 - 1
"""Upper end of what has no limit of its own: the original's Int32, and what timers in milliseconds can hold."""

_UNITS = {"": 1}
_UNITS |= {unit: 1000**power for power, unit in enumerate("kMGTPE", start=1)}
_UNITS |= {f"{unit}i": 1024**power for power, unit in enumerate("KMGTPE", start=1)}

# PS3.6 Annex A.
_TRANSFER_SYNTAX = re.compile(
    r"1\.2\.840\.10008\.1\.2(\.1(\.9[89])?|\.2|\.4\.\d{2,3}(\.1)?|\.5|\.6\.[12]|\.7\.[123]|\.8\.1)?"
)
_NOT_TEXT = {"SQ", "UN", "OB", "OD", "OF", "OL", "OV", "OW", "OB or OW"}
_HOST = re.compile(r"(?!-)[A-Za-z0-9_.-]{1,253}")


class Refused(Exception):  # noqa: N818 - not an error of the program: the answer to a value
    """A value is not allowed.

    Args:
        reason: what is wrong, to be read after the value: "is not a whole number".
    """


@dataclass(frozen=True)
class Kind:
    """One kind of value.

    Args:
        allowed: what is allowed, in words that follow "allowed is".
        parse: returns the value to use, or raises `Refused`.
        parts: whether the value is a list or a map, whose parts other sources may give one by one; then `parse`
            takes one part.
        separators: between the parts of a list that is written as one text.
    """

    allowed: str
    parse: Callable[[object], object]
    parts: Literal["", "list", "map"] = ""
    separators: str = ""


def type_name(value: object) -> str:
    """Return what people call a JSON value's type, with its article."""
    names: dict[type, str] = {
        bool: "a boolean",
        dict: "an object",
        list: "a list",
        str: "a text",
        float: "a number",
    }
    return names.get(type(value), "a number" if isinstance(value, int) else f"a {type(value).__name__}")


def _number(value: object, pattern: str, wanted: str) -> str:
    """Return a number's text; `pattern` decides, so that Python's own freedoms (`1_000`, `nan`) stay out."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Refused(f"is {type_name(value)}, not {wanted}")
    text = str(value).strip()
    if not re.fullmatch(pattern, text, re.ASCII):
        raise Refused(f"is not {wanted}")
    return text


def _in_range(number: float, smallest: float, largest: float) -> None:
    if number < smallest:
        raise Refused("is too small")
    if number > largest:
        raise Refused("is too large")


def _range_words(what: str, smallest: float, largest: float) -> str:
    return f"{what}, {smallest} or more" if largest == LARGEST else f"{what} from {smallest} to {largest}"


def whole(smallest: int, largest: int = LARGEST) -> Kind:
    """Return the kind of whole numbers from `smallest` to `largest`, both included."""

    def parse(value: object) -> int:
        text = _number(value, r"[+-]?\d+", "a whole number")
        if len(text) > 20:  # int() itself refuses thousands of digits, with a sentence about Python
            raise Refused("is too small" if text[0] == "-" else "is too large")
        _in_range(int(text), smallest, largest)
        return int(text)

    return Kind(_range_words("a whole number", smallest, largest), parse)


def decimal(smallest: float, largest: float = LARGEST, what: str = "a number") -> Kind:
    """Return the kind of numbers from `smallest` to `largest`, both included."""

    def parse(value: object) -> float:
        text = _number(value, r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|inf", "a number")
        _in_range(float(text), smallest, largest)
        return float(text)

    return Kind(_range_words(what, smallest, largest), parse)


def seconds(smallest: float, largest: int) -> Kind:
    """Return the kind of durations in seconds, fractions allowed."""
    return decimal(smallest, largest, "seconds")


def flag() -> Kind:
    """Return the kind of booleans, in any case when written as text."""

    def parse(value: object) -> bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.strip().lower() in {"true", "false"}:
            return value.strip().lower() == "true"
        raise Refused("is neither true nor false")

    return Kind("true or false", parse)


def as_text(value: object) -> str:
    """Return a text without spaces at its ends; a whole number is one too, as an AE title `1234` may be.

    Raises:
        Refused: it is no text, is blank, or holds control characters.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Refused(f"is {type_name(value)}, not a text")
    text = str(value).strip()
    if not text:
        raise Refused("is blank")
    if not text.isprintable():
        raise Refused("holds control characters")
    return text


def matching(pattern: str, allowed: str, reason: str) -> Kind:
    """Return the kind of texts that a regular expression matches as a whole."""
    expression = re.compile(pattern)

    def parse(value: object) -> str:
        text = as_text(value)
        if not expression.fullmatch(text):
            raise Refused(reason)
        return text

    return Kind(allowed, parse)


def choice(*names: str) -> Kind:
    """Return the kind of a few words, read in any case."""
    by_lower = {name.lower(): name for name in names}

    def parse(value: object) -> str:
        name = by_lower.get(as_text(value).lower())
        if name is None:
            raise Refused("is none of them")
        return name

    return Kind(" or ".join(filter(None, (", ".join(names[:-1]), names[-1]))), parse)


def optional(kind: Kind) -> Kind:
    """Return `kind`, where an empty text means none, so that a later source can take a value away."""
    return Kind(f"{kind.allowed}, or empty for none", lambda value: None if value == "" else kind.parse(value))


def list_of(item: Kind, allowed: str, separators: str = r"[;\s]+") -> Kind:
    """Return the kind of non-empty lists; one text of several parts is one too."""
    return Kind(allowed, item.parse, "list", separators)


def map_of(item: Kind, allowed: str) -> Kind:
    """Return the kind of objects whose names are free and whose values are of one kind."""
    return Kind(allowed, item.parse, "map")


def ae_title() -> Kind:
    """Return the kind of AE titles (PS3.5 §6.2: no backslash, no control character, not only spaces)."""
    return matching(
        r"[\x20-\x5b\x5d-\x7e]{1,16}",
        "an AE title: 1 to 16 characters of ASCII without backslash",
        "is no AE title",
    )


def bearer_token() -> Kind:
    """Return the kind of bearer tokens (RFC 6750 §2.1)."""
    return matching(r"[A-Za-z0-9._~+/-]{1,512}=*", "a token of letters, digits and ._~+/-", "cannot be a bearer token")


def transfer_syntax() -> Kind:
    """Return the kind of UIDs of DICOM's transfer syntaxes (PS3.6 Annex A)."""
    return matching(_TRANSFER_SYNTAX.pattern, "UIDs of transfer syntaxes", "is not the UID of a transfer syntax")


def path() -> Kind:
    """Return the kind of paths; a relative one starts at the working directory."""
    return Kind("a path", lambda value: os.path.abspath(as_text(value)))


def dicom_tag() -> Kind:
    """Return the kind of DICOM tags whose values are text or numbers; the result is eight upper-case hex digits."""

    def parse(value: object) -> str:
        parts = re.fullmatch(r"\(?([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})\)?", as_text(value).replace(" ", ""))
        if not parts:
            raise Refused("is not a DICOM tag")
        tag = "".join(parts.groups()).upper()
        if tag[:4] in {"0000", "0002", "FFFE"} or tag[4:] == "0000":
            raise Refused("is not an element of instances")
        if tag not in _PLAIN_TAGS and _representation(tag) in _NOT_TEXT:
            raise Refused("is a sequence or binary, which is no text")
        return tag

    return Kind("DICOM tags such as 0010,0020, of text or numbers", parse)


# The defaults, which almost every site has: they spare it the half second that DICOM's dictionary takes to load.
_PLAIN_TAGS = {"00080020", "00080060", "00081030", "0008103E", "00100020", "00100030", "00101010", "0020000D"}


def _representation(tag: str) -> str:
    """Return the value representation of a tag, empty when DICOM does not define it (private, or newer)."""
    from pydicom.datadict import dictionary_VR  # noqa: PLC0415 - heavy, see _PLAIN_TAGS

    try:
        return dictionary_VR(int(tag, 16))
    except KeyError:
        return ""


def address() -> Kind:
    """Return the kind of IP addresses to listen on."""

    def parse(value: object) -> str:
        text = as_text(value)
        if text.lower() == "localhost":
            return "127.0.0.1"
        try:
            return str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]")))
        except ValueError:
            raise Refused("is not an IP address") from None

    return Kind("an IP address of this machine, 0.0.0.0 for all, or localhost", parse)


def allowed_host() -> Kind:
    """Return the kind of what a Host header may be: a name, `*.` and a name, an address, or `*`."""

    def parse(value: object) -> str:
        text = as_text(value).lower()
        bare = text.removeprefix("*.")
        if text != "*" and not _HOST.fullmatch(bare) and not _is_ipv6(bare):
            raise Refused("is not a host name")
        return text

    return Kind("host names", parse)


def _is_ipv6(host: str) -> bool:
    try:
        return host.startswith("[") and ipaddress.ip_address(host[1:].removesuffix("]")).version == 6
    except ValueError:
        return False


def _is_endpoint(text: str) -> bool:
    """Return whether this is host:port, with an IPv6 address in brackets."""
    host, _, port = text.rpartition(":")
    known = bool(_HOST.fullmatch(host)) or (host.endswith("]") and _is_ipv6(host))
    return known and re.fullmatch(r"\d{1,5}", port, re.ASCII) is not None and 1 <= int(port) <= 65535


def _is_url(text: str) -> bool:
    """Return whether this is an absolute http URL that paths can be appended to."""
    try:
        url = urlsplit(text)
        return (
            url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0 and not (url.query or url.fragment)
        )
    except ValueError:  # a port or an IPv6 address that is none
        return False


def embedded_or(check: Literal["endpoint", "url"]) -> Kind:
    """Return the kind of what is `embedded`, or else elsewhere: `host:port`, or an absolute URL."""
    is_there, allowed, reason = {
        "endpoint": (_is_endpoint, "embedded, or host:port of Clara Platform", "is not host:port"),
        "url": (_is_url, "embedded, or an absolute URL of http or https", "is not an absolute URL"),
    }[check]

    def parse(value: object) -> str:
        text = as_text(value)
        if text.lower() == "embedded":
            return "embedded"
        if not is_there(text):
            raise Refused(reason)
        return text.rstrip("/")

    return Kind(allowed, parse)


def quantity() -> Kind:
    """Return the kind of sizes in bytes, written as Kubernetes writes them: `50Gi`, `3G`, `129e6`, `1048576`."""

    def parse(value: object) -> int:
        text = _number(value, r"\d+(\.\d+)?([eE]\d{1,2}|[kMGTPE]|[KMGTPE]i)?", "a size")
        parts = re.fullmatch(r"([\d.]+(?:[eE]\d+)?)(\D*)", text)
        if parts is None:
            raise Refused("is not a size")
        size = float(parts[1]) * _UNITS[parts[2]]
        _in_range(size, 1, 2**63 - 1)
        return math.floor(size)

    return Kind("a size such as 50Gi, 3G or 1048576 (bytes)", parse)


def database() -> Kind:
    """Return the kind of the ledger's place; the result is `sqlite:///PATH` (maybe relative) or `postgresql://…`.

    A `Data Source` is .NET's connection string: keywords in any case, values maybe in quotes. Its other keywords
    tune the original's library and mean nothing here.
    """

    def parse(value: object) -> str:
        text = as_text(value)
        scheme, _, rest = text.partition("://")
        if scheme in {"postgres", "postgresql"} and rest:
            return f"postgresql://{rest}"
        found = rest.removeprefix("/") if scheme == "sqlite" and rest.startswith("/") else _data_source(text)
        if not found or found == ":memory:" or "mode=memory" in text.lower():
            raise Refused("names no database that several processes can share")
        return f"sqlite:///{found}"

    return Kind("Data Source=FILE, sqlite:////FILE, or postgresql://USER:PASSWORD@HOST:PORT/NAME", parse)


def _data_source(text: str) -> str:
    """Return the file that a .NET connection string names; empty when it names none."""
    for part in text.split(";"):
        keyword, _, value = part.partition("=")
        if keyword.strip().lower().replace(" ", "") in {"datasource", "filename"}:
            return value.strip().strip("\"'")
    return ""
