"""The tests' own helpers do what the tests rely on."""

from pathlib import Path

import pydicom
import pytest

from tests.gateway import Gateway
from tests.peers import echoscu, free_port, listens, storescp, storescu, wait_for
from tests.samples import ENCODED_BY_DCMTK, convert, dataset_bytes, make_study


def test_wait_for_gives_up_with_a_message() -> None:
    with pytest.raises(AssertionError, match=r"after 0\.1 s still no unicorn"):
        wait_for(lambda: False, 0.1, "unicorn")
    assert wait_for(lambda: 7, 0.1, "seven") == 7


def test_study_is_as_ordered_and_survives_storescu(tmp_path: Path) -> None:
    study = make_study(tmp_path / "ct", "PAT-1", 6, series=2)
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in study.files.values()]
    assert [header.SOPInstanceUID for header in headers] == list(study.files)
    assert {header.StudyInstanceUID for header in headers} == {study.uid}
    assert len({header.SeriesInstanceUID for header in headers}) == 2
    assert all(520_000 < path.stat().st_size < 530_000 for path in study.files.values())
    assert len({dataset_bytes(path)[-4:] for path in study.files.values()}) == 6

    with storescp(tmp_path / "received") as peer:
        sent = storescu(peer.port, study.directory, called="ANY")
        assert (sent.exit_code, sent.successes, sent.rejection) == (0, 6, "")
        assert echoscu(peer.port, called="ANY").statuses == ("Success",)
    assert not listens(peer.port)
    received = {str(pydicom.dcmread(path).SOPInstanceUID): path for path in (tmp_path / "received").iterdir()}
    assert {uid: dataset_bytes(path) for uid, path in received.items()} == {
        uid: dataset_bytes(path) for uid, path in study.files.items()
    }


def test_refusing_peer_is_told_apart(tmp_path: Path) -> None:
    with storescp(tmp_path / "refusing", options=["--refuse"]) as peer:
        assert echoscu(peer.port, called="ANY").rejection
    assert echoscu(free_port(), called="ANY").exit_code != 0


@pytest.mark.parametrize("syntax", ENCODED_BY_DCMTK)
def test_converted_study_has_the_syntax_and_its_uids(tmp_path: Path, syntax: str) -> None:
    study = convert(make_study(tmp_path / "plain", "PAT-1", 1, rows=64, modality="MR"), tmp_path / "encoded", syntax)
    ((uid, path),) = study.files.items()
    dataset = pydicom.dcmread(path)
    assert (dataset.file_meta.TransferSyntaxUID, dataset.SOPInstanceUID) == (syntax, uid)


def test_gateway_fails_on_the_marker_and_finds_processes(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    try:
        gateway.log.write_text("fine\n")
        gateway.check_log()
        gateway.log.write_text("error: adapter.x marker=UNEXPECTED\n")
        with pytest.raises(AssertionError, match="marker=UNEXPECTED"):
            gateway.check_log()
        assert gateway.left_over() == []
    finally:
        gateway.clean_up()
