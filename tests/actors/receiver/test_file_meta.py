"""Preamble and file meta group."""

from io import BytesIO

import pydicom
import pytest

from actors.receiver.file_meta import FileMeta, presentation_address
from protocol.dimse import IMPLEMENTATION_CLASS_UID
from tests.actors.receiver import raw


@pytest.mark.parametrize("uid", ["1.2.3", "1.2.34"])
def test_pydicom_reads_it_and_every_element_is_right(uid: str) -> None:
    meta = FileMeta(
        sop_class=raw.CT_IMAGE,
        transfer_syntax=raw.EXPLICIT,
        calling="SENDER",
        called="ABC",
        peer="dicom://10.0.0.1:50000",
        local="dicom://[fe80::1]:104",
    )
    read = pydicom.dcmread(BytesIO(meta.encode(uid.encode()) + raw.dataset(uid)))
    group = read.file_meta
    assert group.FileMetaInformationGroupLength == len(meta.encode(uid.encode())) - 144
    assert group.FileMetaInformationVersion == b"\0\1"
    assert group.MediaStorageSOPClassUID == raw.CT_IMAGE
    assert group.MediaStorageSOPInstanceUID == uid
    assert group.TransferSyntaxUID == raw.EXPLICIT
    assert group.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert group.SourceApplicationEntityTitle == group.SendingApplicationEntityTitle == "SENDER"
    assert group.ReceivingApplicationEntityTitle == "ABC"
    assert group.SourcePresentationAddress == group.SendingPresentationAddress == "dicom://10.0.0.1:50000"
    assert group.ReceivingPresentationAddress == "dicom://[fe80::1]:104"
    assert read.SOPInstanceUID == uid


def test_addresses() -> None:
    assert presentation_address("10.0.0.1", 104) == "dicom://10.0.0.1:104"
    assert presentation_address("::1", 104) == "dicom://[::1]:104"
