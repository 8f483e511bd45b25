"""Starts the platform for tests by hand: `python -m tests.clara DIRECTORY --port 50051 --pipeline covid`."""

import argparse
import signal
from pathlib import Path

from tests.clara.faults import Fault
from tests.clara.server import ClaraServer


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.clara", description="A Clara Platform for tests.")
    parser.add_argument("directory", type=Path, help="where jobs, payloads and pipelines are kept")
    parser.add_argument("--port", type=int, default=50051)
    parser.add_argument("--pipeline", action="append", default=[], metavar="ID", help="register a pipeline")
    parser.add_argument("--unfinished", action="store_true", help="jobs that are started go on for ever")
    kinds = ", ".join(fault.value for fault in Fault)
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="SERVICE/METHOD:KIND[:SKIP[:TIMES]]",
        help=f"what goes wrong, such as Payloads/Upload:cut:199; kinds are {kinds}",
    )
    arguments = parser.parse_args()
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before there are threads, which would take them
    with ClaraServer(arguments.directory, arguments.port, finish=not arguments.unfinished) as clara:
        for pipeline_id in arguments.pipeline:
            clara.store.add_pipeline(pipeline_id, pipeline_id)
        for fault in arguments.fault:
            method, kind, *numbers = fault.split(":")
            skip, times = (*map(int, numbers), *(0, 1)[len(numbers) :])
            clara.faults.add(method, Fault(kind), skip=skip, times=times)
        print(f"listening on {clara.endpoint}, keeping what comes in {arguments.directory}", flush=True)
        signal.sigwait(ends)


if __name__ == "__main__":
    main()
