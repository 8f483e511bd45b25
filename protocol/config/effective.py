"""From layers of given values to the settings in force: the last one wins, every one in force is checked."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from protocol.config.kinds import Refused, type_name
from protocol.config.problems import Problem, show
from protocol.config.settings import Settings
from protocol.config.sources import Given, Layer
from protocol.config.table import SETTINGS, Setting

DEFAULT = "default"
_WHOLE = 1 << 20


@dataclass(frozen=True)
class Loaded:
    """A configuration without problems.

    Args:
        settings: what is in force.
        origins: where each value comes from, by the path of its setting (of levels: of each category).
        files: the files that were read.
        warnings: what works, but may not be meant; one sentence each.
    """

    settings: Settings
    origins: Mapping[str, str]
    files: tuple[Path, ...]
    warnings: tuple[str, ...]


@dataclass
class Effective:
    """The checked values by the names of `Settings`, where they come from, and what is wrong."""

    tree: dict[str, object] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def settings(self, environ: Mapping[str, str]) -> Settings:
        """Return the settings, with what depends on the process's surroundings filled in.

        A relative ledger starts at systemd's state directory, else at the working directory; the runtime directory
        is systemd's, else beside the ledger.
        """
        state = environ.get("STATE_DIRECTORY", "").split(":")[0] or os.getcwd()
        base = os.path.join(state, "dicomadapter")
        scheme, _, file = str(self.tree["database"]).partition("sqlite:///")
        if not scheme:
            file = os.path.abspath(os.path.join(state, file))
            self.tree["database"] = f"sqlite:///{file}"
            base = os.path.splitext(file)[0]
        runtime = self.tree["runtimeDirectory"] or environ.get("RUNTIME_DIRECTORY", "").split(":")[0] or f"{base}.run"
        self.tree["runtimeDirectory"] = runtime
        return msgspec.convert(self.tree, Settings)


def effective(layers: Sequence[Layer]) -> Effective:
    """Return the values in force, of layers in the order in which the later one wins."""
    result = Effective(problems=[problem for layer in layers for problem in layer.problems])
    for setting in SETTINGS:
        given = [each for layer in layers for each in layer.given if each.setting is setting]
        put = {"": _single, "list": _list, "map": _map}[setting.kind.parts]
        put(setting, [*_defaults(setting), *given], result)
    return result


def _defaults(setting: Setting) -> list[Given]:
    """Return what the table gives, as if it were written in a source before all others."""
    value = setting.default_value()
    parts = value if setting.kind.parts == "map" else {"": value}
    return [Given(setting, one, DEFAULT, setting.path, part) for part, one in parts.items()]


def _put(setting: Setting, value: object, result: Effective) -> None:
    *sections, name = setting.target
    tree = result.tree
    for section in sections:
        tree = tree.setdefault(section, {})  # type: ignore[assignment] # sections hold sections
    tree[name] = value


def _parse(given: Given, value: object, result: Effective, within: str = "") -> object:
    """Return a value as it is used; None, with a problem noted, when it is not allowed."""
    try:
        return given.setting.kind.parse(value)
    except Refused as refused:
        _refuse(given, value, str(refused), result, within)
        return None


def _refuse(given: Given, value: object, reason: str, result: Effective, within: str = "") -> None:
    setting = given.setting
    wrong = f"{show(value, secret=setting.secret)} {reason} ({given.origin})"
    result.problems.append(Problem(given.path + within, wrong, f"allowed is {setting.kind.allowed}"))


def _single(setting: Setting, given: list[Given], result: Effective) -> None:
    last = given[-1]
    result.origins[setting.path] = last.origin
    _put(setting, None if last.value is None else _parse(last, last.value, result), result)


def _list(setting: Setting, given: list[Given], result: Effective) -> None:
    """Put a list: the last whole one counts, and after it an index replaces its item or adds one."""
    start = max(place for place, each in enumerate(given) if not each.part)
    whole = given[start]
    items = re.split(setting.kind.separators, whole.value.strip()) if isinstance(whole.value, str) else whole.value
    if not isinstance(items, list | tuple):
        _refuse(whole, items, f"is {type_name(items)}, not a list", result)
    elif not any(items):
        _refuse(whole, whole.value, "is empty", result)
    else:
        entries = [(item, whole, f"[{place}]") for place, item in enumerate(items)]
        for part in sorted(given[start + 1 :], key=lambda each: int(each.part)):
            place = min(int(part.part), len(entries))
            entries[place : place + 1] = [(part.value, part, "")]
        parsed = [_parse(source, item, result, within) for item, source, within in entries]
        result.origins[setting.path] = ", ".join(dict.fromkeys(source.origin for _, source, _ in entries))
        _put(setting, tuple(dict.fromkeys(parsed)), result)


def _map(setting: Setting, given: list[Given], result: Effective) -> None:
    """Put a map: each name on its own, in any case; the first spelling stays."""
    parsed: dict[str, object] = {}
    for each in {each.part.lower(): each for each in given}.values():
        if not each.part:
            _refuse(each, each.value, f"is {type_name(each.value)}, not an object", result)
            continue
        name = next(known.part for known in given if known.part.lower() == each.part.lower())
        parsed[name] = _parse(each, each.value, result)
        result.origins[f"{setting.path}.{name}"] = each.origin
    _put(setting, parsed, result)


def rows(loaded: Loaded) -> Iterator[tuple[str, str, str]]:
    """Yield path, value and origin of everything in force, secrets masked, as `check-config --show` prints them."""
    tree = msgspec.to_builtins(loaded.settings)
    for setting in SETTINGS:
        value = tree
        for name in setting.target:
            value = value[name]
        parts = {f"{setting.path}.{name}": one for name, one in value.items()} if isinstance(value, dict) else {}
        for path, one in (parts or {setting.path: value}).items():
            yield path, show(one, secret=setting.secret, longest=_WHOLE), loaded.origins[path]
