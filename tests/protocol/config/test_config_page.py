"""The page and the shipped files are what the table says, and are valid."""

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from pydicom._uid_dict import UID_dictionary

from protocol.config import kinds, load, page
from protocol.config.table import SETTINGS

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("which", ["settings", "appsettings", "values"])
def test_not_stale(which):
    """Who changes the table writes the files anew: `python -m protocol.config.page`."""
    command = [sys.executable, "-m", "protocol.config.page", which, "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_stale_is_seen(monkeypatch, tmp_path):
    """A page that differs is stale, and so is none."""
    monkeypatch.setitem(page._FILES, "settings", (tmp_path / "settings.md", page.settings_page))
    assert page.is_stale("settings")
    (tmp_path / "settings.md").write_text(page.settings_page())
    assert not page.is_stale("settings")
    (tmp_path / "settings.md").write_text("x")
    assert page.is_stale("settings")


def test_shipped_files_are_complete_and_change_nothing(configure):
    """Both load without a warning, give every setting, and give what is the default anyway."""
    shipped = load(ROOT / "configs/appsettings.json", None, [], {})
    assert shipped.warnings == ()
    assert len(shipped.files) == 2
    assert shipped.settings == configure().settings
    text = (ROOT / "configs/appsettings.json").read_text()
    assert all(f'"{setting.path.rsplit(".")[-1]}":' in text for setting in SETTINGS)


def test_every_setting_is_on_the_page():
    """With its path, and a sentence."""
    text = page.settings_page()
    assert all(f"| `{setting.path}` |" in text and f"| {setting.about} |" in text for setting in SETTINGS)


def test_transfer_syntaxes_are_those_of_the_standard():
    """The kind takes every transfer syntax that pydicom knows of DICOM's own, and no other UID."""
    for uid, (_, kind, *_) in UID_dictionary.items():
        if uid == "1.2.840.10008.1.20":
            continue  # Papyrus 3, retired: nobody proposes it
        with nullcontext() if kind == "Transfer Syntax" else pytest.raises(kinds.Refused):
            kinds.transfer_syntax().parse(uid)


def test_default_tags_are_text():
    """The tags that are spared the look into DICOM's dictionary would pass it."""
    assert all(kinds._representation(tag) not in kinds._NOT_TEXT for tag in kinds._PLAIN_TAGS)
    assert kinds.dicom_tag().parse("(0010, 0020)") == "00100020"
