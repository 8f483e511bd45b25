"""What tests of the exporter share: results of runs on disk and on record, destinations, and the actor as a process."""

import shutil
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.transport import ThreadedAssociationServer

from protocol import channels, messages
from protocol.bus import Bus
from protocol.killpoints import KILL_DIRECTORY
from protocol.ledger import Delivery, Destination, ExportTask, Ledger, Result, Run
from protocol.states import RunState, TaskState
from tests.actors.launcher import Launcher, RunningActor, wait_until

PATIENCE_SECONDS = 90.0


class World:
    """An exporter's surroundings, while the block lasts.

    Args:
        directory: of the test.
        sets: settings, as for the launcher.
    """

    def __init__(self, directory: Path, *sets: str) -> None:
        self.points = directory / "points"
        self.points.mkdir()
        quick = "DicomAdapter.dicom.scu.export.pollFrequencyMs=50"
        self.launcher = Launcher(directory, quick, *sets, environment={KILL_DIRECTORY: str(self.points)})
        self.ledger = Ledger(self.launcher.settings.database)
        self.bus = Bus(self.launcher.runtime, self.launcher.settings)
        self._results = self.bus.sender(channels.RESULTS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bus.close()
        self.ledger.close()
        self.launcher.__exit__(kind, error, trace)

    def start(self) -> RunningActor:
        """Start the exporter."""
        return self.launcher.start("exporter")

    def arm(self, point: str) -> None:
        """The next process that reaches the point is to kill itself."""
        (self.points / "new").write_text("kill", encoding="ascii")
        (self.points / "new").rename(self.points / point)

    def destination(self, name: str, port: int, ae_title: str = "STORESCP") -> None:
        """A destination on this machine."""
        Destination.create(name=name, ae_title=ae_title, host_ip="127.0.0.1", port=port, created_ns=time.time_ns())

    def result(
        self, files: dict[str, Path | bytes], exports: Sequence[str] = (), state: RunState = RunState.SUCCEEDED
    ) -> Run:
        """A run that is over, and what it left: copies of files, or these bytes, by their names."""
        run_id, payload_id, now = str(uuid.uuid4()), str(uuid.uuid4()), time.time_ns()
        output = self.launcher.spool.platform / payload_id / "runs" / "1" / "output"
        for name, source in files.items():
            path = output / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(source, bytes):
                path.write_bytes(source)
            else:
                shutil.copyfile(source, path)
        with self.ledger.transaction():
            run: Run = Run.create(
                run_id=run_id,
                job_id=str(uuid.uuid4()),
                payload_id=payload_id,
                name=f"job-{run_id}",
                pipeline_id="pipeline",
                priority="normal",
                state=state,
                tries=1,
                created_ns=now,
            )
            if state is RunState.SUCCEEDED:
                Result.create(
                    run_id=run_id,
                    job_id=run.job_id,
                    payload_id=payload_id,
                    pipeline_id="pipeline",
                    directory=str(output),
                    files=list(files),
                    exports=list(exports),
                    created_ns=now,
                )
        self._results.send(messages.ResultsRegistered(run_ids=(run_id,)))
        return run

    def tasks(self, run: Run | None = None) -> list[ExportTask]:
        """All tasks, or those of a run."""
        query = ExportTask.select() if run is None else ExportTask.select().where(ExportTask.job_id == run.job_id)
        return list(query)

    def wait_tasks(
        self, run: Run, state: TaskState, count: int = 1, seconds: float = PATIENCE_SECONDS
    ) -> list[ExportTask]:
        """Wait until a run has so many tasks, all of one state."""

        def there() -> list[ExportTask]:
            tasks = self.tasks(run)
            return tasks if len(tasks) == count and all(task.state == state for task in tasks) else []

        return wait_until(there, f"{count} tasks with state {state}", seconds)

    def deliveries(self, task: ExportTask) -> dict[tuple[str, str], str]:
        """States of a task's deliveries, by destination and file."""
        query = Delivery.select().where(Delivery.task_id == task.task_id)
        return {(each.destination, each.uri): each.state for each in list(query)}

    def ask(self, command: messages.Message) -> messages.Message:
        """A command to the exporter."""
        client = self.bus.client(channels.EXPORTER_COMMANDS)
        try:
            return client.ask(command, 20.0)
        finally:
            client.close()


class Pacs:
    """A C-STORE SCP by pynetdicom, which counts what comes, and answers as it is told.

    Args:
        status: the answer to an object, by its SOP Instance UID.
    """

    def __init__(self, status: Callable[[str], int] = lambda _: 0x0000, port: int = 0) -> None:
        self.status = status
        self.stored: Counter[str] = Counter()
        self.datasets: dict[str, bytes] = {}
        self._lock = threading.Lock()
        ae = AE(ae_title="STORESCP")
        ae.maximum_associations = 32
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(context.abstract_syntax, ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"])
        ae.add_supported_context("1.2.840.10008.1.1")
        handlers = [(evt.EVT_C_STORE, self._store)]
        self._server: ThreadedAssociationServer = ae.start_server(
            ("127.0.0.1", port), block=False, evt_handlers=handlers
        )  # type: ignore[assignment, arg-type]
        self.port: int = self._server.socket.getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()

    def _store(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        status = self.status(uid)
        with self._lock:
            self.stored[uid] += 1
            if status == 0:
                self.datasets[uid] = event.request.DataSet.getvalue()
        return status
