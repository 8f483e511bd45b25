"""A storage that fills up: nobody is told Success for what is not there, what is here goes on, and all of it returns.

The spool and the ledger are on a file system of 64 MB. Where none may be mounted, a quota of 64 MB in `values.yaml`
stands in for it, and the tests warn of that.
"""

import contextlib
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from pynetdicom import AE
from pynetdicom.association import Association

from actors.retriever.sources.wire import keep_answers
from tests.below import files_below
from tests.gateway import Gateway
from tests.peers import Sent, echoscu, start_storescu, storescu
from tests.samples import Study, make_study

MIB = 2**20
SIZE_BYTES = 64 * MIB
RESERVED_BYTES = 16 * MIB  # by the default watermark of 75 %
NO_SPACE = "Refused: OutOfResources"
TIMEOUT_SECONDS = 5
ACTOR_KINDS = 9

# Says that it runs, waits to be let go, and tells what it was given.
PIPELINE = """\
import os, pathlib, sys, time
place = pathlib.Path({place!r})
job = place / os.environ["JOB_ID"]
job.mkdir()
while not (place / "go").exists():
    time.sleep(0.05)
(job / "given").write_text("\\n".join(path.stem for path in pathlib.Path(sys.argv[1]).rglob("*.dcm")))
"""


@dataclass(frozen=True)
class Place:
    """Where spool and ledger are.

    Args:
        directory: of both.
        mounted: whether it is a file system of its own.
    """

    directory: Path
    mounted: bool


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Place]:
    """A place with room for 64 MB."""
    directory = tmp_path / "small"
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES},mode=0750", "tmpfs", str(directory)]
    mounting = subprocess.run(command, capture_output=True, text=True, check=False)
    mounted = mounting.returncode == 0
    if not mounted:
        warnings.warn(f"a quota stands in for a file system of 64 MB: {mounting.stderr.strip()}", stacklevel=1)
    yield Place(directory, mounted)
    if mounted:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


class Room:
    """A gateway with little room, and a pipeline that waits.

    Args:
        place: see there.
        new_gateway: makes it.
        tmp_path: of the test.
        settings: of the gateway.
    """

    def __init__(
        self, place: Place, new_gateway: Callable[..., Gateway], tmp_path: Path, settings: dict[str, object]
    ) -> None:
        self.gateway = new_gateway(
            {
                "storage.temporary": str(place.directory / "spool"),
                "services.platform.concurrentRuns": 2,
                "dicom.scp.repeatSeconds": 1,
                **settings,
            }
        )
        self.gateway.spool = place.directory / "spool"
        self.gateway.ledger = place.directory / "ledger" / "dicomadapter.db"
        if not place.mounted:
            quota = "storage:\n  volumeSize: 64Mi\n"
            (self.gateway.directory / "values.yaml").write_text(quota)
        self.gateway.start()
        self.told = tmp_path / "told"
        self.told.mkdir()
        script = tmp_path / "pipeline.py"
        script.write_text(PIPELINE.format(place=str(self.told)))
        pipeline = self.gateway.add_pipeline("waits", [sys.executable, str(script), "{input}"], timeout=250)
        self.gateway.add_source("MODALITY")
        self.gateway.add_aetitle("GUARD", timeout=TIMEOUT_SECONDS, pipeline_waits=pipeline)
        self.pids = self._pids()
        assert len({kind for kind, _ in self.pids}) == ACTOR_KINDS

    def _pids(self) -> list[tuple[str, int | None]]:
        return [(actor.kind, actor.pid) for actor in self.gateway.status().actors]

    def assert_nobody_was_restarted(self) -> None:
        assert self._pids() == self.pids
        assert all(actor.restarts == 0 for actor in self.gateway.status().actors)

    def wait_intake(self, state: str, timeout: float = 30.0) -> None:
        """Wait until intake is open, or paused."""
        self.gateway.wait_for(lambda: self.gateway.status().storage.state == state, timeout, f"intake {state}")

    def wait_running(self, count: int) -> None:
        """Wait until so many pipelines are at work."""
        self.gateway.wait_for(lambda: len(list(self.told.iterdir())) >= count, 30, f"{count} pipelines at work")

    def let_go(self) -> None:
        """Let the pipelines go on."""
        (self.told / "go").touch()

    def given(self) -> list[str]:
        """The SOP Instance UIDs that pipelines were given."""
        return [uid for path in self.told.glob("*/given") for uid in path.read_text().splitlines()]

    def in_spool(self) -> set[str]:
        """The SOP Instance UIDs that are in the spool."""
        instances = self.gateway.spool / "instances"
        found = set()
        for path in files_below(instances, ".dcm"):
            with contextlib.suppress(FileNotFoundError):  # it was reclaimed meanwhile
                found.add(str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID))
        return found

    def send(self, study: Study) -> Sent:
        """Send a study in an association of its own."""
        return storescu(self.gateway.port, *study.files.values(), called="GUARD", calling="MODALITY")

    def held(self) -> tuple[int, int]:
        """How many instances hold the space, and how many bytes, as the command line tells."""
        storage = json.loads(self.gateway.cli("status", "--json").stdout)["storage"]
        assert {"state", "freeBytes", "reservedBytes"} <= set(storage)
        found = [one for one in storage.get("holders", ()) if one["what"] != "results of pipelines"]
        assert all(one["aeTitle"] == "GUARD" for one in found)
        return sum(one["instances"] for one in found), sum(one["bytes"] for one in found)

    def changes(self) -> list[str]:
        """What the log says of intake, in order."""
        events = ("intake_paused", "intake_resumed")
        return [event for line in self.gateway.log_text().splitlines() for event in events if f" {event} " in line]


def acknowledged(studies: Sequence[Study], sent: Sent) -> set[str]:
    """The SOP Instance UIDs that were answered Success: each answer belongs to the file at its place."""
    uids = [uid for study in studies for uid in study.files]
    assert len(sent.statuses) == len(uids), sent.output[-2000:]
    return {uid for uid, status in zip(uids, sent.statuses, strict=True) if status == "Success"}


def old_orphans(place: Place) -> tuple[list[Path], list[Path]]:
    """What a crash may have left long ago, and what looks like it and is none."""
    spool = place.directory / "spool"
    orphan, unknown = spool / "platform" / "orphan", spool / "platform" / "unknown"
    for directory in (orphan / "payload", unknown / "payload" / "dcm"):
        directory.mkdir(parents=True)
    only_copy = unknown / "payload" / "dcm" / "only-copy.dcm"
    only_copy.write_bytes(b"somebody's")
    access = spool / ".access.json.01234567"
    access.write_bytes(b"{")
    (spool / "writers").mkdir()
    lock = spool / "writers" / "receiver_01234567.lock"
    lock.touch()
    for path in (orphan, unknown, access, lock):
        os.utime(path, (0, 0))
    return [orphan, access, lock], [only_copy]


def test_senders_fill_the_storage(small: Place, new_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    orphans, kept = old_orphans(small)
    room = Room(small, new_gateway, tmp_path, {"storage.watermarkPercent": 75})
    gateway = room.gateway
    under_way = make_study(tmp_path / "under-way", "PAT-U", 4)
    assert room.send(under_way).successes == 4
    room.wait_running(1)

    # Three associations, together twice what there is room for; each goes on to its end.
    loads = [[make_study(tmp_path / f"{s}-{n}", f"PAT-{s}", 8) for n in range(8)] for s in range(3)]
    senders = [
        start_storescu(
            gateway.port,
            *(file for study in load for file in study.files.values()),
            called="GUARD",
            calling="MODALITY",
        )
        for load in loads
    ]
    all_sent = [sender.result() for sender in senders]
    got = set(under_way.files)
    for load, sent in zip(loads, all_sent, strict=True):
        if "Rejected Transient" in sent.output:
            continue  # it was late
        assert set(sent.statuses) <= {"Success", NO_SPACE}
        got |= acknowledged(load, sent)
    assert any({"Success", NO_SPACE} == set(sent.statuses) for sent in all_sent)
    room.wait_intake("paused")
    assert room.in_spool() == got
    assert not list(gateway.spool.rglob("*.part"))

    # New associations: transient for storage, as ever for verification.
    late = make_study(tmp_path / "late", "PAT-L", 2)
    refused = room.send(late)
    assert "Rejected Transient" in refused.output
    assert refused.statuses == ()
    assert echoscu(gateway.port, called="GUARD", calling="MODALITY").statuses == ("Success",)

    # It is said who holds the space, and nothing that nobody had yet goes.
    table = gateway.wait_for(
        lambda: found if "waiting for its pipeline" in (found := gateway.cli("status").stdout) else "", 30, "holders"
    )
    assert "intake paused" in table
    assert "GUARD" in table
    gateway.wait_for(lambda: len(gateway.jobs(state="Completed")) > len(loads), 60, "submission of what is here")
    assert room.in_spool() == got
    stored = sum(path.stat().st_size for path in files_below(gateway.spool / "instances", ".dcm"))
    gateway.wait_for(lambda: room.held() == (len(got), stored), 30, f"holders of {stored} bytes")
    assert gateway.status().storage.free_bytes < RESERVED_BYTES + SIZE_BYTES // 100

    # What is under way ends, space returns, and all goes on.
    room.let_go()
    room.wait_intake("open", 60)
    again = gateway.wait_for(lambda: sent if (sent := room.send(late)).successes == 2 else None, 60, "room for more")
    assert again.exit_code == 0
    got |= set(late.files)
    gateway.wait_for(lambda: len(room.given()) >= len(got), 120, "delivery of all")
    assert sorted(room.given()) == sorted(got)
    gateway.wait_for(lambda: not room.in_spool(), 60, "reclaim of all")
    gateway.wait_for(lambda: not any(path.exists() for path in orphans), 30, "end of the orphans")
    assert all(path.exists() for path in kept)
    room.assert_nobody_was_restarted()
    # It may come near its bounds for a moment more than once.
    changes = gateway.wait_for(
        lambda: found if (found := room.changes())[-1:] == ["intake_resumed"] else [], 30, "room"
    )
    assert changes[:2] == ["intake_paused", "intake_resumed"]
    assert changes == ["intake_paused", "intake_resumed"] * (len(changes) // 2)
    gateway.stop()


@contextlib.contextmanager
def open_association(port: int) -> Iterator[Association]:
    """An association for CT images that stays open."""
    ae = AE(ae_title="MODALITY")
    ae.add_requested_context("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")
    association = ae.associate("127.0.0.1", port, ae_title="GUARD")
    assert association.is_established
    keep_answers(association)
    try:
        yield association
    finally:
        association.release()


def fill_to_the_last_byte(path: Path) -> None:
    """Take all the space that there is."""
    with path.open("wb", buffering=0) as file:
        for size in (MIB, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def test_a_disk_that_is_full_to_the_last_byte(
    small: Place, new_gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    """Somebody else has filled it: neither a commit nor a directory finds room, and nobody dies of it."""
    if not small.mounted:
        pytest.skip("no file system may be mounted here, and a quota is never full to the last byte")
    room = Room(small, new_gateway, tmp_path, {"storage.watermarkPercent": 100})
    gateway = room.gateway
    first = make_study(tmp_path / "first", "PAT-1", 8)
    second = make_study(tmp_path / "second", "PAT-2", 4)
    assert room.send(first).successes == 8
    room.wait_running(1)
    with open_association(gateway.port) as association:
        early, late = second.part(0, 2), second.part(2, 4)
        assert [association.send_c_store(path).Status for path in early] == [0x0000, 0x0000]

        ballast = small.directory / "ballast"
        fill_to_the_last_byte(ballast)
        room.wait_intake("paused")
        assert [association.send_c_store(path).Status for path in late] == [0xA700, 0xA700]
        assert "Rejected Transient" in storescu(gateway.port, *late, called="GUARD", calling="MODALITY").output
        assert echoscu(gateway.port, called="GUARD", calling="MODALITY").statuses == ("Success",)
        held = room.in_spool()
        assert held == {*first.files, *list(second.files)[:2]}

        # The second study's time is over: its job can hardly be put on record.
        def tried() -> bool:
            return " ledger_away " in gateway.log_text() or gateway.log_text().count(" group_closed ") == 2

        gateway.wait_for(tried, 30, "attempt to close the second group")
        fill_to_the_last_byte(small.directory / "more-ballast")
        assert gateway.cli("jobs", "list", check=False).returncode in (0, 69)
        assert room.in_spool() == held

        # The run that is under way ends on the full disk, and what it gives back is enough to go on.
        room.let_go()
        gateway.wait_for(lambda: gateway.jobs(platformState="Succeeded"), 60, "end of the first run")
        room.wait_intake("open", 60)
        (small.directory / "more-ballast").unlink()
        ballast.unlink()
        gateway.wait_for(lambda: association.send_c_store(late[0]).Status == 0x0000, 30, "room in the same association")
        assert association.send_c_store(late[1]).Status == 0x0000
    wanted = sorted({*first.files, *second.files})
    gateway.wait_for(lambda: len(room.given()) >= len(wanted), 120, "delivery of all")
    assert sorted(room.given()) == wanted
    room.assert_nobody_was_restarted()
    gateway.stop()


def in_use(directory: Path) -> int:
    """Bytes of all files below a directory, each counted once however many names it has."""
    found = {}
    for path in files_below(directory):
        with contextlib.suppress(FileNotFoundError):  # it was deleted meanwhile
            status = path.lstat()
            found[status.st_dev, status.st_ino] = status.st_size
    return sum(found.values())


def test_the_quota_is_counted_as_it_changes(new_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """What is received, copied for a run, written by it, kept of it, and deleted: always within two percent."""
    quota = 200 * MIB
    gateway = new_gateway({"storage.volumeSize": quota, "dicom.scp.repeatSeconds": 1})
    gateway.start()
    go = tmp_path / "go"
    script = f"head -c 9000000 /dev/zero > made; until [ -e {go} ]; do sleep 0.05; done"
    pipeline = gateway.add_pipeline("writes", ["/bin/sh", "-c", script])
    gateway.add_source("MODALITY")
    gateway.add_aetitle("GUARD", timeout=TIMEOUT_SECONDS, pipeline_writes=pipeline)

    def wait_counted(at_least: int, at_most: int) -> None:
        def counted() -> bool:
            with contextlib.suppress(FileNotFoundError):  # something is being deleted: it counts when that is done
                used, true = quota - gateway.status().storage.free_bytes, in_use(gateway.spool)
                return at_least <= true <= at_most and abs(used - true) < 0.02 * true
            return False

        gateway.wait_for(counted, 30, f"count of {at_least} to {at_most} bytes")

    study = make_study(tmp_path / "study", "PAT-C", 20)
    size = in_use(study.directory)
    sent = storescu(gateway.port, *study.files.values(), called="GUARD", calling="MODALITY")
    assert sent.successes == 20
    wait_counted(size, size + MIB)
    wait_counted(2 * size + 9_000_000, 2 * size + 9_000_000 + MIB)
    gateway.cli("restart", "guardian")
    gateway.cli("restart", "platform")
    wait_counted(2 * size + 9_000_000, 2 * size + 9_000_000 + MIB)
    go.touch()
    wait_counted(9_000_000, 9_000_000 + MIB)

    def held() -> list[str]:
        return [holder["what"] for holder in gateway.rest.get("/api/storage").json()["holders"]]

    gateway.wait_for(lambda: held() == ["results of pipelines"], 10, "results alone to hold space")
    gateway.stop()
    gateway.start()
    wait_counted(9_000_000, 9_000_000 + MIB)
    gateway.stop()
