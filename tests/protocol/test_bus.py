"""The bus: what is sent arrives, nothing blocks, and an endpoint cannot be stolen."""

import threading
from pathlib import Path

import msgspec
import pytest

from protocol import channels, messages
from protocol.bus import Bus, Receiver, Server
from protocol.clock import now
from protocol.config import Settings
from protocol.errors import CannotCreateError, ConfigurationError, RefusedError, UnavailableError
from tests.peers import wait_for


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    return tmp_path


def a_message(count: int = 1) -> messages.InstancesStored:
    stored = tuple(messages.StoredInstance(f"shard/{number}", now()) for number in range(count))
    return messages.InstancesStored(instances=stored)


def receive(receiver: Receiver) -> messages.Message:
    return wait_for(receiver.receive, 10, "a message")


def test_messages_go_to_every_binder_in_turn(runtime: Path, settings: Settings) -> None:
    bus = Bus(runtime, settings)
    names = channels.actors_of("extractor", settings)
    receivers = [bus.receiver(channels.INSTANCES, name) for name in names]
    sender = bus.sender(channels.INSTANCES)
    wait_for(lambda: sender.send(a_message()), 10, "a connection")
    for _ in range(20):
        wait_for(lambda: sender.send(a_message(2)), 10, "room to send")
    for receiver in receivers:
        assert isinstance(receive(receiver), messages.InstancesStored)
    bus.close()


def test_without_a_receiver_sending_drops_and_counts_and_does_not_block(runtime: Path, settings: Settings) -> None:
    bus = Bus(runtime, settings)
    sender = bus.sender(channels.JOBS)
    assert not sender.send(messages.JobsCreated(job_ids=("a",)))
    assert sender.dropped == 1
    bus.close()


def test_a_living_endpoint_is_not_stolen_and_a_dead_ones_is_taken(runtime: Path, settings: Settings) -> None:
    first, second = Bus(runtime, settings), Bus(runtime, settings)
    first.receiver(channels.JOBS, "submitter")
    with pytest.raises(CannotCreateError, match="held by another process"):
        second.receiver(channels.JOBS, "submitter")
    first.close()
    second.receiver(channels.JOBS, "submitter")
    second.close()


def serve(server: Server, answer: messages.Message, count: int) -> threading.Thread:
    def work() -> None:
        for _ in range(count):
            wait_for(server.receive, 10, "a command").answer(answer)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_command_is_answered(runtime: Path, settings: Settings) -> None:
    bus = Bus(runtime, settings)
    server = bus.server(channels.SUBMITTER_COMMANDS, "submitter")
    thread = serve(server, messages.Done(affected=3), 1)
    client = bus.client(channels.SUBMITTER_COMMANDS)
    assert client.ask(messages.RetryJobs(job_ids=("a",))) == messages.Done(affected=3)
    thread.join(10)
    client.close()
    bus.close()


@pytest.mark.parametrize(("transient", "error"), [(False, RefusedError), (True, UnavailableError)])
def test_a_refusal_is_an_error_with_its_reason(
    runtime: Path, settings: Settings, transient: bool, error: type[Exception]
) -> None:
    bus = Bus(runtime, settings)
    server = bus.server(channels.SUBMITTER_COMMANDS, "submitter")
    thread = serve(server, messages.Refused(reason="no such job", transient=transient), 1)
    client = bus.client(channels.SUBMITTER_COMMANDS)
    with pytest.raises(error, match="no such job"):
        client.ask(messages.RetryJobs(job_ids=("a",)))
    thread.join(10)
    client.close()
    bus.close()


def test_an_owner_that_is_away_is_an_error_in_time(runtime: Path, settings: Settings) -> None:
    bus = Bus(runtime, settings)
    client = bus.client(channels.SUBMITTER_COMMANDS)
    with pytest.raises(UnavailableError, match="submitter did not answer"):
        client.ask(messages.RetryJobs(), timeout_seconds=0.2)
    client.close()
    bus.close()


def test_a_late_answer_is_not_taken_for_the_next_commands(runtime: Path, settings: Settings) -> None:
    bus = Bus(runtime, settings)
    server = bus.server(channels.SUBMITTER_COMMANDS, "submitter")
    client = bus.client(channels.SUBMITTER_COMMANDS)
    with pytest.raises(UnavailableError):
        client.ask(messages.RetryJobs(job_ids=("first",)), timeout_seconds=0.2)
    late = wait_for(server.receive, 10, "the first command")
    late.answer(messages.Done(affected=1))
    thread = serve(server, messages.Done(affected=2), 1)
    assert client.ask(messages.RetryJobs(job_ids=("second",))) == messages.Done(affected=2)
    thread.join(10)
    client.close()
    bus.close()


def test_a_command_of_another_channel_is_refused_with_a_sentence(runtime: Path, settings: Settings) -> None:
    bus = Bus(runtime, settings)
    server = bus.server(channels.SUBMITTER_COMMANDS, "submitter")
    client = bus.client(channels.SUBMITTER_COMMANDS)
    done = threading.Event()
    thread = threading.Thread(target=lambda: wait_for(lambda: server.receive() or done.is_set(), 10, "the end"))
    thread.start()
    with pytest.raises(RefusedError, match="could not be read"):
        client.ask(messages.StartRun(run_id="x"))
    done.set()
    thread.join(10)
    client.close()
    bus.close()


def test_a_runtime_directory_that_is_too_deep_is_explained(runtime: Path, settings: Settings) -> None:
    deep = runtime / ("d" * 100)
    deep.mkdir()
    bus = Bus(deep, settings)
    with pytest.raises(ConfigurationError, match="too long for a socket"):
        bus.sender(channels.JOBS)
    bus.close()


def test_every_message_survives_the_wire() -> None:
    message = a_message(3)
    assert messages.decoder(messages.ToExtractor).decode(messages.encode(message)) == message


def test_a_message_with_fields_of_a_newer_version_is_still_read() -> None:
    newer = msgspec.msgpack.encode({"type": "JobsCreated", "job_ids": ["a"], "added_later": 1})
    assert messages.decoder(messages.ToSubmitter).decode(newer) == messages.JobsCreated(job_ids=("a",))
