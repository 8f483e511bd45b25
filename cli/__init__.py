"""The `dicom-adapter` command: talks to the REST API, and to the supervisor for `status` and `restart`.

One module a group of commands. What a command needs beyond the parser (HTTP client, tables, supervisor) is imported
inside it, so that every other command answers without paying for it.
"""

import os
import sys
from typing import Annotated

import typer

from cli import configuration, dicomweb, entities, exports, jobs, processes, quarantine, trace
from protocol.errors import AdapterError, UsageError

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
    url: Annotated[str, typer.Option(help="Address of the REST API, for any command below.")] = "",
    runtime: Annotated[str, typer.Option(help="Runtime directory of the gateway, for any command below.")] = "",
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """The gateway between imaging devices and AI: DICOM in, jobs out, results back."""
    # The variables are the documented second place to name both, so the commands look there anyway.
    if url:
        os.environ["DICOM_ADAPTER_URL"] = url
    if runtime:
        os.environ["RUNTIME_DIRECTORY"] = runtime


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
