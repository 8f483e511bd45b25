"""The base of all messages, the answers that every command may get, and how they become bytes."""

from typing import Any

import msgspec


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """Anything that travels between two processes."""


class Done(Message, frozen=True, kw_only=True):
    """A command was carried out.

    Args:
        affected: how many rows it changed.
    """

    affected: int = 0


class Refused(Message, frozen=True, kw_only=True):
    """A command was understood and will not be carried out.

    Args:
        reason: a sentence for people.
        transient: the same command may succeed later.
    """

    reason: str
    transient: bool = False


_encoder = msgspec.msgpack.Encoder()


def encode(message: Message) -> bytes:
    """A message as MessagePack."""
    return _encoder.encode(message)


def decoder(union: Any) -> "msgspec.msgpack.Decoder[Any]":
    """A decoder for one of the unions above; build it once."""
    return msgspec.msgpack.Decoder(union)
