"""Job metadata, from the dataset to the platform's record: distinct values in order, and names in any character set."""

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from tests.gateway import Gateway
from tests.patients import GREEK_NAME, JAPANESE_NAME, LATIN_1_NAME
from tests.peers import storescu
from tests.samples import Study, make_study, new_uid

# Specific Character Set and the name's bytes as PS3.5 Annex H has them; the Greek ones as ISO 8859-7 does.
_NAMES = {
    JAPANESE_NAME: (
        ["", "ISO 2022 IR 87"],
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    ),
    GREEK_NAME: ("ISO_IR 126", b"\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2"),
    LATIN_1_NAME: ("ISO_IR 100", b"Buc^J\xe9r\xf4me"),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """By patient, with three configured tags that are sent along."""
    settings = {
        "services.platform.uploadMetadata": True,
        "services.platform.metadataDicomSource": ["0010,0010", "0010,0020", "0020,000D"],
    }
    with Gateway(tmp_path_factory.mktemp("gateway"), settings) as running:
        running.add_source("MODALITY")
        running.add_aetitle("PATIENT", groupBy="0010,0020", pipeline_none=running.add_pipeline("none", ["/bin/true"]))
        yield running


def named_study(directory: Path, patient_id: str, character_set: str | list[str], raw_name: bytes) -> Study:
    """A study of one object whose Patient's Name has exactly these bytes."""
    raw_name += b" " * (len(raw_name) % 2)
    place_holder = "X" * len(raw_name)
    study = make_study(directory, patient_id, 1, rows=64, patient_name=place_holder)
    (path,) = study.files.values()
    dataset = pydicom.dcmread(path)
    dataset.SpecificCharacterSet = character_set
    dataset.save_as(path)
    path.write_bytes(path.read_bytes().replace(place_holder.encode(), raw_name))
    return study


def test_metadata_on_the_platforms_record(shared: Gateway, tmp_path: Path) -> None:
    """Three studies of one patient in one job, and three patients whose names are in three scripts."""
    # In an order that is not that of the UIDs.
    uids = sorted((new_uid() for _ in range(3)), reverse=True)
    studies = [make_study(tmp_path / uid, "PAT-META", 2, rows=64, study_uid=uid) for uid in uids]
    studies += [
        named_study(tmp_path / f"name{number}", f"PAT-META-{number}", *encoded)
        for number, encoded in enumerate(_NAMES.values())
    ]
    for study in studies:
        sent = storescu(shared.port, study.directory, called="PATIENT", calling="MODALITY")
        assert sent.successes == len(study.files)

    runs = [shared.run_metadata(job["jobId"]) for job in shared.wait_jobs(4)]
    by_patient = {metadata["00100020"]: metadata for metadata in runs}
    three = by_patient["PAT-META"]
    assert three == {
        "Source": "PATIENT (AE Title Job Processor)",
        "Instances": "6",
        "DicomAdapterJobId": three["DicomAdapterJobId"],
        "00100010": "Zzyzxowski^Quillfeather",
        "00100020": "PAT-META",
        "0020000D-0": uids[0],
        "0020000D-1": uids[1],
        "0020000D-2": uids[2],
    }
    for number, name in enumerate(_NAMES):
        metadata = by_patient[f"PAT-META-{number}"]
        assert metadata["00100010"] == name
        assert metadata["0020000D"] == studies[3 + number].uid
        assert metadata["Instances"] == "1"
