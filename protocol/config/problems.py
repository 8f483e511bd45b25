"""What is wrong with a configuration, and how values are shown to people."""

import json
import re
from dataclasses import dataclass

_PASSWORD = re.compile(r"(://[^:/@\s]*:)[^@\s]*(?=@)|(password=)[^&;\s\"]*", re.IGNORECASE)


@dataclass(frozen=True)
class Problem:
    """One thing to mend, read as `path: what is wrong: what is allowed`.

    Args:
        path: the setting as its author wrote it, or the place in a file.
        wrong: what is wrong, with the value and where it stands.
        allowed: what is allowed, or the remedy.
    """

    path: str
    wrong: str
    allowed: str

    def __str__(self) -> str:
        return printable(f"{self.path}: {self.wrong}: {self.allowed}")


def printable(text: str) -> str:
    """Return a text without anything that could disturb a terminal or split a log line."""
    return "".join(character if character.isprintable() else "?" for character in text)


def show(value: object, *, secret: bool = False, longest: int = 80) -> str:
    """Return a value as JSON, at most `longest` characters, with secrets and the passwords of URLs masked."""
    if secret and value is not None:
        return "***"
    text = json.dumps(value, ensure_ascii=False, default=str)
    shown = printable(_PASSWORD.sub(lambda found: f"{found[1] or found[2]}***", text))
    return shown if len(shown) <= longest else f"{shown[: longest - 3]}..."
