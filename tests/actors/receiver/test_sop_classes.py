"""Which abstract syntaxes are taken for storage."""

import pytest
from pynetdicom import sop_class
from pynetdicom.service_class import NonPatientObjectStorageServiceClass, StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

from actors.receiver.sop_classes import is_storage
from protocol.dimse import VERIFICATION

ALL = [value for value in vars(sop_class).values() if isinstance(value, sop_class.SOPClass)]
STORAGE = {
    uid for uid in ALL if uid_to_service_class(uid) in (StorageServiceClass, NonPatientObjectStorageServiceClass)
}


def test_pynetdicom_and_we_agree_on_every_class_that_it_knows() -> None:
    assert len(STORAGE) > 150
    taken = {uid for uid in ALL if is_storage(uid)}
    assert taken >= STORAGE
    # DICOS and DICONDE objects are stored too; nothing else is.
    assert all(".5.1.4.1.1." in uid for uid in taken - STORAGE), taken - STORAGE


@pytest.mark.parametrize(
    "uid",
    [
        "1.2.840.10008.5.1.4.1.1.5",  # Nuclear Medicine Image Storage, retired
        "1.2.840.10008.5.1.4.1.1.12.3",  # X-Ray Angiographic Bi-Plane, retired
        "1.2.840.10008.5.1.4.1.1.999.7",  # of a later standard
        "1.3.12.2.1107.5.9.1",  # Siemens CSA non-image
        "2.25.1234",
    ],
)
def test_retired_private_and_future_classes_are_stored(uid: str) -> None:
    assert is_storage(uid)


@pytest.mark.parametrize(
    "uid",
    [
        VERIFICATION,
        "1.2.840.10008.1.20.1",  # Storage Commitment Push Model
        "1.2.840.10008.1.20.2",  # Storage Commitment Pull Model, retired
        "1.2.840.10008.5.1.4.1.2.2.1",  # Study Root Query/Retrieve - FIND
        "1.2.840.10008.5.1.4.31",  # Modality Worklist
        "1.2.840.10008.5.1.1.9",  # Basic Grayscale Print Management Meta
        "1.2.840.10008.3.1.2.3.3",  # Modality Performed Procedure Step
        "1.2.840.10008.1.3.10",  # Media Storage Directory Storage
        "1.2.840.10008.1.2.1",  # a transfer syntax
        "1.2.840.10008.3.1.1.1",  # the application context
        "",
        "no uid",
        "1." + "2" * 70,
    ],
)
def test_other_services_and_what_is_no_class_are_not(uid: str) -> None:
    assert not is_storage(uid)
