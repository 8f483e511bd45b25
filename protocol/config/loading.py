"""Loads the configuration: finds the files, orders the sources, and ends in settings or in every problem at once."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from protocol.config import sources
from protocol.config.effective import Loaded, effective
from protocol.config.problems import Problem, show
from protocol.config.relations import cautions, contradictions
from protocol.config.sources import Given, Layer
from protocol.errors import ConfigurationError

PLACES = (Path("/etc/dicom-adapter/appsettings.json"), Path("configs/appsettings.json"))


def load(config: Path | None, values: Path | None, sets: Sequence[str], environ: Mapping[str, str]) -> Loaded:
    """Return the settings in force.

    Later sources win: built-in defaults, `appsettings.json`, `appsettings.{Environment}.json` beside it,
    `values.yaml`, the environment, `sets`.

    Args:
        config: the `appsettings.json`, or None for the first of `PLACES` that exists.
        values: the `values.yaml`, or None for the one beside `config`, if there is one.
        sets: `NAME=VALUE` for each `--set`.
        environ: the environment variables.

    Raises:
        ConfigurationError: with every problem there is, one a line.
    """
    config = config or _first_place()
    values_file = values or config.with_name("values.yaml")
    layers = [sources.from_json(config)]
    files = [config]
    if beside := _environments_file(config, environ, layers[0]):
        layers.append(sources.from_json(beside))
        files.append(beside)
    if values or values_file.exists():
        layers.append(_without_moved_server(sources.from_yaml(values_file), layers))
        files.append(values_file)
    layers += [sources.from_environment(environ), sources.from_command_line(sets)]

    result = effective(layers)
    if result.problems:
        raise ConfigurationError([str(problem) for problem in result.problems])
    settings = result.settings(environ)
    if problems := contradictions(settings):
        raise ConfigurationError([str(problem) for problem in problems])
    warnings = [warning for layer in layers for warning in layer.warnings]
    return Loaded(settings, result.origins, tuple(files), (*warnings, *cautions(settings)))


def _first_place() -> Path:
    """Return the configuration file that is used when none is named."""
    for place in PLACES:
        if place.exists():
            return place
    tried = " and ".join(str(place.absolute()) for place in PLACES)
    raise ConfigurationError(
        [str(Problem("--config", f"no configuration file at {tried}", "name one with --config FILE"))]
    )


def _environments_file(config: Path, environ: Mapping[str, str], layer: Layer) -> Path | None:
    """Return the file for `DOTNETCORE_ENVIRONMENT`, when that is set and there is one."""
    name = environ.get("DOTNETCORE_ENVIRONMENT", "")
    if name and not re.fullmatch(r"\w[\w.-]*", name):
        allowed = "allowed is a name such as Production"
        layer.problems.append(Problem("DOTNETCORE_ENVIRONMENT", f"{show(name)} is no name of an environment", allowed))
        return None
    beside = config.with_name(f"appsettings.{name}.json")
    return beside if name and beside.exists() else None


def _without_moved_server(values: Layer, files: Sequence[Layer]) -> Layer:
    """Return the layer of `values.yaml`, with a word wherever it changes what the files before it say.

    Its `database.hostPath` places a ledger that is a file; a database server stays.
    """
    written = {(each.setting.path, each.part): each for layer in files for each in layer.given}
    kept: list[Given] = []
    for each in values.given:
        before = written.get((each.setting.path, each.part))
        if before and each.path.endswith("database.hostPath") and str(before.value).startswith("postgres"):
            values.warnings.append(f"{each.path}: ignored ({each.origin}): the ledger is on a server ({before.origin})")
            continue
        if before and str(before.value) != str(each.value):
            values.warnings.append(f"{before.path}: {before.origin} is overridden by {each.path} ({each.origin})")
        kept.append(each)
    values.given = kept
    return values
