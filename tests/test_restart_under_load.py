"""Receivers are replaced again and again while senders deliver: nobody notices."""

import threading
from collections.abc import Callable
from pathlib import Path

from tests.gateway import Gateway
from tests.peers import Sent, storescu
from tests.samples import make_study, new_uid

SENDERS = 8
RESTARTS = 10
OBJECTS = 100


class Delivery(threading.Thread):
    """Delivers one study in association after association, until it is told to stop."""

    def __init__(self, port: int, directory: Path, number: int, stop: Callable[[], bool]) -> None:
        super().__init__(name=f"sender-{number}")
        self.sent: list[Sent] = []
        self.failure: Exception | None = None
        self._port, self._directory, self._number, self._stop = port, directory, number, stop

    @property
    def successes(self) -> int:
        return sum(each.successes for each in self.sent)

    def run(self) -> None:
        try:
            place = self._directory / str(self._number)
            study = make_study(place / "0", f"PAT-{self._number}", OBJECTS, rows=64, modality="MR")
            self.sent.append(storescu(self._port, study.directory, called="LOAD", calling="MODALITY"))
            while not self._stop():
                # Making objects anew would take more of the processor than everything else here.
                directory = place / str(len(self.sent))
                directory.mkdir()
                for uid, path in study.files.items():
                    again = path.read_bytes().replace(uid.encode(), new_uid().encode())
                    (directory / path.name).write_bytes(again)
                self.sent.append(storescu(self._port, directory, called="LOAD", calling="MODALITY"))
        except Exception as error:  # shown by the test, which looks at it after `join`
            self.failure = error


def accepting(gateway: Gateway) -> set[int | None]:
    """Process IDs of the receivers that take new associations."""
    return {actor.pid for actor in gateway.status().actors if (actor.kind, actor.state) == ("receiver", "running")}


def test_ten_restarts_of_the_receivers_under_eight_senders(gateway: Gateway, tmp_path: Path) -> None:
    gateway.add_source("MODALITY")
    pipeline = gateway.add_pipeline("none", ["/bin/true"])
    gateway.add_aetitle("LOAD", timeout=10, pipeline_none=pipeline)
    ended = threading.Event()
    senders = [Delivery(gateway.port, tmp_path / "load", number, ended.is_set) for number in range(SENDERS)]
    for sender in senders:
        sender.start()
    try:
        gateway.wait_for(lambda: all(sender.sent for sender in senders), 60, "first delivery of every sender")
        before = accepting(gateway)
        for _ in range(RESTARTS):
            gateway.cli("restart", "receiver", timeout=120)
            replaced = accepting(gateway)
            assert len(replaced) == len(before)
            assert not replaced & before
            before = replaced
    finally:
        ended.set()
        for sender in senders:
            sender.join(120)

    for sender in senders:
        assert sender.failure is None, sender.failure
        for sent in sender.sent:
            assert (sent.exit_code, sent.successes, sent.rejection) == (0, OBJECTS, ""), sent.output[-2000:]

    # Every instance is in exactly one group, and each study is one group.
    jobs = gateway.wait_jobs(SENDERS, timeout=120)
    assert sorted(job["instances"] for job in jobs) == sorted(sender.successes for sender in senders)


def test_restart_of_every_other_kind_leaves_the_study_whole(gateway: Gateway, tmp_path: Path) -> None:
    gateway.add_source("MODALITY")
    gateway.add_aetitle("LOAD", timeout=8, pipeline_none=gateway.add_pipeline("none", ["/bin/true"]))
    study = make_study(tmp_path / "study", "PAT-R", 60, rows=64, modality="MR")
    kinds = ("extractor", "processor", "submitter", "platform", "guardian", "api")
    for place, kind in enumerate(kinds):
        assert (
            storescu(
                gateway.port, *study.part(10 * place, 10 * place + 10), called="LOAD", calling="MODALITY"
            ).successes
            == 10
        )
        before = gateway.pids(kind)
        gateway.cli("restart", kind, timeout=120)
        assert not set(before) & set(gateway.pids(kind))
    (job,) = gateway.wait_jobs(1)
    assert job["instances"] == 60
