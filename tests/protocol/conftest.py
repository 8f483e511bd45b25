"""What tests of the protocol share."""

from pathlib import Path

import pytest

from protocol.config import Settings, load


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The defaults, with two receivers."""
    config = tmp_path / "appsettings.json"
    config.write_text("{}")
    return load(config, None, ["DicomAdapter.dicom.scp.receivers=2"], {}).settings
