"""JSON as .NET's configuration files have it, with comments and trailing commas; every value knows its line.

It goes on after a missing comma or colon, so that one run reports every mistake.
"""

import bisect
import json
import re
from dataclasses import dataclass
from typing import Never

_SPACE = re.compile(r"(?:[ \t\r\n]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"')
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)(?![0-9.eE+-])")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![0-9.eE+-])")
_WORD = re.compile(r"[^\s,:\[\]{}\"/]+")
_CONSTANTS: dict[str, bool | None] = {"true": True, "false": False, "null": None}
_VALUE_STARTS = '"{[-0123456789tfn'
_DEEPEST = 32
_LONGEST_INTEGER = 20
_MOST_MISTAKES = 50
_SECRETS = ("token", "password", "://")


@dataclass(frozen=True)
class Node:
    """A value and where it begins; the values of objects and lists are nodes again."""

    value: object
    line: int


@dataclass(frozen=True)
class Mistake:
    """One thing wrong with a text; `quoted` is its line."""

    line: int
    column: int
    what: str
    quoted: str


class _Hopeless(Exception):  # noqa: N818 - internal: nothing after this can be read
    """The rest of the text cannot be made sense of."""


def plain(node: Node) -> object:
    """Return a node's value without positions."""
    if isinstance(node.value, dict):
        return {name: plain(child) for name, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def quotable(line: str) -> str:
    """Return a line of a file as it may be shown: short, printable, and not where a secret may stand in it."""
    if any(word in line.lower() for word in _SECRETS):
        return "(not shown, it may hold a secret)"
    shown = "".join(character if character.isprintable() else " " for character in line).strip()
    return shown if len(shown) <= 120 else shown[:117] + "..."


def parse(text: str) -> tuple[Node | None, list[Mistake]]:
    """Return the value of a text, None when it cannot be read at all, and every mistake found in it."""
    parser = _Parser(text)
    try:
        root: Node | None = parser.document()
    except _Hopeless:
        root = None
    return root, parser.mistakes


class _Parser:
    """Recursive descent with a bounded depth; `self.at` is the next character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.mistakes: list[Mistake] = []
        self._starts = [0, *(found.end() for found in re.finditer("\n", text))]

    def document(self) -> Node:
        self._skip()
        if self._next() != "{":
            self._give_up(self.at, "the file must begin with {")
        root = self._value(0)
        self._skip()
        if self.at < len(self.text):
            self._mistake(self.at, f"nothing may follow the last }}, but {self._found()} does")
        return root

    def _value(self, depth: int) -> Node:
        line = self._line(self.at)
        if depth > _DEEPEST:
            self._give_up(self.at, f"more than {_DEEPEST} levels of nesting")
        match self._next():
            case "{":
                return Node(self._object(depth), line)
            case "[":
                return Node(self._list(depth), line)
            case '"':
                return Node(self._string(), line)
        return Node(self._scalar(), line)

    def _object(self, depth: int) -> dict[str, Node]:
        opened = self._line(self.at)
        members: dict[str, Node] = {}
        names: dict[str, int] = {}
        self.at += 1
        while True:
            self._skip()
            if self._next() == "}":
                self.at += 1
                return members
            self._expect_more(opened, "}")
            if self._next() != '"':
                self._give_up(self.at, f"a name in quotes is expected instead of {self._found()}")
            start = self.at
            name = self._string()
            if name.lower() in names:
                self._mistake(start, f'"{name}" stands in line {names[name.lower()]} already')
            names[name.lower()] = self._line(start)
            self._colon(name)
            members[name] = self._value(depth + 1)
            self._comma("}")

    def _list(self, depth: int) -> list[Node]:
        opened = self._line(self.at)
        items: list[Node] = []
        self.at += 1
        while True:
            self._skip()
            if self._next() == "]":
                self.at += 1
                return items
            self._expect_more(opened, "]")
            items.append(self._value(depth + 1))
            self._comma("]")

    def _colon(self, name: str) -> None:
        end = self.at
        self._skip()
        if self._next() == ":":
            self.at += 1
            self._skip()
        elif self._next() and self._next() in _VALUE_STARTS:
            self._mistake(end, f'a colon is missing after "{name}"')
        else:
            self._give_up(end, f'a colon and a value are missing after "{name}"')

    def _comma(self, closing: str) -> None:
        end = self.at
        self._skip()
        if self._next() == ",":
            self.at += 1
        elif self._next() and self._next() in _VALUE_STARTS:
            where = f"line {self._line(self.at)}"
            self._mistake(end, f"a comma is missing here, before {self._found()} in {where}")
        elif self._next() and self._next() != closing:
            self._give_up(self.at, f"a comma or {closing} is expected instead of {self._found()}")

    def _string(self) -> str:
        found = _STRING.match(self.text, self.at)
        if found is None:
            self._give_up(self.at, "a text that does not end in its line, or has an unknown \\ in it")
        self.at = found.end()
        text: str = json.loads(found[0])
        return text

    def _scalar(self) -> object:
        number = _NUMBER.match(self.text, self.at)
        if number:
            self.at = number.end()
            is_whole = _INTEGER.fullmatch(number[0]) and len(number[0]) <= _LONGEST_INTEGER
            return int(number[0]) if is_whole else float(number[0])
        word = _WORD.match(self.text, self.at)
        if word is None:
            self._give_up(self.at, f"a value is expected instead of {self._found()}")
        if word[0] not in _CONSTANTS:
            self._mistake(self.at, f"{word[0][:40]} is no value: texts stand in quotes, true and false in lower case")
        self.at = word.end()
        return _CONSTANTS.get(word[0])

    def _expect_more(self, opened: int, closing: str) -> None:
        if self.at >= len(self.text):
            self._give_up(self.at, f"the file ends before the {closing} of line {opened}")

    def _skip(self) -> None:
        space = _SPACE.match(self.text, self.at)
        self.at = space.end() if space else self.at
        if self.text.startswith("/*", self.at):
            self._give_up(self.at, "a comment /* without its */")

    def _next(self) -> str:
        return self.text[self.at : self.at + 1]

    def _found(self) -> str:
        """Return what stands here, to be named in a sentence."""
        found = _STRING.match(self.text, self.at) or _WORD.match(self.text, self.at)
        return (found[0][:40] if found else self._next()) or "the end of the file"

    def _line(self, at: int) -> int:
        return bisect.bisect_right(self._starts, at)

    def _mistake(self, at: int, what: str) -> None:
        line = self._line(at)
        start = self._starts[line - 1]
        end = self.text.find("\n", at)
        quoted = quotable(self.text[start : end if end >= 0 else len(self.text)])
        self.mistakes.append(Mistake(line, at - start + 1, what, quoted))
        if len(self.mistakes) >= _MOST_MISTAKES:
            raise _Hopeless

    def _give_up(self, at: int, what: str) -> Never:
        self._mistake(at, what)
        raise _Hopeless
