"""What a host process is asked, and what it answers: MessagePack messages, each behind its length in four bytes.

One request is under way at a time. A job processor's objects never travel, and of its errors only the type and the
lines of code, since an error's own words may quote an instance.
"""

import struct
from collections.abc import Iterator
from typing import Annotated

import msgspec

from protocol import messages
from protocol.job_processors import JobPlan
from protocol.messages import DescribedInstance, Message
from protocol.plugins import limits

_LENGTH = struct.Struct(">I")
LONGEST_BYTES = 16 * 1024 * 1024
"""Of one message of a host."""

Seconds = Annotated[float, msgspec.Meta(ge=0, le=limits.LONGEST_TIMEOUT_SECONDS)]
Tag = Annotated[str, msgspec.Meta(pattern="^[0-9A-F]{8}$")]
Text = Annotated[str, msgspec.Meta(max_length=limits.LONGEST_TEXT)]


class Load(Message, frozen=True, kw_only=True):
    """Check an AE title's settings and make its job processor: the first request. Answer: `Loaded` or `Rejected`."""

    name: str
    ae_title: str
    settings: dict[str, str]


class GroupInstances(Message, frozen=True, kw_only=True):
    """Group instances. Answer: one `Grouped` or more, until there are as many keys, in the same order."""

    instances: tuple[DescribedInstance, ...]


class PlanJobs(Message, frozen=True, kw_only=True):
    """Plan the jobs of a group. Answer: `Planned`, and before that maybe `MembersWanted`, each for one page.

    Args:
        group_key: the group's.
        count: how many instances it has.
    """

    group_key: str
    count: int


class Members(Message, frozen=True, kw_only=True):
    """A page of the group's instances; an empty one comes after the last."""

    instances: tuple[DescribedInstance, ...] = ()


class Loaded(Message, frozen=True, kw_only=True):
    """The settings are valid; what the job processor says of itself, see `protocol.job_processors.JobProcessor`."""

    tags: tuple[Tag, ...]
    timeout_seconds: Seconds
    retry_delay_seconds: Seconds
    label: Text


class Rejected(Message, frozen=True, kw_only=True):
    """What is wrong with the settings, or with what the job processor says of itself, a sentence each."""

    problems: tuple[str, ...]


class Key(msgspec.Struct, frozen=True, array_like=True):
    """What an instance is grouped by, or the type of the error that grouping it raised."""

    key: str = ""
    error: str = ""


class Grouped(Message, frozen=True, kw_only=True):
    """Keys so far. `trace` is where the first error among them was raised."""

    keys: tuple[Key, ...]
    trace: str = ""


class Planned(Message, frozen=True, kw_only=True):
    """The jobs of a group."""

    plans: Annotated[tuple[JobPlan, ...], msgspec.Meta(max_length=limits.MOST_JOBS)]


class MembersWanted(Message, frozen=True, kw_only=True):
    """The job processor looks at the group's instances: send the next page."""


class Raised(Message, frozen=True, kw_only=True):
    """A request ended in an error of the job processor: its type, and the lines of code that led to it."""

    error: str
    trace: str


ToHost = Load | GroupInstances | PlanJobs | Members
FromHost = Loaded | Rejected | Grouped | Planned | MembersWanted | Raised


class Frames:
    """Takes a stream apart.

    Args:
        decoder: of the messages that come.
        longest_bytes: of one message.
    """

    def __init__(self, decoder: "msgspec.msgpack.Decoder[Message]", longest_bytes: int = LONGEST_BYTES) -> None:
        self._decoder = decoder
        self._longest_bytes = longest_bytes
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that are complete with what has come now.

        Raises:
            msgspec.DecodeError: this is no such stream, or a message is longer than allowed.
        """
        self._data += data
        while len(self._data) >= _LENGTH.size:
            length = _LENGTH.unpack_from(self._data)[0]
            if length > self._longest_bytes:
                raise msgspec.DecodeError(f"a message has {length} bytes")
            end = _LENGTH.size + length
            if len(self._data) < end:
                return
            message = self._decoder.decode(memoryview(self._data)[_LENGTH.size : end].tobytes())
            del self._data[:end]
            yield message


def frame(message: Message) -> bytes:
    """A message as it travels."""
    data = messages.encode(message)
    return _LENGTH.pack(len(data)) + data
