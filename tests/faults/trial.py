"""A trial: a real gateway with recording pipelines, senders that deliver to it, and what must hold in the end."""

import os
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from tests.faults.comparison import Comparison, compare
from tests.faults.scu import Experience, Sender
from tests.faults.victims import QUICK, Points, Victims, descriptors, threads
from tests.gateway import Gateway

AE_TITLE = "FAULTS"
TIMEOUT_SECONDS = 5
_RECORD = Path(__file__).with_name("record.py")
# A process makes its threads, each with its sockets, when it first needs them; what leaks exceeds this soon.
_MORE_DESCRIPTORS, _MORE_THREADS = 60, 20
_WRITERS = 2  # of a receiver: for what senders bring, and for what is moved to it
_KEPT_OF_A_RUN = {"output", "output.log", "result.json"}


class Trial:
    """A gateway that runs while the block lasts; leaving it without an error checks its log and processes.

    Args:
        directory: of the test.
        settings: changes to the gateway's configuration.
        pipelines: how many jobs each group makes.
        seed: of what is chance.
        gateway: how the gateway is run.
        quick: whether what hangs is replaced sooner than in practice.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, object] | None = None,
        *,
        pipelines: int = 1,
        seed: int = 0,
        gateway: type[Gateway] = Gateway,
        quick: bool = True,
    ) -> None:
        self.seed = seed
        self.points = Points(directory / "points")
        place = directory / "gateway"
        place.mkdir(exist_ok=True)
        environ = {**(QUICK if quick else {}), **self.points.environ}
        self.gateway = gateway(place, {"dicom.scp.repeatSeconds": 30, **(settings or {})}, environ=environ)
        self.victims = Victims(self.gateway)
        self.senders: list[Sender] = []
        self.records = [directory / f"records-{number}" for number in range(pipelines)]
        self._baseline: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> "Trial":
        self.gateway.__enter__()
        self.gateway.add_source("MODALITY")
        ids = {}
        for number, records in enumerate(self.records):
            records.mkdir()
            command = [sys.executable, "-I", "-S", str(_RECORD), "{input}", str(records)]
            ids[f"pipeline_{number}"] = self.gateway.add_pipeline(f"record-{number}", command)
        self.gateway.add_aetitle(AE_TITLE, timeout=TIMEOUT_SECONDS, **ids)
        for actor in self.gateway.status().actors:
            if actor.pid is not None:
                self._baseline[actor.kind] = (descriptors(actor.pid), threads(actor.pid))
        return self

    def __exit__(self, *exception: Any) -> None:
        self.gateway.__exit__(*exception)

    # Senders.

    def send(self, count: int, **how: Any) -> None:
        """Start so many senders; `how` as in `Sender`."""
        for number in range(len(self.senders), len(self.senders) + count):
            self.senders.append(Sender(self.gateway.port, AE_TITLE, seed=self.seed, number=number, **how))
            self.senders[-1].start()

    @property
    def acknowledged(self) -> int:
        """How many objects were answered 0x0000 until now."""
        return sum(len(sender.experience.acknowledged) for sender in self.senders)

    def finish_senders(self) -> list[Experience]:
        """Let the senders bring their studies to an end."""
        return [sender.finish() for sender in self.senders]

    # The end.

    def settle(self, seconds: float = 120.0) -> None:
        """Wait until every group is closed and every job is done.

        Raises:
            AssertionError: something is left to do.
        """
        self.gateway.wait_ready(120.0)
        self.gateway.wait_for(lambda: not self.unfinished(), seconds, f"end of all work, but {self.unfinished()}")

    def unfinished(self) -> dict[str, int]:
        """What is left to do, by kind, without what there is none of."""
        on_disk = sum(name.endswith(".dcm") for name in self._names())
        with closing(sqlite3.connect(f"file:{self.gateway.ledger}?mode=ro", uri=True, timeout=10.0)) as ledger:

            def count(rest: str) -> int:
                return int(ledger.execute(f"SELECT count(*) FROM {rest}").fetchone()[0])

            left = {
                "instances not on record": max(0, on_disk - count("instance")),
                "instances quarantined": count("instance WHERE state = 'Quarantined'"),
                "groups open": count("instance_group WHERE state = 'Open'"),
                "jobs not taken over": count("job WHERE job_id NOT IN (SELECT job_id FROM submission)"),
                "jobs not submitted": count("submission WHERE state <> 'Completed'"),
                "runs not done": count("run WHERE state <> 'Succeeded'"),
                "runs missing": count("submission") - count("run"),
            }
        return {name: number for name, number in left.items() if number}

    def compare(self) -> list[Comparison]:
        """Of each pipeline."""
        acknowledged, sent = {}, {}
        for sender in self.senders:
            acknowledged.update(sender.experience.acknowledged)
            sent.update(sender.experience.sent)
        return [compare(acknowledged, sent, records) for records in self.records]

    def _names(self) -> Iterator[str]:
        """Files of all shards; one that is reclaimed meanwhile has none."""
        instances = self.gateway.spool / "instances"
        for shard in os.listdir(instances):
            with suppress(FileNotFoundError):
                yield from os.listdir(instances / shard)

    def left(self) -> list[str]:
        """Files, associations, descriptors and threads that should not be there now."""
        try:
            return self._left()
        except FileNotFoundError as error:  # it went while it was looked at, and something may be there still
            return [f"{error.filename}, which has just vanished"]

    def _left(self) -> list[str]:
        spool = self.gateway.spool
        found = [f"part {name}" for name in self._names() if name.endswith(".part")]
        # An access list whose writer was killed is the guardian's when it is ten minutes old (tests/actors/guardian).
        temporary = [path.name for path in spool.rglob(".*") if not path.name.startswith(".access.json.")]
        found += [f"temporary {name}" for name in temporary]
        for home in (spool / "platform").iterdir():
            found += [f"{path.name} of a run" for path in home.iterdir() if path.name != "runs"]
            tries = list(home.glob("runs/*"))
            found += ["a try of a run"] * (len(tries) - 1)
            found += [
                f"{path.name} of a try" for each in tries for path in each.iterdir() if path.name not in _KEPT_OF_A_RUN
            ]
        locks = len(list((spool / "writers").iterdir()))
        status = self.gateway.status()
        receivers = [actor for actor in status.actors if actor.kind == "receiver"]
        if locks > _WRITERS * len(receivers):
            found.append(f"{locks} writers' locks of {len(receivers)} receivers")
        if status.active_associations:
            found.append(f"{status.active_associations} associations")
        found += [f"a shim, process {pid}" for pid in self.victims.pids("shim")]
        for actor in status.actors:
            assert actor.pid is not None
            open_now, threads_now = descriptors(actor.pid), threads(actor.pid)
            open_then, threads_then = self._baseline[actor.kind]
            if open_now > open_then + _MORE_DESCRIPTORS or threads_now > threads_then + _MORE_THREADS:
                found.append(
                    f"{actor.name}: {open_now} descriptors, {threads_now} threads "
                    f"({open_then} and {threads_then} at first)"
                )
        return found

    def prove(self, seconds: float = 120.0, *, failures: frozenset[int] = frozenset()) -> str:
        """Wait for the end of all work, and compare; returns the figures.

        Args:
            seconds: how long the end of all work may take.
            failures: statuses other than success that senders may have been answered.

        Raises:
            AssertionError: something was lost, doubled, altered, or left over.
        """
        experiences = self.finish_senders()
        self.settle(seconds)
        comparisons = self.compare()
        totals = {
            "repeated": sum(each.repeated for each in experiences),
            "broken": sum(len(each.broken) for each in experiences),
            "refused": sum(each.refused for each in experiences),
            "rejected": sum(len(each.rejections) for each in experiences),
            "slowest_seconds": round(max(each.slowest_seconds for each in experiences), 2),
            "seed": self.seed,
        }
        told = "; ".join([*map(str, comparisons), " ".join(f"{name}={number}" for name, number in totals.items())])
        for each in comparisons:
            assert each.faultless, f"{told}\n{each.examples()}"
            assert each.acknowledged, "nothing was sent"
        answered = {status for each in experiences for status in each.failures}
        assert answered <= failures, f"{told}\nfailures {[f'0x{status:04X}' for status in answered]}"
        self.gateway.wait_for(lambda: not self.left(), 60.0, f"tidy gateway, but {self.left()}")
        return told


def seed_of_environment(default: int) -> int:
    """`FAULT_SEED`, else the default."""
    return int(os.environ.get("FAULT_SEED", default))
