"""The generated code of NVIDIA's client package, imported in the one way in which it can be used.

It is older than what protobuf's default implementation takes; its implementation in Python takes it. That is chosen
here, and so for a process that uses this module, and no other. What it then does not see is that a field is a map: on
the wire a map is a list of entries with `key` and `value`, and so it is written and read here.
"""

import os
from collections.abc import Mapping
from typing import Any

os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"

from nvidia_clara.grpc import (
    common_pb2,
    jobs_pb2,
    jobs_pb2_grpc,
    payloads_pb2,
    payloads_pb2_grpc,
    pipelines_pb2,
    pipelines_pb2_grpc,
)

__all__ = [
    "common_pb2",
    "jobs_pb2",
    "jobs_pb2_grpc",
    "map_of",
    "payloads_pb2",
    "payloads_pb2_grpc",
    "pipelines_pb2",
    "pipelines_pb2_grpc",
    "put_map",
]


def put_map(field: Any, values: Mapping[str, str]) -> None:
    """Write a map of a message."""
    for name, value in values.items():
        field.add(key=name, value=value)


def map_of(field: Any) -> dict[str, str]:
    """Read a map of a message."""
    return {entry.key: entry.value for entry in field}
