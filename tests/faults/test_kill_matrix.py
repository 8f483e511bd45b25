"""Every actor ends, and hangs, at every point between two of its durable steps, while studies come in."""

import contextlib
import itertools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import msgspec
import pytest

from protocol.access import AccessList
from protocol.killpoints import POINTS
from tests.faults.trial import Trial

# The guardian's points come after the time in which repeats are compared, and after its own slow round.
_REPEAT_SECONDS = 12
_REACH_SECONDS = 150.0
_REPLACE_SECONDS = 90.0
_ACTIONS = ("kill", "hang")
_SAMPLE = (
    ("receiver.directory-synced", "kill"),
    ("extractor.described", "hang"),
    ("processor.group-closed", "kill"),
    ("submitter.created", "hang"),
    ("platform.shim-started", "kill"),
    ("api.committed", "hang"),
    ("guardian.files-deleted", "kill"),
)

# Inference requests, exports and reruns have matrices of their own: no sender brings anything to these.
_OTHERS = ("retriever.", "exporter.", "platform.results-", "platform.rerun-", "submitter.rerun-")
_POINTS = tuple(point for point in POINTS if not point.startswith(_OTHERS) and "request" not in point)


class Matrix:
    """One gateway under steady load, on which one point after another is armed.

    Args:
        trial: it runs.
    """

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._names = (f"SOURCE{number}" for number in itertools.count())
        self._never = threading.Event()
        # What makes an actor reach a point that the load alone does not bring it to.
        self._provoke: dict[str, Callable[[], None]] = {
            "api.committed": self._change,
            "api.access-written": self._change,
            "processor.asked": lambda: self._kill_all("extractor"),
            "processor.shards-sealed": lambda: self._kill_all("receiver"),
            "guardian.shard-removed": lambda: self._kill_all("receiver"),
        }

    def visit(self, point: str, action: str) -> None:
        """Arm a point, wait until a process has acted there, and until its successor runs."""
        trial = self._trial
        trial.points.arm(point, action)
        provoke = self._provoke.get(point)
        if provoke is not None:
            provoke()
        if point == "processor.asked":
            trial.gateway.wait_for(
                lambda: self._reached(point, provoke), _REACH_SECONDS, f"process that reaches {point}"
            )
        else:
            trial.gateway.wait_for(lambda: trial.points.taken(point), _REACH_SECONDS, f"process that reaches {point}")
        pid = trial.points.taken(point)
        assert pid is not None

        def replaced() -> bool:
            return pid not in trial.victims.pids(point.partition(".")[0]) and trial.gateway.running()

        trial.gateway.wait_for(replaced, _REPLACE_SECONDS, f"successor of process {pid}, which did {action} at {point}")

    def _reached(self, point: str, provoke: Callable[[], None] | None) -> bool:
        if self._trial.points.taken(point) is None:
            assert provoke is not None
            provoke()
            self._never.wait(1.0)
        return self._trial.points.taken(point) is not None

    def _change(self) -> None:
        """Ask the API for a change, which it may not live to answer."""
        entity = {"aeTitle": next(self._names), "hostIp": "127.0.0.1"}
        with contextlib.suppress(httpx.TransportError):
            httpx.post(f"{self._trial.gateway.url}/api/config/sourceaetitle", json=entity, timeout=15.0)

    def _kill_all(self, kind: str) -> None:
        for pid in self._trial.victims.pids(kind):
            self._trial.victims.kill(pid)

    def check_access(self) -> None:
        """Receivers know what the ledger says."""
        trial = self._trial

        def equal() -> bool:
            listed = {source["aeTitle"] for source in trial.gateway.rest.get("/api/config/sourceaetitle").json()}
            access = msgspec.json.decode((trial.gateway.spool / "access.json").read_bytes(), type=AccessList)
            return listed == {source.ae_title for source in access.sources}

        trial.gateway.wait_for(equal, 30.0, "access.json as the ledger has it")


def run(directory: Path, entries: Sequence[tuple[str, str]]) -> None:
    settings = {"dicom.scp.repeatSeconds": _REPEAT_SECONDS, "services.platform.uploadMetadata": True}
    with Trial(directory, settings) as trial:
        trial.send(3, study_objects=12, association_objects=5, pause_seconds=0.3)
        matrix = Matrix(trial)
        for point, action in entries:
            matrix.visit(point, action)
        matrix.check_access()
        figures = trial.prove()
    print(f"kill matrix: {len(entries)} entries; {figures}")


def test_a_sample(tmp_path: Path) -> None:
    run(tmp_path, _SAMPLE)


def test_the_sample_has_every_actor_and_every_action() -> None:
    assert {point.partition(".")[0] for point, _ in _SAMPLE} == {point.partition(".")[0] for point in _POINTS}
    assert {action for _, action in _SAMPLE} == set(_ACTIONS)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("action", _ACTIONS)
@pytest.mark.parametrize("kind", sorted({point.partition(".")[0] for point in _POINTS}))
def test_every_point(tmp_path: Path, kind: str, action: str) -> None:
    run(tmp_path, [(point, action) for point in _POINTS if point.partition(".")[0] == kind])
