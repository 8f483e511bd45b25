"""Objects sent to real peers: bytes as they are, whatever the syntax; what peers refuse, and how they end."""

from pathlib import Path

import pydicom
import pytest

from actors.exporter.scu import Deadlines, ScuDestination, ScuSender
from actors.exporter.sender import DestinationDownError
from tests.actors.exporter.sending import Delivery, scu_settings
from tests.patients import PATIENT_NAME
from tests.peers import free_port, orthanc, storescp
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

DEADLINES = Deadlines(connect_seconds=5, acse_seconds=10, write_seconds=5, response_seconds=10)


def sender(port: int, *, called: str = "STORESCP", **more: bool) -> ScuSender:
    destination = ScuDestination(name="PACS", ae_title=called, host="127.0.0.1", port=port)
    return ScuSender(destination, scu_settings(**more), DEADLINES)


def received(directory: Path) -> dict[str, bytes]:
    """Datasets by SOP Instance UID, as the peer wrote them."""
    found = {}
    for path in directory.iterdir():
        uid = pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID
        found[str(uid)] = dataset_bytes(path)
    return found


def padded(dataset: bytes) -> bytes:
    """A dataset as it has to travel."""
    return dataset + b"\0" * (len(dataset) % 2)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_study(tmp_path_factory.mktemp("study") / "study", "PAT-SCU", 12, rows=64)


def test_every_transfer_syntax_and_sop_class_arrives_byte_for_byte(tmp_path: Path) -> None:
    plain = make_study(tmp_path / "plain", "PAT-SYNTAX", 1, rows=64)
    studies = [plain, make_study(tmp_path / "private", "PAT-SYNTAX", 1, rows=64, sop_class=PRIVATE_SOP_CLASS)]
    for syntax in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.80"):
        other = make_study(tmp_path / f"plain-{syntax}", "PAT-SYNTAX", 1, rows=64)
        studies.append(convert(other, tmp_path / syntax, syntax))
    other = make_study(tmp_path / "plain-2000", "PAT-SYNTAX", 1, rows=64)
    studies.append(encapsulated(other, tmp_path / "2000", "1.2.840.10008.1.2.4.90", [jpeg2000_frame()]))
    sent = {uid: path for one in studies for uid, path in one.files.items()}
    with storescp(tmp_path / "out") as peer:
        delivery = Delivery(sender(peer.port), sent.values())
    assert delivery.counts == {"delivered": 7}
    assert {report.sop_instance_uid for report in delivery.reports} == set(sent)
    assert received(tmp_path / "out") == {uid: padded(dataset_bytes(path)) for uid, path in sent.items()}


def test_a_deflated_dataset_of_odd_length_is_padded(tmp_path: Path) -> None:
    """Fragments are even (PS3.8 Annex E), and DCMTK aborts where they are not."""
    sent: dict[str, Path] = {}
    for number in range(64):
        plain = make_study(tmp_path / f"plain-{number}", "PAT-ODD", 1, rows=16)
        sent |= convert(plain, tmp_path / f"deflated-{number}", "1.2.840.10008.1.2.1.99").files
        if {len(dataset_bytes(path)) % 2 for path in sent.values()} == {0, 1}:
            break
    else:
        pytest.fail("64 deflated datasets are all even, or all odd")
    with storescp(tmp_path / "out") as peer:
        delivery = Delivery(sender(peer.port), sent.values())
    assert delivery.counts == {"delivered": len(sent)}
    assert received(tmp_path / "out") == {uid: padded(dataset_bytes(path)) for uid, path in sent.items()}


@pytest.mark.parametrize("max_pdu", ["4096", "131072"])
def test_pdus_are_as_long_as_the_peer_takes_them(tmp_path: Path, study: Study, max_pdu: str) -> None:
    with storescp(tmp_path / "out", options=("+xa", "+B", "-pdu", max_pdu)) as peer:
        assert Delivery(sender(peer.port), study.files.values()).counts == {"delivered": 12}
    assert received(tmp_path / "out") == {uid: dataset_bytes(path) for uid, path in study.files.items()}


def test_an_object_much_larger_than_any_buffer(tmp_path: Path) -> None:
    huge = make_huge(tmp_path / "huge" / "huge.dcm", "PAT-HUGE", 300_000_000)
    with storescp(tmp_path / "out") as peer:
        assert Delivery(sender(peer.port), huge.files.values()).counts == {"delivered": 1}
    (path,) = (tmp_path / "out").iterdir()
    assert dataset_bytes(path) == dataset_bytes(*huge.files.values())


def test_more_pairs_than_one_association_can_have(tmp_path: Path) -> None:
    (source,) = make_study(tmp_path / "one", "PAT-MANY", 1, rows=64).files.values()
    paths = [_of_class(source, tmp_path / f"{number}.dcm", f"{PRIVATE_SOP_CLASS}.{number}") for number in range(150)]
    with storescp(tmp_path / "out", options=("-pm", "+xa", "+B", "+uf")) as peer:
        assert Delivery(sender(peer.port), paths).counts == {"delivered": 150}


def _of_class(source: Path, path: Path, sop_class: str) -> Path:
    dataset = pydicom.dcmread(source)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.UID(sop_class)
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_refused_contexts_are_refused_for_good_and_the_others_go_on(tmp_path: Path, study: Study) -> None:
    private = make_study(tmp_path / "private", "PAT-REFUSED", 2, rows=64, sop_class=PRIVATE_SOP_CLASS)
    compressed = convert(
        make_study(tmp_path / "plain", "PAT-REFUSED", 2, rows=64), tmp_path / "jls", "1.2.840.10008.1.2.4.80"
    )
    paths = [*private.files.values(), *study.part(0, 3), *compressed.files.values()]
    with storescp(tmp_path / "out", options=("+xe", "+B")) as peer:
        delivery = Delivery(sender(peer.port), paths)
    assert delivery.counts == {"delivered": 3, "refused": 4}
    assert any("does not take this SOP class" in reason for reason in delivery.reasons)
    assert any("1.2.840.10008.1.2.4.80" in reason for reason in delivery.reasons)


@pytest.mark.parametrize("option", ["--refuse", "--abort-after", "--abort-during"])
def test_a_peer_that_delivers_nothing_is_down(tmp_path: Path, study: Study, option: str) -> None:
    with storescp(tmp_path / "out", options=("+xa", "+B", option)) as peer:
        delivery = Delivery(sender(peer.port), study.files.values())
    assert "delivered" not in delivery.counts
    assert delivery.counts.get("failed", 0) <= 1
    assert delivery.down.startswith(f"PACS (127.0.0.1:{peer.port}): ")
    if option == "--refuse":
        assert "rejects the association" in delivery.down
        assert "'OURSELVES' calling 'STORESCP'" in delivery.down
    else:
        assert "aborted" in delivery.down or "closed" in delivery.down or "lost" in delivery.down


def test_nobody_there(study: Study) -> None:
    delivery = Delivery(sender(free_port()), study.files.values())
    assert delivery.counts == {}
    assert "connection refused" in delivery.down
    with pytest.raises(DestinationDownError, match="connection refused"):
        sender(free_port()).probe()


def test_a_stop_ends_after_the_object_that_is_under_way(tmp_path: Path, study: Study) -> None:
    with storescp(tmp_path / "out") as peer:
        delivery = Delivery(sender(peer.port), study.files.values(), stop_after=3)
    assert delivery.counts == {"delivered": 3}
    assert not delivery.down


def test_what_cannot_be_sent_is_reported_and_the_others_go_on(tmp_path: Path, study: Study) -> None:
    first, second, *_ = study.files.values()
    bad = {name: tmp_path / name for name in ("text", "empty", "meta", "cut", "missing")}
    bad["text"].write_text("no DICOM")
    bad["empty"].write_bytes(b"")
    bad["meta"].write_bytes(first.read_bytes()[:200])
    bad["cut"].write_bytes(first.read_bytes()[:-1000])
    with storescp(tmp_path / "out") as peer:
        delivery = Delivery(sender(peer.port), [*bad.values(), first, second])
    assert delivery.counts == {"delivered": 2, "refused": 4, "failed": 1}
    assert delivery.uris("failed") == [str(bad["missing"])]
    assert not any(PATIENT_NAME in reason for reason in delivery.reasons)


def test_echo(tmp_path: Path) -> None:
    with storescp(tmp_path / "out") as peer:
        told = sender(peer.port).probe()
    assert "answered C-ECHO" in told
    assert "OFFIS_DCMTK" in told
    with (
        storescp(tmp_path / "out", options=("--refuse",)) as peer,
        pytest.raises(DestinationDownError, match="rejects the association"),
    ):
        sender(peer.port).probe()


def test_orthanc_takes_it_too(tmp_path: Path, study: Study) -> None:
    with orthanc(tmp_path / "orthanc", dicomweb=False) as ports:
        assert "answered C-ECHO" in sender(ports["dicom"], called="ORTHANC").probe()
        assert Delivery(sender(ports["dicom"], called="ORTHANC"), study.files.values()).counts == {"delivered": 12}


def test_what_is_said_is_logged_when_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    study = make_study(tmp_path / "study", "PAT-LOG", 1, rows=64)
    with storescp(tmp_path / "out") as peer, caplog.at_level("INFO"):
        Delivery(sender(peer.port, log_datasets=True, log_pdus=True), study.files.values())
        loud = [record for record in caplog.records if record.name == "adapter.exporter.scu"]
        caplog.clear()
        Delivery(sender(peer.port), study.files.values())
        quiet = [record for record in caplog.records if record.name == "adapter.exporter.scu"]
    events = [record.getMessage() for record in loud]
    assert events[:3] == ["dimse_request", "pdata_sent", "dimse_dataset"]
    assert set(events[3:]) == {"pdata_sent", "pdata_received", "dimse_response"}
    assert "PAT-LOG" in loud[2].__dict__["fields"]["elements"]
    assert not quiet
