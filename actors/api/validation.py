"""Reads JSON bodies as the original did, and tells every error at once.

Names are read in any case, unknown ones ignored (except where that would be dangerous), and numbers and booleans may
be text. What a field may be is a `Kind` of the configuration's, so both say the same of the same things.
"""

import ipaddress
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from actors.api.problems import InvalidError, ProblemError
from protocol.config.kinds import Kind, Refused, as_text, type_name
from protocol.config.problems import printable

T = TypeVar("T")

_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.ASCII)
_SHOWN_CHARACTERS = 64


class Body:
    """A JSON object whose fields are taken one by one; errors gather until `done`.

    Args:
        data: the request's body.

    Raises:
        ProblemError: it is no JSON.
        InvalidError: it is no object, or has a field twice.
    """

    def __init__(self, data: bytes) -> None:
        self.errors: list[str] = []
        self._fill("", _object(data))
        self.done()

    def _fill(self, where: str, values: Mapping[str, object]) -> None:
        self._where = where
        self._values = values
        self._names = {name.casefold(): name for name in values}
        twice = sorted(name for name in values if self._names[name.casefold()] != name)
        self.errors += [f"{_shown(where + name)} is given more than once" for name in twice]
        self._errors_before = len(self.errors)
        self._taken: set[str] = set()

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found wrong since this object was begun."""
        return len(self.errors) == self._errors_before

    def within(self, name: str, value: object) -> "Body | None":
        """An object that is part of this one, as a body that shares its errors; None, and an error, when it is none."""
        if not isinstance(value, dict):
            self.fail(name, f"is {type_name(value)}, not an object")
            return None
        inner = Body.__new__(Body)
        inner.errors = self.errors
        inner._fill(f"{self._where}{name}.", value)
        return inner

    def inner(self, name: str, *, required: bool = False) -> "Body | None":
        """A field that is an object; None when it is absent or wrong."""
        value = self.value(name)
        if value is not None:
            return self.within(name, value)
        if required:
            self.fail(name, "is missing: an object")
        return None

    def fail(self, name: str, what: str) -> None:
        """Make something an error of a field."""
        self.errors.append(f"{self._where}{name} {what}")

    def secret(self, name: str, kind: Kind) -> str:
        """A text that must be there and that no error shows."""
        value = self.value(name)
        if value is None:
            self.fail(name, f"is missing: {kind.allowed}")
            return ""
        try:
            return str(kind.parse(value))
        except Refused as refused:
            self.fail(name, f"{refused.args[0]}: {kind.allowed}")
            return ""

    def value(self, name: str) -> object:
        """A field's value; None when it is absent or null."""
        self._taken.add(name.casefold())
        written = self._names.get(name.casefold())
        return None if written is None else self._values[written]

    def read(self, name: str, kind: Kind, default: T) -> T:
        """A field of a kind whose values are of the default's type; the default when it is absent or wrong."""
        value = self.value(name)
        return default if value is None else self._parsed(name, kind, value, default)

    def required(self, name: str, kind: Kind, default: T) -> T:
        """A field that must be there; the default stands in for it when it is wrong."""
        value = self.value(name)
        if value is None:
            self.fail(name, f"is missing: {kind.allowed}")
            return default
        return self._parsed(name, kind, value, default)

    def texts(self, name: str, item: Kind) -> tuple[str, ...]:
        """A list; each wrong item is an error of its own."""
        value = self.value(name)
        if value is None:
            return ()
        if not isinstance(value, list):
            self.fail(name, f"is {type_name(value)}, not a list: {item.allowed}")
            return ()
        return tuple(self._parsed(f"{name}[{place}]", item, each, "") for place, each in enumerate(value))

    def text_map(self, name: str) -> dict[str, str]:
        """An object of texts; numbers and booleans are kept as the text that they were written as."""
        value = self.value(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.fail(name, f"is {type_name(value)}, not an object of texts")
            return {}
        texts: dict[str, str] = {}
        for key, each in value.items():
            written = str(each).lower() if isinstance(each, bool) else str(each)
            if not isinstance(each, str | int | float):
                self.fail(f"{name}.{_shown(key)}", f"is {type_name(each)}, not a text or a number")
            elif not (written + key).isprintable():
                self.fail(f"{name}.{_shown(key)}", "holds control characters")
            else:
                texts[key] = written
        return texts

    def refuse_unknown(self) -> None:
        """Make every field that nobody asked for an error: where ignoring one would do more than was wanted."""
        for folded, name in self._names.items():
            if folded not in self._taken:
                self.errors.append(f"{_shown(self._where + name)} is not known here")

    def refuse_null(self) -> None:
        """Make every field that is null an error: where it comes of a variable that was not set, and would mean all."""
        for name, value in self._values.items():
            if value is None:
                self.errors.append(f"{_shown(self._where + name)} is null: give it a value, or leave it out")

    def done(self) -> None:
        """Check that there was no error.

        Raises:
            InvalidError: there was.
        """
        if self.errors:
            raise InvalidError(self.errors)

    def _parsed(self, name: str, kind: Kind, value: object, default: T) -> T:
        try:
            parsed: T = kind.parse(value)  # type: ignore[assignment] # the caller's default is of the kind's type
        except Refused as refused:
            shown = f" {_shown(value)}" if isinstance(value, str | int | float) and str(value).strip() else ""
            self.fail(f"{name}{shown}", f"{refused.args[0]}: {kind.allowed}")
            return default
        return parsed


def _object(data: bytes) -> Mapping[str, object]:
    if not data.strip():
        raise ProblemError(400, "the body is empty: send a JSON object")
    try:
        decoded = msgspec.json.decode(data)
        json.loads(data, object_pairs_hook=_refuse_repeats, parse_int=str, parse_float=str)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProblemError(400, f"the body cannot be read as JSON: {error}", title="Malformed JSON.") from None
    except RecursionError:
        raise ProblemError(400, "the body's JSON is nested too deep", title="Malformed JSON.") from None
    if not isinstance(decoded, dict):
        raise InvalidError([f"the body is {type_name(decoded)}, not an object"])
    return decoded


def _refuse_repeats(pairs: Sequence[tuple[str, object]]) -> None:
    """Whoever writes a name twice means both; a decoder would keep the last."""
    times = Counter(name for name, _ in pairs)
    if twice := sorted(name for name, count in times.items() if count > 1):
        raise InvalidError([f"{_shown(name)} is given more than once" for name in twice])


def _shown(value: object) -> str:
    text = printable(str(value))
    return f"'{text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + '…'}'"


def text(longest: int, what: str) -> Kind:
    """The kind of texts of at most so many characters, not blank, without control characters."""

    def parse(value: object) -> str:
        found = as_text(value)
        if len(found) > longest:
            raise Refused("is too long")
        return found

    return Kind(f"{what} of 1 to {longest} characters", parse)


def optional_text(longest: int, what: str) -> Kind:
    """The same, where an empty text is allowed."""
    kind = text(longest, what)

    def parse(value: object) -> object:
        return "" if isinstance(value, str) and not value.strip() else kind.parse(value)

    return Kind(f"{kind.allowed}, or empty", parse)


def argument() -> Kind:
    """The kind of a command's arguments: any text that the kernel takes, also an empty one."""

    def parse(value: object) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise Refused(f"is {type_name(value)}, not a text")
        if "\0" in str(value):
            raise Refused("holds a NUL character")
        return str(value)

    return Kind("a text without NUL", parse)


def uid() -> Kind:
    """The kind of UIDs (PS3.5 §9.1)."""

    def parse(value: object) -> str:
        found = as_text(value)
        if len(found) > 64 or not _UID.fullmatch(found):
            raise Refused("is no UID")
        return found

    return Kind("digits and dots, at most 64 characters, no component with a leading zero", parse)


def host() -> Kind:
    """The kind of one host: an address or a name."""
    return Kind("an IP address or a host name", _one(_is_host, "is neither an address nor a host name"))


def hosts() -> Kind:
    """The kind of a source's hosts: addresses, networks and names, separated by commas or spaces."""

    def parse(value: object) -> str:
        found = [part for part in re.split(r"[\s,;]+", as_text(value)) if part]
        wrong = [part for part in found if not _is_host(part) and not _is_network(part)]
        if wrong or not found:
            raise Refused(f"holds {', '.join(map(_shown, wrong)) or 'nothing'}")
        return ", ".join(found)

    return Kind("addresses, networks such as 10.20.30.0/24, or host names, separated by commas", parse)


def known_state(name: str, written: str, states: Iterable[str]) -> str:
    """A state that a filter names, in whatever case.

    Args:
        name: of the parameter.
        written: its value.
        states: that there are.

    Raises:
        InvalidError: it is none of them: a misspelt one would say that there is nothing.
    """
    found = next((state for state in states if state.lower() == written.lower()), None)
    if found is None:
        raise InvalidError([f"{name} {written!r} is none: one of {', '.join(states)}"])
    return found


def _one(is_right: Callable[[str], bool], reason: str) -> Callable[[object], Any]:
    def parse(value: object) -> str:
        found = as_text(value)
        if not is_right(found):
            raise Refused(reason)
        return found

    return parse


def _is_host(found: str) -> bool:
    """Whether this is an address, or a host name (RFC 1123; its last label is not only digits)."""
    try:
        ipaddress.ip_address(found)
    except ValueError:
        labels = found.removesuffix(".").split(".")
        return len(found) <= 253 and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit()
    return True


def _is_network(found: str) -> bool:
    try:
        ipaddress.ip_network(found, strict=False)
    except ValueError:
        return False
    return True
