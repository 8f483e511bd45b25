"""The `dicom-adapter` command: talks to the REST API, and to the supervisor for `status` and `restart`.

One module a group of commands. What a command needs beyond the parser (HTTP client, tables, supervisor) is imported
inside it, so that every other command answers without paying for it.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli import configuration, dicomweb, entities, exports, jobs, processes, quarantine, trace
from protocol.errors import AdapterError, UnavailableError, UsageError

_ASK_THE_SUPERVISOR = ("status", "restart")
_WRONG_TO_THE_PARSER = 2  # its exit code for a command line that is wrong; ours is one for all of them

app = typer.Typer(
    name="dicom-adapter",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "Start with `dicom-adapter run --config appsettings.json`; then, in another terminal: "
        "`create pipeline`, `create aetitle`, `create src`, and `status`."
    ),
)
app.command("run")(configuration.run)
app.command("check-config")(configuration.check_config)
app.command("status")(processes.status)
app.command("restart")(processes.restart)
app.add_typer(entities.create, name="create")
app.add_typer(entities.listing, name="list")
app.command("delete")(entities.delete)
app.add_typer(jobs.app, name="jobs")
app.add_typer(exports.app, name="exports")
app.command("echo")(exports.echo)
app.add_typer(quarantine.app, name="quarantine")
app.command("trace")(trace.trace)
app.add_typer(dicomweb.app, name="dicomweb")


def _show_version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        print(f"dicom-adapter {importlib.metadata.version('dicom-adapter')}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    url: Annotated[str | None, typer.Option(help="Address of the REST API, for any command that asks it.")] = None,
    runtime: Annotated[
        str | None, typer.Option(help="Runtime directory of the gateway that is meant, for any command below.")
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """The gateway between imaging devices and AI: DICOM in, jobs out, results back."""
    for name, given in (("--url", url), ("--runtime", runtime)):
        if given is not None and not given.strip():
            raise UsageError(f"{name} is empty: give it a value, or leave it out")
    asks_supervisor = context.invoked_subcommand in _ASK_THE_SUPERVISOR
    is_named = runtime is not None or "RUNTIME_DIRECTORY" in os.environ
    if url is not None and context.invoked_subcommand == "restart" and not is_named:
        raise UsageError(
            "restart asks the supervisor on this machine, and not an address: name the gateway by --runtime, not --url"
        )
    # The variables are the documented second place to name both, so the commands look there anyway.
    if runtime is not None:
        os.environ["RUNTIME_DIRECTORY"] = runtime
        if url is None and not asks_supervisor:
            url = _api_of(runtime)
    if url is not None:
        os.environ["DICOM_ADAPTER_URL"] = url


def _api_of(runtime: str) -> str:
    import msgspec

    from cli.storage import api_address

    try:
        return api_address(Path(runtime))
    except (OSError, msgspec.MsgspecError) as error:
        raise UnavailableError(
            f"where the API of the gateway of {runtime} listens is not known ({error}): start it, or name its address "
            "with --url"
        ) from error


def main() -> None:
    """Run the command; an error is a sentence on standard error and an exit code, never a traceback."""
    try:
        app()
    except AdapterError as error:
        for sentence in str(error).splitlines():
            print(f"dicom-adapter: {sentence}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == _WRONG_TO_THE_PARSER:
            sys.exit(UsageError.exit_code)
        raise
    except BrokenPipeError:
        # The reader of our output has gone, such as `head`: nobody is left to be told.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
