"""`run` and `check-config`: the gateway itself, and what its configuration would make of it."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.output import print_table
from protocol.errors import ConfigurationError

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="The appsettings.json; by default /etc/dicom-adapter/appsettings.json, else configs/appsettings.json.",
    ),
]
Values = Annotated[
    Path | None, typer.Option("--values", help="The values.yaml; by default the one beside the appsettings.json.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="One setting, such as DicomAdapter.dicom.scp.port=11104."),
]


def run(config: Config = None, values: Values = None, sets: Sets = None) -> None:
    """Run the gateway until SIGTERM.

    SIGHUP makes it read its configuration again and restart only what that changed.

    Example: `dicom-adapter run --config appsettings.json --set DicomAdapter.dicom.scp.port=11104`
    """
    from protocol.config import Settings, check_environment, environment_warnings, load
    from protocol.logs import EventLogger, set_up
    from supervisor.orphans import are_orphans_left

    log = EventLogger("adapter.supervisor")

    def settings_now() -> Settings:
        loaded = load(config, values, sets or (), os.environ)
        for warning in loaded.warnings:
            log.warning("configuration_warning", told=warning)
        return loaded.settings

    first = load(config, values, sets or (), os.environ)
    # The supervisor waits for orphans of one that was killed; until then they have the ports.
    listening = "LISTEN_FDS" in os.environ or are_orphans_left(Path(first.settings.runtime_directory))
    problems = check_environment(first.settings, listening=listening)
    if problems:
        raise ConfigurationError(problems)
    set_up(first.settings, "supervisor")
    for warning in (*first.warnings, *environment_warnings(first.settings)):
        log.warning("configuration_warning", told=warning)

    from supervisor import run as supervise

    raise typer.Exit(supervise(first.settings, settings_now))


def check_config(
    config: Config = None,
    values: Values = None,
    sets: Sets = None,
    show: Annotated[bool, typer.Option("--show", help="Print each setting in force, and where it comes from.")] = False,
    environment: Annotated[
        bool, typer.Option("--environment", help="Also check this machine: ports, directories, file systems.")
    ] = False,
) -> None:
    """Say "valid", or everything that is wrong with the configuration (exit code 78).

    Example: `dicom-adapter check-config --config appsettings.json --show --environment`
    """
    from protocol.config import check_environment, environment_warnings, load, rows

    loaded = load(config, values, sets or (), os.environ)
    warnings = list(loaded.warnings)
    if environment:
        problems = check_environment(loaded.settings)
        if problems:
            raise ConfigurationError(problems)
        warnings += environment_warnings(loaded.settings)
    _warn(warnings)
    if show:
        print_table(("SETTING", "VALUE", "FROM"), rows(loaded), "")
    print(f"valid: {', '.join(str(file) for file in loaded.files)}")


def _warn(warnings: list[str]) -> None:
    for warning in warnings:
        print(f"dicom-adapter: warning: {warning}", file=sys.stderr)
