"""The power fails at any moment: what was acknowledged before is on the disk, whole, and reaches its one job."""

import random
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.spool import Spool
from tests.actors.launcher import Launcher
from tests.actors.receiver.raw import allow
from tests.faults.comparison import compare
from tests.faults.power import Write, cut, impossible, make_image, moments, mounted, read_log, recorded
from tests.faults.scu import Experience, Sender, digest
from tests.faults.trial import Trial, seed_of_environment
from tests.peers import wait_for

IMAGE_MB = 64
CUTS = 8
_RECORDS_APART_NS = 20_000_000  # a file's times are as coarse as the kernel's tick
_REASON = impossible()
pytestmark = pytest.mark.skipif(bool(_REASON), reason=f"no recorded disk on this machine: {_REASON}")


def acknowledged_before(met: list[Experience], at_ns: int) -> dict[str, str]:
    """Digests of what senders knew to be kept at a moment, by SOP Instance UID."""
    return {uid: each.acknowledged[uid] for each in met for uid, when in each.acknowledged_ns.items() if when < at_ns}


def stored(instances: Path) -> dict[str, int]:
    """Digests of the datasets on disk, with how many files have each."""
    found: dict[str, int] = {}
    for path in instances.glob("*/*.dcm"):
        data = path.read_bytes()
        dataset = data[144 + int.from_bytes(data[140:144], "little") :]
        found[digest(dataset)] = found.get(digest(dataset), 0) + 1
    return found


class Recording:
    """A receiver on a recorded disk, and what its senders met.

    Args:
        directory: of the test.
        sync: `storage.syncOnStore`.
        objects: how many are delivered at least.
    """

    def __init__(self, directory: Path, *, sync: bool, objects: int) -> None:
        self.image = make_image(directory, IMAGE_MB)
        self.place = directory / "disk"
        settings = (f"DicomAdapter.storage.syncOnStore={sync}", "DicomAdapter.storage.reserveSpaceGB=0")
        with (
            recorded(directory, self.image, self.place) as log,
            Launcher(directory, *settings, storage=self.place / "spool") as launcher,
        ):
            allow(launcher.spool, "CT", calling="MODALITY")
            launcher.start("receiver-1")
            senders = [
                Sender(launcher.port, "CT", seed=number, number=number, association_objects=5) for number in range(3)
            ]
            for sender in senders:
                sender.start()
            wait_for(lambda: sum(len(each.experience.acknowledged) for each in senders) >= objects, 60.0, "deliveries")
            self.met = [sender.finish() for sender in senders]
        self.log: list[Write] = read_log(log)
        self.sent = {found for each in self.met for found in each.sent.values()}

    def cuts(self, count: int, chance: random.Random) -> Iterator[tuple[int, int, dict[str, str], dict[str, int]]]:
        """At so many moments: lost writes, lost objects that were acknowledged, these, and what is on the disk."""
        target = self.image.with_name("cut")
        for place in moments(self.log, count, chance):
            lost = cut(self.image, self.log, place, chance, target)
            promised = acknowledged_before(self.met, self.log[place].at_ns)
            with mounted(target, self.place):
                found = stored(Spool(self.place / "spool").instances)
            missing = sum(each not in found for each in promised.values())
            yield lost, missing, promised, found


def test_what_was_acknowledged_is_on_the_disk_whole(tmp_path: Path) -> None:
    seed = seed_of_environment(secrets.randbelow(10**6))
    recording = Recording(tmp_path, sync=True, objects=300)
    lost_writes = checked = 0
    for lost, missing, promised, found in recording.cuts(30, random.Random(seed)):
        lost_writes += lost
        checked += len(promised)
        assert missing == 0, f"seed {seed}"
        assert set(found) <= recording.sent, f"a file has its final name and not all of its bytes, seed {seed}"
    print(f"power cut: 30 cuts, {lost_writes} writes lost, {checked} acknowledged objects looked for; seed={seed}")
    assert lost_writes
    assert checked


def test_without_syncs_a_cut_loses_objects(tmp_path: Path) -> None:
    """Otherwise the test above would not have cut anything."""
    recording = Recording(tmp_path, sync=False, objects=300)
    assert sum(missing for _, missing, _, _ in recording.cuts(5, random.Random(1))) > 0


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_the_whole_gateway_goes_on_after_a_cut(tmp_path: Path) -> None:
    """Spool and ledger are on the disk; what pipelines wrote down before the cut stays, as with any outer world."""
    seed = seed_of_environment(secrets.randbelow(10**6))
    print(f"power cut: seed {seed}")
    chance = random.Random(seed)
    image = make_image(tmp_path, 400)
    place, before = tmp_path / "gateway", tmp_path / "records-before"
    with recorded(tmp_path, image, place) as disk, Trial(tmp_path, seed=seed) as trial:
        began_ns = time.time_ns()
        trial.send(3, study_objects=15, association_objects=5, pause_seconds=0.1)
        trial.gateway.wait_for(lambda: sum(1 for _ in trial.records[0].iterdir()) >= 30, 120.0, "30 jobs")
        met = trial.finish_senders()
        ended_ns = time.time_ns()
    log = read_log(disk)
    disk.unlink()
    trial.records[0].rename(before)
    times = [(path.stat().st_mtime_ns, path) for path in before.iterdir()]
    sent = {uid: found for each in met for uid, found in each.sent.items()}
    eligible = [
        number
        for number, write in enumerate(log)
        if write.offset is None  # when the disk has most to lose
        and began_ns + 5_000_000_000 < write.at_ns < ended_ns
        and all(abs(write.at_ns - at_ns) > _RECORDS_APART_NS for at_ns, _ in times)
    ]
    for number in chance.sample(eligible, CUTS):
        at_ns = log[number].at_ns
        lost = cut(image, log, number, chance, tmp_path / "cut")
        shutil.rmtree(trial.records[0], ignore_errors=True)
        trial.records[0].mkdir()
        for ended, path in times:
            if ended < at_ns:
                shutil.copy2(path, trial.records[0])
        done = len(list(trial.records[0].iterdir()))
        promised = acknowledged_before(met, at_ns)
        with mounted(tmp_path / "cut", place):
            again = Trial(tmp_path, seed=seed)
            try:
                again.gateway.start(60.0)
                again.settle(180.0)
                figures = compare(promised, sent, trial.records[0])
                again.gateway.stop()
            finally:
                again.gateway.clean_up()
        print(f"power cut: {lost} writes lost, {done} jobs done before; {figures}")
        assert figures.faultless, f"seed {seed}, record {number}: {figures}; {figures.examples()}"
