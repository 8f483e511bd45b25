"""Every transfer syntax and SOP class is stored as it came, byte for byte, and never decoded."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.filereader import read_file_meta_info

from tests.gateway import Gateway, rss_peak_bytes
from tests.peers import Sent, dcmsend, storescp, storescu
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


@dataclass(frozen=True)
class Case:
    """A study that was sent to the gateway, and to a storescp that keeps the bytes.

    storescu parses and writes what it sends, so only another receiver can tell what really travelled.
    """

    study: Study
    sent: Sent
    travelled: dict[str, Path]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway for all syntaxes, which keeps files for longer than these tests may take."""
    with Gateway(tmp_path_factory.mktemp("gateway"), {"dicom.scp.repeatSeconds": 900}) as running:
        running.add_source("STORESCU")
        running.add_aetitle("SYNTAX", timeout=5, pipeline_none=running.add_pipeline("none", ["/bin/true"]))
        yield running


@pytest.fixture(scope="module")
def cases(shared: Gateway, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """A study in each transfer syntax, all sent before the first group closes, so that the tests wait but once."""
    return {syntax: deliver(shared, syntax, tmp_path_factory.mktemp("syntax")) for syntax in _OPTIONS}


def deliver(gateway: Gateway, syntax: str, directory: Path) -> Case:
    """Make a study in a transfer syntax, and send it to both."""
    plain = make_study(directory / "plain", "PAT-X", 2, rows=64, modality="MR")
    if syntax in _JPEG2000:
        study = encapsulated(plain, directory / "encoded", syntax, [jpeg2000_frame()])
    elif syntax in _VIDEO:
        study = encapsulated(plain, directory / "encoded", syntax, [_VIDEO[syntax]])
    else:
        study = convert(plain, directory / "encoded", syntax)
    options = [_OPTIONS[syntax], "-R"]
    sent = storescu(gateway.port, study.directory, called="SYNTAX", options=options)
    with storescp(directory / "travelled") as oracle:
        assert storescu(oracle.port, study.directory, called="ANY", options=options).successes == 2
    return Case(study, sent, by_instance((directory / "travelled").iterdir()))


def by_instance(files: Iterable[Path]) -> dict[str, Path]:
    """Files by SOP Instance UID."""
    return {str(read_file_meta_info(path).MediaStorageSOPInstanceUID): path for path in files}


def stored(gateway: Gateway, study: Study) -> dict[str, Path]:
    """The study's files in the spool, by SOP Instance UID."""
    found = by_instance((gateway.spool / "instances").glob("*/*.dcm"))
    return {uid: path for uid, path in found.items() if uid in study.files}


def journey_of(gateway: Gateway, study: Study) -> dict[str, Any] | None:
    """The study's journey once all of its jobs are known to have ended, else None."""
    answer = gateway.rest.get(f"/api/trace/{study.uid}")
    journey: dict[str, Any] = answer.json()
    ended = answer.is_success and [job["platformState"] in ("Succeeded", "Failed") for job in journey["jobs"]]
    return journey if ended and all(ended) else None


@pytest.mark.parametrize("syntax", _OPTIONS, ids=lambda uid: pydicom.uid.UID(uid).keyword or uid)
def test_stored_as_it_came(shared: Gateway, cases: dict[str, Case], syntax: str) -> None:
    case = cases[syntax]
    assert (case.sent.exit_code, case.sent.successes) == (0, 2), case.sent.output[-2000:]
    found = stored(shared, case.study)
    assert set(found) == set(case.study.files)
    for uid, path in found.items():
        meta = read_file_meta_info(path)
        assert meta.TransferSyntaxUID == syntax
        assert read_file_meta_info(case.travelled[uid]).TransferSyntaxUID == syntax
        assert dataset_bytes(path) == dataset_bytes(case.travelled[uid])
    journey = shared.wait_for(lambda: journey_of(shared, case.study), 60, "job of the study")
    assert [(job["platformState"], journey["instances"]) for job in journey["jobs"]] == [("Succeeded", 2)]


def test_private_sop_class(shared: Gateway, tmp_path: Path) -> None:
    study = make_study(tmp_path / "private", "PAT-P", 2, rows=64, modality="MR", sop_class=PRIVATE_SOP_CLASS)
    # storescu leaves out what it does not know.
    sent = dcmsend(shared.port, study.directory, called="SYNTAX", calling="STORESCU", options=["--no-uid-checks"])
    assert (sent.exit_code, sent.successes) == (0, 2), sent.output[-2000:]
    found = stored(shared, study)
    assert set(found) == set(study.files)
    for uid, path in found.items():
        assert read_file_meta_info(path).MediaStorageSOPClassUID == PRIVATE_SOP_CLASS
        assert dataset_bytes(path) == dataset_bytes(study.files[uid])


def test_two_gigabytes_in_one_object_need_little_memory(shared: Gateway, tmp_path: Path) -> None:
    study = make_huge(tmp_path / "huge" / "huge.dcm", "PAT-H", 2_000_000_000)
    sent = storescu(shared.port, study.directory, called="SYNTAX", timeout=280, options=["-xe", "-R"])
    assert (sent.exit_code, sent.successes) == (0, 1), sent.output[-2000:]
    for pid in shared.pids("receiver") + shared.pids("extractor"):
        assert rss_peak_bytes(pid) < 150_000_000
    (path,) = stored(shared, study).values()
    (source,) = study.files.values()
    assert path.stat().st_size >= source.stat().st_size - 1024
