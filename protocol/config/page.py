"""Writes the settings' page and the shipped files from the table: `python -m protocol.config.page [WHICH] [--check]`.

WHICH is `settings` (docs/settings.md, the default), `appsettings` or `values` (configs/). With `--check` nothing is
written; the exit code is 1 when the file is not what the table says.
"""

import argparse
import json
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from protocol.config.sources import SERVICES, VALUES
from protocol.config.table import BY_KEY, SETTINGS, Setting, key_of

_ROOT = Path(__file__).parents[2]

_INTRODUCTION = """\
<!-- Made by `python -m protocol.config.page` from protocol/config/table.py: change it there. -->

# Settings

`dicom-adapter check-config` reports every problem of a configuration at once; with `--show` it prints each value in
force and where it comes from, with `--environment` also what is wrong with the machine. A configuration with a
problem stops the service with exit code 78.

## Where settings come from

A later source wins over an earlier one:

1. the default
2. `appsettings.json`: the file of `--config`, else `/etc/dicom-adapter/appsettings.json`, else
   `configs/appsettings.json`
3. `appsettings.{Environment}.json` beside it, if `DOTNETCORE_ENVIRONMENT` names an environment and the file exists
4. `values.yaml`: the file of `--values`, else the one beside `appsettings.json`, if it exists
5. environment variables: the path with `__` for its dots, in any case, such as `DicomAdapter__dicom__scp__port=11104`
6. `--set`, such as `--set DicomAdapter.dicom.scp.port=11104`

Names are read in any case. Comments (`//`, `/* */`) and trailing commas are allowed. Numbers and booleans may be
texts (`"25"`, `"True"`). `null` is as if the setting were not there.

A list in a later source replaces the whole list; an index replaces one item, or adds one at the end
(`DicomAdapter__dicom__scp__verification__transferSyntaxes__0`). A list may be written as one text, its items
separated by spaces or semicolons.

An unknown setting under `DicomAdapter` is a problem, elsewhere it is ignored with a warning.
"""

_VALUES = """\
## values.yaml

The file of the original's Helm chart; what else is in it is for Kubernetes, and is ignored. A key that is there but
empty is as if it were not there. `storage` and `database` may also be below `dicomAdapter`.

| key | stands for |
|---|---|
"""

_VALUES_END = """
`database.hostPath` is the directory of the ledger's file; it is ignored when `appsettings.json` names a database
server. A `volumeSize` is a quantity as Kubernetes writes it: `50Gi`, `3G`, `1048576`.
"""

_SERVICES = """
## Environment variables of Kubernetes

| host and port | stand for |
|---|---|
"""


def _code(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"`{name}`: `{one}`" for name, one in value.items())
    if isinstance(value, tuple):
        return " ".join(f"`{one}`" for one in value)
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


def _row(setting: Setting) -> str:
    default = setting.default_words or _code(setting.default)
    return f"| `{setting.path}` | {default} | {setting.kind.allowed} | {setting.about} |"


def settings_page() -> str:
    """Return docs/settings.md."""
    lines = [_INTRODUCTION, "## All settings", "", "| setting | default | allowed | meaning |", "|---|---|---|---|"]
    lines += [_row(setting) for setting in SETTINGS]
    lines += ["", _VALUES + "\n".join(f"| `{key}` | `{path}` |" for key, path in VALUES.items()), _VALUES_END]
    pairs = (f"| `{host}`, `{port}` | `{path}` |" for path, (_, host, port) in SERVICES.items())
    return "\n".join(lines).rstrip() + "\n" + _SERVICES + "\n".join(pairs) + "\n"


# What a section is for, where its name does not say it; the rest of the shipped file's words are the settings' own.
_SECTIONS = {
    "DicomAdapter.dicom.scp": "What others send to us.",
    "DicomAdapter.dicom.scp.limits": "What a peer may cost before its association is aborted.",
    "DicomAdapter.dicom.scu": "What we send to others.",
    "DicomAdapter.dicom.scu.export": "Results on their way to their destinations.",
    "DicomAdapter.services.platform": "Where jobs run.",
    "DicomAdapter.services.platform.tls": "How Clara Platform is known, and we to it.",
    "DicomAdapter.storage": "The spool.",
    "DicomAdapter.api": "The REST API.",
    "ConnectionStrings": "Where the ledger is.",
}


def _tree() -> dict[str, object]:
    """Return the settings in the nesting of the file, each section's settings before its sections."""
    tree: dict[str, object] = {}
    for setting in SETTINGS:
        *sections, name = setting.path.split(".")
        inside = tree
        for section in sections:
            inside = inside.setdefault(section, {})  # type: ignore[assignment] # sections hold sections
        inside[name] = setting
    return tree


def _comment(text: str, start: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent=start, subsequent_indent=start, break_on_hyphens=False)


def _lines(tree: dict[str, object], path: str, indent: str) -> list[str]:
    """Return the lines of one section, with a comment over each name."""
    lines = []
    members = sorted(tree.items(), key=lambda item: isinstance(item[1], dict)) if path else list(tree.items())
    for place, (name, content) in enumerate(members):
        if place:
            lines.append("")
        comma = "," if place < len(tree) - 1 else ""
        inside = f"{path}.{name}".lstrip(".")
        if isinstance(content, dict):
            lines += [f"{indent}// {_SECTIONS[inside]}"] if inside in _SECTIONS else []
            lines += [f'{indent}"{name}": {{', *_lines(content, inside, indent + "  "), f"{indent}}}{comma}"]
        elif isinstance(content, Setting):
            value = None if callable(content.default) else content.default
            unset = f" Unset: {content.default_words}." if value is None else ""
            lines += _comment(f"{content.about}{unset} Allowed: {content.kind.allowed}.", f"{indent}// ")
            written = json.dumps(value, indent=2).replace("\n", f"\n{indent}")
            lines.append(f'{indent}"{name}": {written}{comma}')
    return lines


def appsettings() -> str:
    """Return configs/appsettings.json: every setting with its default."""
    head = [
        "// The DICOM adapter: every setting, with its default; docs/settings.md has them as a page.",
        "// Comments and trailing commas are allowed; null is as if the setting were not there.",
        "// A site's own copy need not hold more than what differs.",
        "// Made by `python -m protocol.config.page appsettings` from protocol/config/table.py.",
    ]
    return "\n".join([*head, "{", *_lines(_tree(), "", "  "), "}", ""])


def values() -> str:
    """Return configs/values.yaml: every key that is read, empty, so that `appsettings.json` decides."""
    lines = [
        "# What the Helm chart of the original keeps here, for a site that moves from it. What is set here wins over",
        "# appsettings.json beside it; what is empty is as if it were not there. Keys of Kubernetes may stay: they are",
        "# ignored. Made by `python -m protocol.config.page values`.",
    ]
    section = ""
    for key, path in VALUES.items():
        outer, name = key.split(".")
        if outer != section:
            section = outer
            lines.append(f"{section}:")
        lines += [*_comment(_about_value(key, path), "  # "), f"  {name}:"]
    return "\n".join([*lines, ""])


def _about_value(key: str, path: str) -> str:
    setting = BY_KEY[key_of(path.split("."))]
    if key == "database.hostPath":
        return f"Directory of the ledger's file. Stands for {path}."
    return f"{setting.about} Stands for {path}. Allowed: {setting.kind.allowed}."


_FILES: dict[str, tuple[Path, Callable[[], str]]] = {
    "settings": (_ROOT / "docs/settings.md", settings_page),
    "appsettings": (_ROOT / "configs/appsettings.json", appsettings),
    "values": (_ROOT / "configs/values.yaml", values),
}


def is_stale(which: str) -> bool:
    """Return whether the file is not what the table says now."""
    file, make = _FILES[which]
    return not file.exists() or file.read_text(encoding="utf-8") != make()


def main() -> int:
    """Write one of the files to standard output, or check it."""
    parser = argparse.ArgumentParser(prog="python -m protocol.config.page", description="The settings, as a file.")
    parser.add_argument("which", nargs="?", default="settings", choices=sorted(_FILES))
    parser.add_argument("--check", action="store_true", help="write nothing, exit with 1 when the file is stale")
    arguments = parser.parse_args()
    if not arguments.check:
        sys.stdout.write(_FILES[arguments.which][1]())
        return 0
    if is_stale(arguments.which):
        sys.stderr.write(f"{_FILES[arguments.which][0]} is stale: write it with python -m protocol.config.page\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
