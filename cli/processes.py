"""`status` and `restart`: asks the supervisor itself, so both work when the API is down."""

import os
from pathlib import Path
from typing import Annotated

import typer

from cli.output import Json, duration, print_json, print_table, size
from protocol import control
from protocol.errors import ConfigurationError, UnavailableError

Runtime = Annotated[
    Path | None,
    typer.Option("--runtime", help="Runtime directory of the gateway; by default --config's, else $RUNTIME_DIRECTORY."),
]
_SERVICE = Path("/run/dicom-adapter")  # RuntimeDirectory= of systemd/dicom-adapter.service

Config = Annotated[Path | None, typer.Option("--config", "-c", help="The appsettings.json that the gateway runs with.")]


def status(runtime: Runtime = None, config: Config = None, json: Json = False) -> None:
    """Show every actor's process, open associations, the disk, and what holds its space when the API tells.

    Example: `dicom-adapter status --json | jq '.actors[] | select(.state != "running")'`
    """
    from cli.storage import holders

    place = _find(runtime, config)
    answer = control.status(place)
    held = holders(place)
    storage = answer.storage
    if json:
        print_json(
            {
                "actors": [
                    {
                        "name": actor.name,
                        "kind": actor.kind,
                        "pid": actor.pid,
                        "state": actor.state,
                        "restarts": actor.restarts,
                        "uptimeSeconds": actor.uptime_seconds,
                        "lastHeartbeatSeconds": actor.last_heartbeat_seconds,
                    }
                    for actor in answer.actors
                ],
                "activeAssociations": answer.active_associations,
                "storage": {
                    "state": storage.state,
                    "freeBytes": storage.free_bytes,
                    "reservedBytes": storage.reserved_bytes,
                    **({"holders": held} if held else {}),
                },
            }
        )
        return
    print_table(
        ("ACTOR", "STATE", "PID", "RESTARTS", "UP", "HEARD", "DETAIL"),
        (
            (
                actor.name,
                actor.state,
                actor.pid,
                actor.restarts,
                duration(actor.uptime_seconds),
                f"{actor.last_heartbeat_seconds:.1f} s ago" if actor.pid else None,
                actor.detail,
            )
            for actor in answer.actors
        ),
        "no actors",
    )
    print(
        f"\n{answer.active_associations} associations open; intake {storage.state}: {size(storage.free_bytes)} free, "
        f"{size(storage.reserved_bytes)} reserved; supervisor is process {answer.supervisor_pid}"
    )
    if held:
        print()
        print_table(
            ("AE TITLE", "HOLDS SPACE", "INSTANCES", "SIZE"),
            ((holder.ae_title, holder.what, holder.instances, size(holder.bytes)) for holder in held),
            "",
        )


def restart(
    target: Annotated[str, typer.Argument(metavar="KIND|NAME", help="Such as receiver (all of them), or receiver-2.")],
    runtime: Runtime = None,
    config: Config = None,
    timeout: Annotated[
        float, typer.Option(help="Seconds to wait until the successors are ready.", min=1, max=86400)
    ] = 120.0,
) -> None:
    """Replace actors while everything goes on; done when the successors are ready.

    No association is refused: a replaced receiver finishes those that it has.

    Example: `dicom-adapter restart receiver`
    """
    done = control.restart(_find(runtime, config), target, timeout)
    print(f"restarted {done.affected} {'actor' if done.affected == 1 else 'actors'}: {target}")


def _find(runtime: Path | None, config: Path | None) -> Path:
    """The runtime directory: as named, else of the configuration as named, else systemd's, else of the default one."""
    if runtime is not None:
        return runtime
    environment = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if config is None and environment:
        return Path(environment)
    from protocol.config import load

    try:
        found = Path(load(config, None, (), os.environ).settings.runtime_directory)
    except ConfigurationError as error:
        if config is not None:
            raise
        raise UnavailableError(
            f"where the gateway runs is not known ({error}): name its runtime directory with --runtime, or its "
            "configuration with --config"
        ) from error
    # A service has it from its unit, of which a shell's environment tells nothing.
    return _SERVICE if config is None and not found.is_dir() and _SERVICE.is_dir() else found
