"""DICOMweb sources (PS3.18): QIDO-RS in pages of JSON, WADO-RS streamed part by part to the disk."""

import contextlib
from collections.abc import Iterator
from typing import Any

import msgspec

from actors.retriever.sources.base import DeniedError, DicomSource, Sink
from actors.retriever.sources.http import HttpCalls, NotThereError
from protocol.dicomweb.multipart import read_parts
from protocol.dimse.uids import is_uid_value
from protocol.inference import AccessionStudies, HttpSource, PatientStudies, Selection

_JSON = "application/dicom+json"
# Whatever transfer syntax it has: as it comes (PS3.18 §8.7.3.5.2).
_INSTANCES = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_PAGE = 1000
_MOST_PAGES = 1000
_MOST_OBJECTS = 2_000_000  # of JSON in an answer: rows, and their elements

_SOP_INSTANCE, _ACCESSION, _PATIENT_ID, _STUDY, _SERIES = "00080018", "00080050", "00100020", "0020000D", "0020000E"


class _Row(msgspec.Struct):
    """A match."""

    sop_instance: Any = msgspec.field(name=_SOP_INSTANCE, default=None)
    accession: Any = msgspec.field(name=_ACCESSION, default=None)
    patient_id: Any = msgspec.field(name=_PATIENT_ID, default=None)
    study: Any = msgspec.field(name=_STUDY, default=None)
    series: Any = msgspec.field(name=_SERIES, default=None)


class DicomWeb(DicomSource):
    """One DICOMweb server.

    Args:
        source: where and as whom.
    """

    def __init__(self, source: HttpSource) -> None:
        self._calls = HttpCalls(source)

    def studies_of(self, wanted: PatientStudies | AccessionStudies) -> list[str]:
        """Search for studies."""
        tag, value = (
            (_PATIENT_ID, wanted.patient_id)
            if isinstance(wanted, PatientStudies)
            else (_ACCESSION, wanted.accession_number)
        )
        found = self._search("/studies", {tag: value, "includefield": tag})
        # A server that does not know the key answers with everybody's studies.
        matching = (
            each for each in found if _value(each.patient_id if tag == _PATIENT_ID else each.accession) == value
        )
        return list(dict.fromkeys(uid for each in matching if (uid := _uid(each.study))))

    def instances_of(self, selection: Selection) -> list[tuple[str, str]] | None:
        """List a study or series."""
        series = f"/series/{selection.series_uid}" if selection.series_uid else ""
        found = self._search(f"/studies/{selection.study_uid}{series}/instances", {})
        try:
            listed = [(_uid(each.series) or selection.series_uid, _uid(each.sop_instance)) for each in found]
        except DeniedError:
            return None  # also 404: it may be one that only retrieves
        return list(dict.fromkeys(listed)) if all(series and sop for series, sop in listed) else None

    def fetch(self, selection: Selection, sink: Sink) -> None:
        """Retrieve; each part goes to the disk as it comes."""
        path = f"/studies/{selection.study_uid}"
        if selection.series_uid:
            path += f"/series/{selection.series_uid}"
        if not selection.sop_instance_uids:
            self._retrieve(path, selection, sink)
        for uid in selection.sop_instance_uids:
            if not sink.has(uid):
                # One that is not there does not keep the others away.
                with contextlib.suppress(NotThereError):
                    self._retrieve(f"{path}/instances/{uid}", selection, sink)

    def close(self) -> None:
        """Close connections."""
        self._calls.close()

    def _retrieve(self, path: str, selection: Selection, sink: Sink) -> None:
        sink.check()
        with self._calls.get(path, _INSTANCES) as answer:
            for part in read_parts(answer.chunks(), answer.content_type):
                sink.take(part, selection)

    def _search(self, path: str, params: dict[str, str]) -> Iterator[_Row]:
        """What a search finds, page by page, since a study may have very many instances.

        A server that ignores offset repeats itself, which ends it.
        """
        seen: set[int] = set()
        for page in range(_MOST_PAGES):
            rows = _rows(self._calls.read(path, _JSON, {**params, "limit": _PAGE, "offset": page * _PAGE}))
            before = len(seen)
            for row in rows:
                key = hash((_value(row.study), _value(row.series), _value(row.sop_instance)))
                if key not in seen:
                    seen.add(key)
                    yield row
            if len(rows) < _PAGE or len(seen) == before:
                return


def _rows(data: bytes) -> list[_Row]:
    if not data.strip():
        return []  # 204
    if data.count(b"{") > _MOST_OBJECTS:
        raise DeniedError("its answer to a search is too large")
    try:
        return msgspec.json.decode(data, type=list[_Row])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DeniedError("its answer to a search is no DICOM JSON") from error


def _value(element: Any) -> str:
    """The first value of an element of the DICOM JSON model (PS3.18 §F.2)."""
    values = element.get("Value") if isinstance(element, dict) else None
    return str(values[0]).strip() if isinstance(values, list) and values and values[0] is not None else ""


def _uid(element: Any) -> str:
    """A UID, of which a path may be made; empty when it is none."""
    value = _value(element)
    return value if is_uid_value(value.encode("ascii", "replace")) else ""
