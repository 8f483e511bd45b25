"""DICOMweb sources (PS3.18): QIDO-RS in pages of JSON, WADO-RS streamed part by part to the disk."""

import contextlib
from collections.abc import Iterator
from typing import Any

import msgspec

from actors.retriever.sources.base import DeniedError, DicomSource, Sink, paced
from actors.retriever.sources.http import HttpCalls, NotThereError
from protocol.dicomweb.multipart import read_parts
from protocol.inference import AccessionStudies, HttpSource, PatientStudies, Selection

_JSON = "application/dicom+json"
# Whatever transfer syntax it has: as it comes (PS3.18 §8.7.3.5.2).
_INSTANCES = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_PAGE = 1000
_MOST_PAGES = 10_000

_SOP_INSTANCE, _ACCESSION, _PATIENT_ID, _STUDY, _SERIES = "00080018", "00080050", "00100020", "0020000D", "0020000E"


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
        return list(dict.fromkeys(_value(each, _STUDY) for each in found if _value(each, tag) == value))

    def instances_of(self, selection: Selection) -> list[tuple[str, str]] | None:
        """List a study or series."""
        series = f"/series/{selection.series_uid}" if selection.series_uid else ""
        found = self._search(f"/studies/{selection.study_uid}{series}/instances", {})
        try:
            listed = [(_value(each, _SERIES) or selection.series_uid, _value(each, _SOP_INSTANCE)) for each in found]
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
        with self._calls.get(path, _INSTANCES) as response:
            content_type = response.headers.get("content-type", "")
            for part in read_parts(paced(response.iter_bytes()), content_type):
                sink.take(part, selection)

    def _search(self, path: str, params: dict[str, str]) -> Iterator[dict[str, Any]]:
        """What a search finds, page by page, since a study may have very many instances.

        A server that ignores offset repeats itself, which ends it.
        """
        seen: set[int] = set()
        for page in range(_MOST_PAGES):
            rows = _rows(self._calls.read(path, _JSON, {**params, "limit": _PAGE, "offset": page * _PAGE}))
            before = len(seen)
            for row in rows:
                key = hash((_value(row, _STUDY), _value(row, _SERIES), _value(row, _SOP_INSTANCE)))
                if key not in seen:
                    seen.add(key)
                    yield row
            if len(rows) < _PAGE or len(seen) == before:
                return


def _rows(data: bytes) -> list[dict[str, Any]]:
    if not data.strip():
        return []  # 204
    try:
        return msgspec.json.decode(data, type=list[dict[str, Any]])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DeniedError("its answer to a search is no DICOM JSON") from error


def _value(row: dict[str, Any], tag: str) -> str:
    """The first value of an element of the DICOM JSON model (PS3.18 §F.2)."""
    element = row.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return str(values[0]).strip() if isinstance(values, list) and values and values[0] is not None else ""
