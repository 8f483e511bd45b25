"""The extractor as a process: what comes in on one channel goes out, described, on the other."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.extractor import extractor as module
from actors.extractor.extractor import Extractor
from protocol import clock
from protocol.access import AccessFile, AccessList, AeTitleRule
from protocol.bus import Bus, Receiver, Sender
from protocol.channels import DESCRIPTIONS, INSTANCES
from protocol.messages import (
    DescribedInstance,
    DescribeInstances,
    InstancesDescribed,
    InstancesStored,
    Message,
    StoredInstance,
)
from tests.actors.extractor.encoding import CT, EXPLICIT, INSTANCE, SERIES, STUDY, dataset, element, part10
from tests.actors.extractor.sent import Sent
from tests.actors.launcher import Launcher, wait_until

CONFIGURED = {"00080020", "00080060", "00081030", "0008103E", "00100020", "00100030", "00101010", "0020000D"}
SHARD = "20240101T000000-receiver_00000000-0001"


class World:
    """The neighbours of an extractor: the spool that receivers fill, and the processor's end of the bus."""

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        self.bus = Bus(launcher.runtime, launcher.settings)
        self.processor: Receiver = self.bus.receiver(DESCRIPTIONS, "processor")
        self.receiver: Sender = self.bus.sender(INSTANCES)
        self.found: list[tuple[DescribedInstance, bool]] = []
        (launcher.spool.instances / SHARD).mkdir()

    def store(self, name: str, body: bytes) -> StoredInstance:
        """An instance on disk."""
        path = Path(self.launcher.spool.instance_path(f"{SHARD}/{name}"))
        path.write_bytes(part10(body))
        return self.claim(name)

    def claim(self, name: str) -> StoredInstance:
        """What a message says of an instance."""
        return StoredInstance(f"{SHARD}/{name}", clock.now())

    def send(self, message: Message) -> None:
        """To the extractor; its endpoint may not be connected yet."""
        wait_until(lambda: self.receiver.send(message), "somebody who takes the message")

    def described(self, count: int) -> list[tuple[DescribedInstance, bool]]:
        """Wait for so many descriptions since the last `forget`; each with whether it came as a lenient one."""

        def enough() -> bool:
            while (message := self.processor.receive()) is not None:
                assert isinstance(message, InstancesDescribed)
                self.found.extend((each, message.lenient) for each in message.instances)
            return len(self.found) >= count

        wait_until(enough, f"{count} descriptions")
        return self.found

    def forget(self) -> None:
        """Begin to count anew."""
        self.found = []


@pytest.fixture
def world(launcher: Launcher) -> Iterator[World]:
    world = World(launcher)
    yield world
    world.bus.close()


def test_an_instance_is_described(world: World) -> None:
    world.launcher.start("extractor-1")
    stored = world.store("a-000001", dataset(element(0x0008103E, "LO", b"Thorax")))
    world.send(InstancesStored(instances=(stored,)))
    [(described, lenient)] = world.described(1)
    size = Path(world.launcher.spool.instance_path(stored.identifier)).stat().st_size
    assert not lenient
    assert described == DescribedInstance(
        identifier=stored.identifier,
        stored=stored.stored,
        size=size,
        dataset_offset=len(part10(b"")),
        called_ae_title="CLARA",
        calling_ae_title="MODALITY",
        host="2001:db8::7",
        sop_class_uid=CT,
        sop_instance_uid=INSTANCE,
        transfer_syntax_uid=EXPLICIT,
        study_uid=STUDY,
        series_uid=SERIES,
        patient_id="PAT-1",
        attributes={
            "00080020": "",
            "00080060": "CT",
            "00081030": "",
            "0008103E": "Thorax",
            "00100020": "PAT-1",
            "00100030": "",
            "00101010": "",
            "0020000D": STUDY,
        },
        problem="",
    )


def test_the_bad_do_not_harm_the_good(world: World) -> None:
    """In one batch: garbage, a file cut short, a file that is gone, one that cannot be read, and good ones."""
    actor = world.launcher.start("extractor-1")
    good = [world.store(f"a-{number:06d}", dataset()) for number in range(1, 301)]
    garbage = world.store("b-000001", b"\xff" * 100)
    short = world.store("b-000002", dataset(element(0x7FE00010, "OW", bytes(100), length=200)))
    gone = world.claim("b-000003")
    unreadable = world.claim("b-000004")
    Path(world.launcher.spool.instance_path(unreadable.identifier)).mkdir()
    world.send(InstancesStored(instances=(gone, unreadable, garbage, short, *good)))
    described = {each.identifier: each for each, _ in world.described(302)}
    assert set(described) == {each.identifier for each in (garbage, short, *good)}
    assert described[short.identifier].problem == "the dataset ends inside element 7FE0,0010"
    assert described[garbage.identifier].problem
    assert not any(described[each.identifier].problem for each in good)
    assert unreadable.identifier in actor.wait_for_log("instance_not_read")
    assert gone.identifier not in actor.log_text()


def test_what_was_released_is_described_at_any_price(world: World) -> None:
    world.launcher.start("extractor-1")
    garbage = world.store("b-000001", b"\xff" * 100)
    other = world.store("b-000002", dataset(changed={0x00080018: "1.9"}))
    world.send(DescribeInstances(instances=(garbage, other), lenient=True))
    first, second = world.described(2)
    assert first[1]
    assert second[1]
    assert [each.problem for each, _ in (first, second)] == ["", ""]
    described = first[0]
    assert (described.study_uid, described.series_uid, described.patient_id) == ("unknown", "unknown", "")
    assert (described.sop_class_uid, described.sop_instance_uid) == (CT, INSTANCE)
    assert described.called_ae_title == "CLARA"
    assert set(described.attributes.values()) == {""}
    assert (second[0].study_uid, second[0].sop_instance_uid) == (STUDY, INSTANCE)


def test_elements_to_group_by_are_followed(world: World) -> None:
    """A changed AE title holds from the next batch on, without a message."""
    world.launcher.start("extractor-1")
    access = AccessFile(world.launcher.spool.access)
    stored = world.store("a-000001", dataset(element(0x00080050, "SH", b"A77"), element(0x00200010, "SH", b"S1")))
    for tags, expected in ((("00080050",), {"00080050": "A77"}), (("00200010", "00080060"), {"00200010": "S1"})):
        access.replace(AccessList(ae_titles=(AeTitleRule(ae_title="CLARA", tags=tags),)))
        world.send(DescribeInstances(instances=(stored,)))
        [(described, _)] = world.described(1)
        world.forget()
        assert described.attributes["00080060"] == "CT"
        assert {tag: value for tag, value in described.attributes.items() if tag not in CONFIGURED} == expected


def test_it_describes_what_it_has_before_it_ends(world: World) -> None:
    actor = world.launcher.start("extractor-1")
    stored = tuple(world.store(f"a-{number:06d}", dataset()) for number in range(1, 1001))
    world.send(InstancesStored(instances=stored))
    world.described(1)
    actor.drain(20.0)
    world.described(1000 - module.BATCH)  # the bus may drop the last message when it is closed
    assert actor.wait_ended() == 0


# In this process, for what real files cannot bring about.


@pytest.mark.parametrize("error", [MemoryError, RecursionError, ValueError])
def test_an_unforeseen_failure_is_one_instance_s_problem(
    extractor: Extractor, launcher: Launcher, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    sent = Sent()
    monkeypatch.setattr(extractor, "_descriptions", sent)
    (launcher.spool.instances / SHARD).mkdir()
    real = module.dicom.describe

    def describe(path: str, wanted: module.dicom.Wanted, familiar: module.dicom.Familiar) -> module.dicom.Header:
        if path.endswith("/bad.dcm"):
            raise error("Doe^John")
        return real(path, wanted, familiar)

    monkeypatch.setattr(module.dicom, "describe", describe)
    Path(launcher.spool.instance_path(f"{SHARD}/good")).write_bytes(part10(dataset()))
    stored = tuple(StoredInstance(f"{SHARD}/{name}", clock.now()) for name in ("bad", "good"))
    extractor.handle_describe_instances(DescribeInstances(instances=stored))
    extractor.turn(0)
    [message] = sent.messages
    assert [each.problem for each in message.instances] == [f"could not be read ({error.__name__})", ""]


def test_batches_are_bounded_and_repeats_are_described_once(
    extractor: Extractor, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = Sent()
    monkeypatch.setattr(extractor, "_descriptions", sent)
    monkeypatch.setattr(module, "TURN_SECONDS", 60.0)
    (launcher.spool.instances / SHARD).mkdir()
    stored = tuple(StoredInstance(f"{SHARD}/a-{number:06d}", clock.now()) for number in range(450))
    for each in stored:
        Path(launcher.spool.instance_path(each.identifier)).write_bytes(part10(dataset()))
    extractor.handle_instances_stored(InstancesStored(instances=stored))
    extractor.handle_describe_instances(DescribeInstances(instances=stored))
    extractor.handle_describe_instances(DescribeInstances(instances=stored[-1:], lenient=True))
    assert extractor.busy_with() == "451 waiting"
    for _ in range(4):
        extractor.turn(0)
    assert [(len(message.instances), message.lenient) for message in sent.messages] == [
        (1, True),
        (200, False),
        (200, False),
        (50, False),
    ]
    assert extractor.busy_with() == ""


def test_a_slow_disk_does_not_stop_the_main_loop(
    extractor: Extractor, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch ends when its time is up, so heartbeats go on."""
    sent = Sent()
    monkeypatch.setattr(extractor, "_descriptions", sent)
    monkeypatch.setattr(module, "TURN_SECONDS", 0.0)
    (launcher.spool.instances / SHARD).mkdir()
    stored = tuple(StoredInstance(f"{SHARD}/a-{number:06d}", clock.now()) for number in range(3))
    for each in stored:
        Path(launcher.spool.instance_path(each.identifier)).write_bytes(part10(dataset()))
    extractor.handle_describe_instances(DescribeInstances(instances=stored))
    for _ in range(3):
        extractor.turn(0)
    assert [len(message.instances) for message in sent.messages] == [1, 1, 1]


def test_what_waits_is_bounded(extractor: Extractor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 10)
    stored = tuple(StoredInstance(f"{SHARD}/a-{number:06d}", clock.now()) for number in range(50))
    extractor.handle_instances_stored(InstancesStored(instances=stored))
    assert extractor.busy_with() == "10 waiting"


def test_a_damaged_access_list_stops_nothing(
    extractor: Extractor, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = Sent()
    monkeypatch.setattr(extractor, "_descriptions", sent)
    (launcher.spool.instances / SHARD).mkdir()
    launcher.spool.access.write_text("{")
    Path(launcher.spool.instance_path(f"{SHARD}/a")).write_bytes(part10(dataset()))
    extractor.handle_describe_instances(DescribeInstances(instances=(StoredInstance(f"{SHARD}/a", clock.now()),)))
    extractor.turn(0)
    [message] = sent.messages
    assert message.instances[0].study_uid == STUDY


def test_hosts() -> None:
    for address, host in (
        ("dicom://10.0.0.1:104", "10.0.0.1"),
        ("dicom://[::1]:104", "::1"),
        ("10.0.0.1", "10.0.0.1"),
        ("", ""),
        ("dicom://[", "dicom://["),
    ):
        assert module._host(address) == host
