"""Fixtures of the processor's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.actors.processor.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A world in which no processor runs yet."""
    with World(tmp_path) as made:
        yield made
