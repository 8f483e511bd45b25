"""What the guardian's tests share."""

from pathlib import Path

import pytest

from tests.actors.guardian.house import House


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)
