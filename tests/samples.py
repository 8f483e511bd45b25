"""DICOM objects for tests: studies made from the CT and MR files that pydicom carries, in any transfer syntax.

A study's objects differ from one another in their UIDs, instance numbers and last pixels, so that no two have the
same bytes. They have no sequences and no group lengths, so a sender that parses them sends the bytes of the file.
"""

import functools
import os
import secrets
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)

from tests.patients import BIRTH_DATE, PATIENT_ID_PREFIX, PATIENT_NAME

PRIVATE_SOP_CLASS = "1.2.826.0.1.3680043.8.498.77.1"

# Of the length of every UID that `new_uid` makes, so that one can stand for the other in rendered bytes.
_PLACEHOLDERS = {
    "study": "2.25." + "1" * 38,
    "series": "2.25." + "2" * 38,
    "instance": "2.25." + "3" * 38,
}
_NUMBER = "987654"


def new_uid() -> str:
    """A UID that nobody has, always of 43 characters."""
    return f"2.25.{10**37 + secrets.randbelow(9 * 10**37)}"


@dataclass(frozen=True)
class Study:
    """A study on disk.

    Args:
        directory: of its files, and of nothing else.
        patient_id, uid: Patient ID and Study Instance UID.
        files: its objects by SOP Instance UID, in the order of their instance numbers.
    """

    directory: Path
    patient_id: str
    uid: str
    files: dict[str, Path]

    def part(self, start: int, stop: int) -> list[Path]:
        """Some of its files."""
        return list(self.files.values())[start:stop]


def make_study(
    directory: Path,
    patient_id: str,
    instances: int,
    *,
    rows: int = 512,
    modality: str = "CT",
    series: int = 1,
    study_uid: str = "",
    sop_class: str = "",
    patient_name: str = PATIENT_NAME,
) -> Study:
    """Write a study of so many objects in explicit VR, little endian.

    Args:
        directory: is made when it is missing.
        patient_id: Patient ID; it begins with `PAT-`, so that a log that holds it is found.
        instances: how many objects, spread evenly over the series.
        rows: rows and columns: 512 makes about 526 kB an object, 64 about 9 kB.
        modality: `CT` or `MR`.
        series: how many series.
        study_uid: Study Instance UID; a new one by default.
        sop_class: SOP Class UID; the modality's own by default.
        patient_name: Patient's Name.
    """
    assert patient_id.startswith(PATIENT_ID_PREFIX), f"{patient_id!r} could not be told from other words in logs"
    directory.mkdir(parents=True, exist_ok=True)
    head, pixels = _template(modality, rows, patient_id, patient_name, sop_class)
    study_uid = study_uid or new_uid()
    series_uids = [new_uid() for _ in range(series)]
    files = {}
    for number in range(1, instances + 1):
        uid = new_uid()
        values = {"study": study_uid, "series": series_uids[(number - 1) * series // instances], "instance": uid}
        own = head.replace(_NUMBER.encode(), b"%06d" % number)
        for name, value in values.items():
            own = own.replace(_PLACEHOLDERS[name].encode(), value.encode())
        path = directory / f"{modality.lower()}-{number:05d}-{uid[-8:]}.dcm"
        with path.open("wb") as file:
            file.write(own)
            file.write(memoryview(pixels)[:-4])
            file.write(struct.pack("<I", number))
        files[uid] = path
    return Study(directory, patient_id, study_uid, files)


@functools.cache
def _template(modality: str, rows: int, patient_id: str, patient_name: str, sop_class: str) -> tuple[bytes, bytes]:
    """One object with placeholders: what precedes its pixels' values, and these."""
    dataset = _sample(modality)
    dataset.PatientID = patient_id
    dataset.PatientName = patient_name
    dataset.PatientBirthDate = BIRTH_DATE
    dataset.StudyInstanceUID = UID(_PLACEHOLDERS["study"])
    dataset.SeriesInstanceUID = UID(_PLACEHOLDERS["series"])
    dataset.SOPInstanceUID = UID(_PLACEHOLDERS["instance"])
    dataset.InstanceNumber = _NUMBER
    if sop_class:
        dataset.SOPClassUID = UID(sop_class)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    pixels = _tile(dataset.PixelData, 2 * dataset.Columns, rows)
    dataset.Rows = dataset.Columns = rows
    dataset["PixelData"].value = pixels
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    data = buffer.getvalue()
    return data[: -len(pixels)], pixels


def _tile(pixels: bytes, width: int, rows: int) -> bytes:
    """An image of two bytes a pixel, repeated or cut to so many rows and columns; `width` is of its lines in bytes."""
    lines = [pixels[start : start + width] for start in range(0, len(pixels), width)]
    wide = [(line * (2 * rows // width + 1))[: 2 * rows] for line in lines]
    return b"".join(wide[row % len(wide)] for row in range(rows))


def _sample(modality: str) -> pydicom.Dataset:
    """A sample that pydicom carries, without sequences, private elements and padding, its pixels taken as unsigned."""
    dataset = pydicom.dcmread(str(get_testdata_file(f"{modality}_small.dcm", download=False)))
    dataset.remove_private_tags()
    for element in list(dataset):
        if element.VR == "SQ" or element.tag > 0x7FE00010:
            del dataset[element.tag]
    dataset.PixelRepresentation = 0  # near-lossless JPEG-LS knows no signed pixels
    return dataset


def dataset_bytes(path: Path) -> bytes:
    """What follows the file meta group: the dataset as it travels."""
    data = path.read_bytes()
    return data[dataset_offset(data) :]


def dataset_offset(data: bytes) -> int:
    """Where the dataset of a file begins (PS3.10 §7.1): after preamble, prefix and file meta group."""
    if data[128:132] != b"DICM" or data[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
        raise ValueError("no DICOM file with a group length")
    return 144 + int(struct.unpack_from("<I", data, 140)[0])


_DCMTK: dict[str, tuple[str, ...]] = {
    "1.2.840.10008.1.2": ("dcmconv", "+ti"),
    "1.2.840.10008.1.2.1": ("dcmconv", "+te"),
    "1.2.840.10008.1.2.2": ("dcmconv", "+tb"),
    "1.2.840.10008.1.2.1.99": ("dcmconv", "+td"),
    "1.2.840.10008.1.2.4.50": ("dcmcjpeg", "+eb"),
    "1.2.840.10008.1.2.4.51": ("dcmcjpeg", "+ee"),
    "1.2.840.10008.1.2.4.57": ("dcmcjpeg", "+el"),
    "1.2.840.10008.1.2.4.70": ("dcmcjpeg", "+e1"),
    "1.2.840.10008.1.2.4.80": ("dcmcjpls", "+el"),
    "1.2.840.10008.1.2.4.81": ("dcmcjpls", "+en"),
    "1.2.840.10008.1.2.5": ("dcmcrle",),
}
ENCODED_BY_DCMTK = tuple(_DCMTK)


def convert(study: Study, directory: Path, transfer_syntax: str) -> Study:
    """The same study in another transfer syntax, by DCMTK's encoders; UIDs stay.

    Raises:
        KeyError: DCMTK 3.6.7 has no encoder for it; see `encapsulated`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    program, *options = _DCMTK[transfer_syntax]
    keep_uid = ["+un"] if program in ("dcmcjpeg", "dcmcjpls", "dcmcrle") else []
    files = {}
    for uid, source in study.files.items():
        files[uid] = directory / source.name
        subprocess.run([program, *options, *keep_uid, source, files[uid]], check=True, capture_output=True)
    return Study(directory, study.patient_id, study.uid, files)


def encapsulated(study: Study, directory: Path, transfer_syntax: str, frames: Sequence[bytes]) -> Study:
    """The same study with given code streams as its pixel data, such as JPEG 2000 or MPEG."""
    directory.mkdir(parents=True, exist_ok=True)
    files = {}
    for uid, source in study.files.items():
        dataset = pydicom.dcmread(source)
        dataset.PixelData = encapsulate(list(frames))
        dataset["PixelData"].is_undefined_length = True
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax)
        files[uid] = directory / source.name
        dataset.save_as(files[uid], enforce_file_format=True)
    return Study(directory, study.patient_id, study.uid, files)


def jpeg2000_frame() -> bytes:
    """A real JPEG 2000 code stream, from a sample of pydicom."""
    dataset = pydicom.dcmread(str(get_testdata_file("MR_small_jp2klossless.dcm", download=False)))
    return next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))


def make_huge(path: Path, patient_id: str, size_bytes: int) -> Study:
    """One multi-frame object of so many bytes; its pixels are a hole in the file, so it takes no space.

    Args:
        path: of the file.
        patient_id: Patient ID.
        size_bytes: of the pixel data; below 4 GiB.
    """
    dataset = _sample("CT")
    frame_bytes = 2 * 512 * 512
    dataset.SOPClassUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    dataset.SOPInstanceUID = UID(new_uid())
    dataset.StudyInstanceUID = UID(new_uid())
    dataset.SeriesInstanceUID = UID(new_uid())
    dataset.PatientID, dataset.PatientName, dataset.PatientBirthDate = patient_id, PATIENT_NAME, BIRTH_DATE
    dataset.Rows = dataset.Columns = 512
    dataset.NumberOfFrames = size_bytes // frame_bytes
    del dataset.PixelData
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    length = size_bytes // frame_bytes * frame_bytes
    with path.open("ab") as file:
        file.write(b"\xe0\x7f\x10\x00OW\x00\x00" + struct.pack("<I", length))
        file.flush()
        os.truncate(file.fileno(), file.tell() + length)
    return Study(path.parent, patient_id, str(dataset.StudyInstanceUID), {str(dataset.SOPInstanceUID): path})
