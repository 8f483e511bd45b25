"""Where settings are written: files, the environment, the command line; each becomes a layer of given values.

Here is decided which setting is meant and what is unknown, not whether a value is allowed: `effective` does that.
"""

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from protocol.config import jsonc
from protocol.config.problems import Problem, show
from protocol.config.table import BY_KEY, ROOTS, SECTIONS, SETTINGS, Setting, key_of

LEDGER_FILE = "dicomadapter.db"

VALUES = {
    "dicomAdapter.dicomPort": "DicomAdapter.dicom.scp.port",
    "dicomAdapter.apiPort": "DicomAdapter.api.port",
    "storage.volumeSize": "DicomAdapter.storage.volumeSize",
    "storage.hostPath": "DicomAdapter.storage.temporary",
    "database.volumeSize": "DicomAdapter.database.volumeSize",
    "database.hostPath": "ConnectionStrings.DicomAdapterDatabase",
}
"""What is read from `values.yaml`, and the setting that each stands for; the places are those of the original's chart.

`storage` and `database` may also be below `dicomAdapter`, as the original's documentation can be read.
"""

SERVICES = {
    "DicomAdapter.services.platform.endpoint": ("", "CLARA_SERVICE_HOST", "CLARA_SERVICE_PORT_API"),
    "DicomAdapter.services.resultsServiceEndpoint": (
        "http://",
        "CLARA_RESULTSSERVICE_SERVICE_HOST",
        "CLARA_RESULTSSERVICE_SERVICE_PORT",
    ),
}
"""The original's environment variables, which Kubernetes sets: prefix, host and port of each endpoint."""

_VALUES_SECTIONS = frozenset(("dicomAdapter", "storage", "database", "dicomAdapter.storage", "dicomAdapter.database"))
_LARGEST_FILE = 1 << 20


@dataclass(frozen=True)
class Given:
    """One value that somebody wrote.

    Args:
        setting: which setting it is for.
        value: as written, unchecked; never None.
        origin: where it stands, in words.
        path: how its author named it.
        part: the list's index or the map's name that it is for; empty for the whole setting.
    """

    setting: Setting
    value: object
    origin: str
    path: str
    part: str = ""


@dataclass
class Layer:
    """What one source says.

    Args:
        strict: whether a setting that is unknown is always a problem, not only under `DicomAdapter`.
    """

    strict: bool = False
    given: list[Given] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, names: Sequence[str], value: object, origin: str, path: str = "") -> None:
        """Take a value by the names of its path; None is as if it were not there.

        Args:
            names: the path of the setting, in any case.
            value: as written.
            origin: where it stands, in words.
            path: how its author named it, when that is not the path of the setting.
        """
        if value is None:
            return
        setting, part = _locate(names)
        path = path or ".".join(names)
        if setting:
            self.given.append(Given(setting, value, origin, path, part))
        elif section := SECTIONS.get(key_of(names)):
            inside = {known.path.split(".")[section.count(".") + 1] for known in SETTINGS if _is_in(known, section)}
            allowed = f"allowed is a section of {', '.join(sorted(inside))}"
            self.problems.append(Problem(path, f"{show(value)} is no section ({origin})", allowed))
        else:
            self._unknown(path, origin)

    def _unknown(self, path: str, origin: str) -> None:
        known = {name.lower(): name for name in (*(each.path for each in SETTINGS), *SECTIONS.values())}
        last = path.lower().rpartition(".")[2]
        namesakes = [name for name in known if name.rpartition(".")[2] == last]  # elsewhere: the wrong section
        nearest = difflib.get_close_matches(path.lower(), namesakes or known, 1, 0 if namesakes else 0.6)
        remedy = (
            f"the nearest known one is {known[nearest[0]]}" if nearest else "docs/settings.md has all that are known"
        )
        if self.strict or path.lower().startswith("dicomadapter"):
            self.problems.append(Problem(path, f"unknown setting ({origin})", remedy))
        else:
            self.warnings.append(str(Problem(path, f"ignored, not a setting of this system ({origin})", remedy)))


def _is_in(setting: Setting, section: str) -> bool:
    return setting.path.startswith(f"{section}.")


def _locate(names: Sequence[str]) -> tuple[Setting | None, str]:
    """Return the setting that a path names, and which part of it: a list's index, or a map's name."""
    key = key_of(names)
    if key in BY_KEY:
        return BY_KEY[key], ""
    for length in range(len(key) - 1, 0, -1):
        setting = BY_KEY.get(key[:length])
        part = ".".join(names[length:])
        if setting and (
            setting.kind.parts == "map" or (setting.kind.parts == "list" and re.fullmatch(r"[0-9]{1,4}", part))
        ):
            return setting, part
    return None, ""


def read_text(path: Path, layer: Layer) -> str:
    """Return a file's text without byte-order mark; empty, with a problem noted, when it cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
        if len(data) <= _LARGEST_FILE:
            return data.decode("utf-8-sig")
        wrong, remedy = "is longer than 1 MiB", "name a configuration file"
    except OSError as error:
        wrong, remedy = f"cannot be read: {error.strerror}", "name a file that this user may read"
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        wrong, remedy = f"line {line}, column {column} is not UTF-8", "save the file as UTF-8"
    layer.problems.append(Problem(str(path), wrong, remedy))
    return ""


def from_json(path: Path) -> Layer:
    """Return what a file such as `appsettings.json` says."""
    layer = Layer()
    text = read_text(path, layer)
    if layer.problems:
        return layer
    root, mistakes = jsonc.parse(text)
    for mistake in mistakes:
        place = f"{path} line {mistake.line}, column {mistake.column}"
        layer.problems.append(Problem(place, mistake.what, f"the line is: {mistake.quoted}"))
    if root:
        _walk(root, [], layer, path.name)
    return layer


def _walk(node: jsonc.Node, names: list[str], layer: Layer, file: str) -> None:
    """Add the values of an object; sections are entered, what should be a value is added whole."""
    if not isinstance(node.value, dict):
        return
    for name, child in node.value.items():
        path = [*names, *name.split(":")]  # .NET takes "a:b" for a section and a name
        setting, part = _locate(path)
        is_map = setting is not None and setting.kind.parts == "map" and not part
        if isinstance(child.value, dict) and (is_map or key_of(path) in SECTIONS):
            _walk(child, path, layer, file)
        else:
            layer.add(path, jsonc.plain(child), f"{file} line {child.line}")


def from_yaml(path: Path) -> Layer:
    """Return what `values.yaml` says to this system; the rest of it is for Kubernetes."""
    layer = Layer(strict=True)
    text = read_text(path, layer)
    try:
        loader = yaml.SafeLoader(text)
        if not _read_values(loader, layer, path.name) and text:
            missing = "neither dicomAdapter nor storage nor database in it"
            layer.warnings.append(f"{path}: {missing}: nothing was read: see configs/values.yaml")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line, mark.column) if mark else (0, 0)
        quoted = jsonc.quotable([*text.split("\n"), ""][line])
        place = f"{path} line {line + 1}, column {column + 1}"
        layer.problems.append(Problem(place, error.problem or "is no YAML", f"the line is: {quoted}"))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        layer.problems.append(Problem(str(path), f"cannot be read as YAML: {error}", "see configs/values.yaml"))
    return layer


def _leaves(node: yaml.Node | None, prefix: str = "") -> Iterator[tuple[str, yaml.Node]]:
    """Yield the dotted paths and the nodes of a mapping's members, with those of the sections that are read entered."""
    if not isinstance(node, yaml.MappingNode):
        return
    for key, child in node.value:
        path = f"{prefix}{key.value}"
        if path in _VALUES_SECTIONS and isinstance(child, yaml.MappingNode):
            yield from _leaves(child, f"{path}.")
        else:
            yield path, child


def _read_values(loader: yaml.SafeLoader, layer: Layer, file: str) -> bool:
    """Add the values that are for this system; returns whether there is a section of such."""
    is_ours = False
    places: dict[str, tuple[str, int]] = {}
    for path, node in _leaves(loader.get_single_node()):
        line = node.start_mark.line + 1
        origin = f"{file} line {line}"
        is_ours |= path in _VALUES_SECTIONS or path.rpartition(".")[0] in _VALUES_SECTIONS
        inner = path.removeprefix("dicomAdapter.")
        name = inner if inner in VALUES else path
        if name not in VALUES:
            near = difflib.get_close_matches(path, VALUES, 1, cutoff=0.8) if "." in path else []
            layer.warnings.extend(f"{path}: ignored ({origin}): did you mean {known}?" for known in near)
            continue
        if name in places:
            before, before_line = places[name]
            wrong = f"is in line {line} of {file}, and in line {before_line}" + f" as {before}" * (before != path)
            layer.problems.append(Problem(path, wrong, "keep one"))
        places[name] = path, line
        # Of what should be no mapping or sequence only its type is of interest, and aliases may make it huge.
        scalar = isinstance(node, yaml.ScalarNode)
        value = loader.construct_object(node) if scalar else {} if isinstance(node, yaml.MappingNode) else []
        if name == "database.hostPath" and isinstance(value, str):
            value = f"sqlite:///{os.path.abspath(value)}/{LEDGER_FILE}"
        layer.add(VALUES[name].split("."), value, origin, path)
    return is_ours


def from_environment(environ: Mapping[str, str]) -> Layer:
    """Return what environment variables say: `DicomAdapter__dicom__scp__port`, and the original's two endpoints."""
    layer = Layer()
    for path, (prefix, host, port) in SERVICES.items():
        if environ.get(host) and environ.get(port):
            address = f"[{environ[host]}]" if ":" in environ[host] else environ[host]
            layer.add(
                path.split("."),
                f"{prefix}{address}:{environ[port]}",
                f"environment variables {host} and {port}",
            )
        elif environ.get(host):
            layer.problems.append(Problem(host, f"is set, but not {port}", "set both or none"))
    written: dict[tuple[str, ...], str] = {}
    for name in sorted(environ):
        names = name.split("__")
        key = key_of(names)
        if key[0] not in ROOTS or (len(names) == 1 and key not in BY_KEY):
            continue
        if key in written:
            layer.problems.append(Problem(name, f"says the same as {written[key]}", "unset one of them"))
        written[key] = name
        layer.add(names, environ[name], f"environment variable {name}")
    return layer


def from_command_line(sets: Sequence[str]) -> Layer:
    """Return what `--set NAME=VALUE` says; of several for one setting the last wins."""
    layer = Layer(strict=True)
    for text in sets:
        name, equals, value = text.partition("=")
        if equals and name.strip():
            layer.add(re.split(r"__|[.:]", name.strip()), value, "--set")
        else:
            remedy = "write --set NAME=VALUE, such as --set DicomAdapter.dicom.scp.port=11104"
            layer.problems.append(Problem(f"--set {text}", "has no name and value", remedy))
    return layer
