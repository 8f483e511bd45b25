"""What a retrieved file is: read from its header, as far as the last element that is needed, never pixels."""

import logging
import os
import re
import warnings
import zlib
from collections.abc import Collection
from io import BytesIO
from typing import Any, BinaryIO

import msgspec
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_partial
from pydicom.uid import DeflatedExplicitVRLittleEndian

_PATIENT_ID, _STUDY, _SERIES, _SOP_INSTANCE = 0x00100020, 0x0020000D, 0x0020000E, 0x00080018
_UID = re.compile(r"[0-9.]{1,64}", re.ASCII)
_PREFIX_BYTES = 132  # preamble and DICM (PS3.10 §7.1)
# A deflated dataset may inflate a thousandfold: what identifies it stands near its beginning.
_DEFLATED_BYTES = 1024 * 1024
_INFLATED_BYTES = 8 * 1024 * 1024


# A value that breaks a rule is none of our business, and a warning would name it.
config.settings.reading_validation_mode = config.IGNORE
logging.getLogger("pydicom").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="pydicom")


class NotDicomError(Exception):
    """The file is no DICOM file, or lacks an identifier; the text says what, without patient data."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What an instance is.

    Args:
        attributes: the elements asked for, GGGGEEEE to text; several values joined by backslash.
    """

    sop_instance_uid: str
    study_uid: str
    series_uid: str
    patient_id: str
    attributes: dict[str, str] = {}


def identify(path: str | os.PathLike[str], tags: Collection[str]) -> Identity:
    """Read what a file is.

    Args:
        path: of the file.
        tags: elements for `Identity.attributes`, as GGGGEEEE.

    Raises:
        NotDicomError: it cannot be told.
        OSError: the file cannot be read.
    """
    wanted = {int(tag, 16) for tag in tags} | {_PATIENT_ID, _STUDY, _SERIES, _SOP_INSTANCE}
    with open(path, "rb") as file:
        if file.read(_PREFIX_BYTES)[128:] != b"DICM":
            raise NotDicomError("it is no DICOM file (PS3.10)")
        file.seek(0)
        try:
            dataset = _header(file, wanted)
            found = {tag: _text(dataset, tag) for tag in wanted}
        except OSError:
            raise
        except Exception as error:  # whatever pydicom makes of broken data
            raise NotDicomError(f"its header cannot be read ({type(error).__name__})") from error
    for tag in (_SOP_INSTANCE, _STUDY, _SERIES):
        if not _UID.fullmatch(found[tag]) or not found[tag].strip("."):
            raise NotDicomError(f"its element {tag:08X} is no UID")
    return Identity(
        sop_instance_uid=found[_SOP_INSTANCE],
        study_uid=found[_STUDY],
        series_uid=found[_SERIES],
        patient_id=found[_PATIENT_ID],
        attributes={tag: found[int(tag, 16)] for tag in tags if found[int(tag, 16)]},
    )


def _header(file: BinaryIO, wanted: set[int]) -> Dataset:
    last = max(wanted)

    def beyond(tag: Any, _: Any, __: Any) -> bool:
        return int(tag) > last

    # A first look, that ends before the dataset, tells whether it is deflated.
    meta = read_partial(file, stop_when=lambda *_: True).file_meta
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        file.seek(0)
        return read_partial(file, stop_when=beyond, specific_tags=sorted(wanted), defer_size=4096)
    file.seek(_PREFIX_BYTES)
    head = file.read(12)  # (0002,0000) tells how long the group is
    file.seek(_PREFIX_BYTES + 12 + int.from_bytes(head[8:12], "little"))
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(_DEFLATED_BYTES), _INFLATED_BYTES)
    return read_dataset(BytesIO(inflated), False, True, stop_when=beyond, specific_tags=sorted(wanted))


def _text(dataset: Dataset, tag: int) -> str:
    element = dataset.get(tag)
    value = None if element is None else element.value
    if value is None or isinstance(value, bytes | Dataset):
        return ""
    if isinstance(value, str):
        return value.strip()
    try:
        return "\\".join(str(each) for each in value)
    except TypeError:
        return str(value)
