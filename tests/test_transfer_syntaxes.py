"""Every transfer syntax and SOP class is stored as it came, byte for byte, and never decoded."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from tests.gateway import Gateway, rss_peak_bytes
from tests.peers import storescp, storescu, wait_for
from tests.samples import (
    PRIVATE_SOP_CLASS,
    Study,
    convert,
    dataset_bytes,
    encapsulated,
    jpeg2000_frame,
    make_huge,
    make_study,
)

# What storescu must be told to propose a transfer syntax.
_OPTIONS = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.4.100": "-xm",
    "1.2.840.10008.1.2.4.102": "-xn",
    "1.2.840.10008.1.2.4.107": "-x4",
    "1.2.840.10008.1.2.5": "-xr",
}
_JPEG2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
# Nobody on the way looks into a code stream, so one that only begins like a video does.
_VIDEO = {
    "1.2.840.10008.1.2.4.100": b"\x00\x00\x01\xb3" + bytes(4096),
    "1.2.840.10008.1.2.4.102": b"\x00\x00\x00\x01\x67" + bytes(4095),
    "1.2.840.10008.1.2.4.107": b"\x00\x00\x00\x01\x40" + bytes(4095),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway for all syntaxes, with an AE title that keeps groups open while a test looks at the spool."""
    with Gateway(tmp_path_factory.mktemp("gateway")) as running:
        running.add_source("STORESCU")
        running.add_aetitle("SYNTAX", timeout=5, pipeline_none=running.add_pipeline("none", ["/bin/true"]))
        yield running


def stored(gateway: Gateway, study: Study) -> dict[str, Path]:
    """The study's files in the spool, by SOP Instance UID."""
    found = {}
    for path in (gateway.spool / "instances").glob("*/*.dcm"):
        uid = str(pydicom.filereader.read_file_meta_info(path).MediaStorageSOPInstanceUID)
        if uid in study.files:
            found[uid] = path
    return found


def assert_stored_like_storescp(gateway: Gateway, study: Study, tmp_path: Path, option: str) -> dict[str, Path]:
    """Send to the gateway and to a storescp that keeps the bytes: both have the same datasets.

    storescu parses and writes what it sends, so storescp tells what really travelled.
    """
    count = len(study.files)
    sent = storescu(gateway.port, study.directory, called="SYNTAX", options=[option, "-R"])
    assert (sent.exit_code, sent.successes) == (0, count), sent.output[-2000:]
    with storescp(tmp_path / "oracle") as oracle:
        assert storescu(oracle.port, study.directory, called="ANY", options=[option, "-R"]).successes == count
    travelled = {}
    for path in (tmp_path / "oracle").iterdir():
        meta = pydicom.filereader.read_file_meta_info(path)
        travelled[str(meta.MediaStorageSOPInstanceUID)] = (str(meta.TransferSyntaxUID), path)
    found = wait_for(lambda: files if len(files := stored(gateway, study)) == count else None, 10, "stored files")
    for uid, path in found.items():
        meta = pydicom.filereader.read_file_meta_info(path)
        assert (uid, str(meta.TransferSyntaxUID)) == (uid, travelled[uid][0])
        assert dataset_bytes(path) == dataset_bytes(travelled[uid][1])
    return dict(found)


@pytest.mark.parametrize("syntax", _OPTIONS, ids=lambda uid: pydicom.uid.UID(uid).keyword or uid)
def test_stored_as_it_came(shared: Gateway, tmp_path: Path, syntax: str) -> None:
    plain = make_study(tmp_path / "plain", "PAT-X", 2, rows=64, modality="MR")
    if syntax in _JPEG2000:
        study = encapsulated(plain, tmp_path / "encoded", syntax, [jpeg2000_frame()])
    elif syntax in _VIDEO:
        study = encapsulated(plain, tmp_path / "encoded", syntax, [_VIDEO[syntax]])
    else:
        study = convert(plain, tmp_path / "encoded", syntax)
    found = assert_stored_like_storescp(shared, study, tmp_path, _OPTIONS[syntax])
    for path in found.values():
        assert pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID == syntax

    journey = shared.wait_for(lambda: journey_of(shared, study), 30, "job of the study")
    assert [job["platformState"] for job in journey["jobs"]] == ["Succeeded"]


def journey_of(gateway: Gateway, study: Study) -> dict[str, Any] | None:
    """The study's journey once all of its jobs have run, else None."""
    answer = gateway.rest.get(f"/api/trace/{study.uid}")
    journey: dict[str, Any] = answer.json()
    ended = answer.is_success and journey["jobs"] and all(job["runEnded"] for job in journey["jobs"])
    return journey if ended else None


def test_private_sop_class(shared: Gateway, tmp_path: Path) -> None:
    study = make_study(tmp_path / "private", "PAT-P", 2, rows=64, modality="MR", sop_class=PRIVATE_SOP_CLASS)
    found = assert_stored_like_storescp(shared, study, tmp_path, "-xe")
    for path in found.values():
        assert pydicom.filereader.read_file_meta_info(path).MediaStorageSOPClassUID == PRIVATE_SOP_CLASS


def test_two_gigabytes_in_one_object_need_little_memory(shared: Gateway, tmp_path: Path) -> None:
    study = make_huge(tmp_path / "huge" / "huge.dcm", "PAT-H", 2_000_000_000)
    sent = storescu(shared.port, study.directory, called="SYNTAX", timeout=280, options=["-xe", "-R"])
    assert (sent.exit_code, sent.successes) == (0, 1), sent.output[-2000:]
    for pid in shared.pids("receiver") + shared.pids("extractor"):
        assert rss_peak_bytes(pid) < 150_000_000
    (path,) = stored(shared, study).values()
    (source,) = study.files.values()
    assert path.stat().st_size >= source.stat().st_size - 1024
