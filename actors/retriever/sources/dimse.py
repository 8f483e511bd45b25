"""DIMSE sources: C-FIND, and C-MOVE to ourselves or C-GET, by pynetdicom (PS3.4 Annex C).

What a move brings comes in at the DICOM port and is found among the arrivals. What a C-GET brings comes in on its own
association; pynetdicom writes it to a file in pieces, which is then taken over.
"""

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import AllStoragePresentationContexts, StoragePresentationContexts, build_role
from pynetdicom.sop_class import (  # type: ignore[attr-defined] # made when it is imported
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from actors.retriever.arrivals import Arrivals
from actors.retriever.shelf import clear_incoming, incoming
from actors.retriever.sources.base import (
    SILENCE_SECONDS,
    AwayError,
    DeniedError,
    DicomSource,
    PausedError,
    Sink,
    StoppedError,
)
from actors.retriever.sources.wire import bounded, keep_answers
from protocol.dimse.uids import is_uid_value
from protocol.errors import AdapterError, StorageError
from protocol.inference import AccessionStudies, DimseSource, PatientStudies, Selection
from protocol.spool import DIRECTORY_MODE, Spool, sync_file

_CONNECT_SECONDS = 10.0
_ASSOCIATE_SECONDS = 30.0
_ANSWER_SECONDS = SILENCE_SECONDS
_COLLECT_SECONDS = 1.0
_MOST_MATCHES = 100_000
_MOST_BYTES = 256 * 1024 * 1024  # of all matches, or of all responses to a C-MOVE
_MOST_CONTEXTS = 126  # of the 128 that an association can have
_REJECTED_TRANSIENT = 2
_SUCCESS, _FAILURE_NO_RESOURCES, _STORED_NOT = 0x0000, 0xA700, 0xC000
_UNKNOWN_DESTINATION = 0xA801
_COMPRESSED = (
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.5",
)
_PLAIN = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")


class Incoming:
    """Where C-GETs' files are written before they are taken over; one for the process.

    Args:
        spool: in whose file system it is.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._directory = incoming(spool)
        self._lock = threading.Lock()
        self._users = 0

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """While a C-GET is under way; what the last one leaves is deleted."""
        with self._lock:
            self._users += 1
            self._directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            _config.STORE_RECV_CHUNKED_DATASET = True
            tempfile.tempdir = str(self._directory)
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    clear_incoming(self._spool)


class Dimse(DicomSource):
    """One archive.

    Args:
        source: where.
        own_title: our AE title, as SCU and as the destination of moves.
        arrivals: of this process.
        incoming: of this process.
    """

    def __init__(self, source: DimseSource, own_title: str, arrivals: Arrivals, incoming: Incoming) -> None:
        self._source = source
        self._own_title = own_title
        self._arrivals = arrivals
        self._incoming = incoming

    def close(self) -> None:
        """Nothing stays open between two calls."""

    def studies_of(self, wanted: PatientStudies | AccessionStudies) -> list[str]:
        """C-FIND at study level."""
        keyword, value = (
            ("PatientID", wanted.patient_id)
            if isinstance(wanted, PatientStudies)
            else ("AccessionNumber", wanted.accession_number)
        )
        found = self._find("STUDY", {keyword: value, "StudyInstanceUID": ""})
        # An archive that does not match by the key answers with everybody's studies.
        matching = [each for each in found if str(each.get(keyword, "")).strip() == value]
        return list(
            dict.fromkeys(_uid(each, "StudyInstanceUID") for each in matching if _uid(each, "StudyInstanceUID"))
        )

    def instances_of(self, selection: Selection) -> list[tuple[str, str]] | None:
        """C-FIND at series and image level."""
        keys = {"StudyInstanceUID": selection.study_uid}
        try:
            series = [selection.series_uid] if selection.series_uid else self._series(keys)
            found: list[tuple[str, str]] = []
            for uid in series:
                images = self._find("IMAGE", {**keys, "SeriesInstanceUID": uid, "SOPInstanceUID": ""})
                found += [(uid, _uid(each, "SOPInstanceUID")) for each in images]
        except DeniedError:
            return None
        return list(dict.fromkeys(each for each in found if each[1]))

    def _series(self, keys: dict[str, Any]) -> list[str]:
        found = self._find("SERIES", {**keys, "SeriesInstanceUID": ""})
        return list(dict.fromkeys(uid for uid in (_uid(each, "SeriesInstanceUID") for each in found) if uid))

    def fetch(self, selection: Selection, sink: Sink) -> None:
        """C-MOVE or C-GET."""
        if self._source.uses_get:
            with self._incoming.open():
                self._get(selection, sink)
            return
        self._arrivals.collect(selection, sink)  # what came for a process that was killed
        with self._arrivals.expected(self._source.host, selection.study_uid):
            self._move(selection, sink)
            self._arrivals.collect(selection, sink)

    def _find(self, level: str, keys: dict[str, Any]) -> list[Dataset]:
        model = StudyRootQueryRetrieveInformationModelFind
        found: list[Dataset] = []
        with self._association([(model, _PLAIN[:2])]) as association:
            for status, match in association.send_c_find(_query(level, keys), model):
                code = _code(status)
                if code in (0xFF00, 0xFF01) and match is not None:
                    found.append(match)
                    if len(found) > _MOST_MATCHES:
                        raise DeniedError(f"its C-FIND has more than {_MOST_MATCHES} matches")
                elif code != _SUCCESS:
                    raise DeniedError(f"its C-FIND at level {level} ended with status 0x{code:04X}")
        return found

    def _move(self, selection: Selection, sink: Sink) -> None:
        model = StudyRootQueryRetrieveInformationModelMove
        collect_at = time.monotonic() + _COLLECT_SECONDS
        with self._association([(model, _PLAIN[:2])]) as association:
            for status, _ in association.send_c_move(_wanted(selection), self._own_title, model):
                self._judge("C-MOVE", status)
                sink.check()
                if time.monotonic() >= collect_at:
                    self._arrivals.collect(selection, sink)
                    collect_at = time.monotonic() + _COLLECT_SECONDS

    def _get(self, selection: Selection, sink: Sink) -> None:
        model = StudyRootQueryRetrieveInformationModelGet
        stopped: list[AdapterError] = []

        def store(event: evt.Event) -> int:
            return _take(event, selection, sink, stopped)

        contexts = [(str(each.abstract_syntax), _PLAIN + _COMPRESSED) for each in _storage_contexts()]
        roles = [build_role(uid, scp_role=True) for uid, _ in contexts]
        with self._association([(model, _PLAIN[:2]), *contexts], roles, store) as association:
            for status, _ in association.send_c_get(_wanted(selection), model):
                if stopped:
                    raise stopped[0]
                self._judge("C-GET", status)
                sink.check()

    def _judge(self, operation: str, status: Dataset) -> None:
        """Look at a response; that some instances failed is found by comparing what is there."""
        code = _code(status)
        if code == _UNKNOWN_DESTINATION:
            raise DeniedError(f"it does not know {self._own_title} as a move destination: register it there")
        if code not in (_SUCCESS, 0xFF00, 0xFF01) and code >> 12 != 0xB:
            raise DeniedError(f"its {operation} ended with status 0x{code:04X}")

    @contextlib.contextmanager
    def _association(
        self,
        contexts: list[tuple[str, tuple[str, ...]]],
        roles: list[SCP_SCU_RoleSelectionNegotiation] | None = None,
        store: Any = None,
    ) -> Iterator[Association]:
        """An association that is aborted when the block raises."""
        entity = AE(ae_title=self._own_title)
        entity.connection_timeout = _CONNECT_SECONDS
        entity.acse_timeout = _ASSOCIATE_SECONDS
        entity.dimse_timeout = entity.network_timeout = _ANSWER_SECONDS
        for abstract_syntax, transfer_syntaxes in contexts:
            entity.add_requested_context(abstract_syntax, list(transfer_syntaxes))
        association = entity.associate(
            self._source.host,
            self._source.port,
            ae_title=self._source.ae_title,
            ext_neg=list(roles or ()),
            evt_handlers=[
                (evt.EVT_CONN_OPEN, bounded(0 if store else _MOST_BYTES)),
                *([(evt.EVT_C_STORE, store)] if store else []),
            ],
            max_pdu=131072,
        )
        if not association.is_established:
            raise _not_established(association)
        keep_answers(association)
        try:
            yield association
        except ValueError as error:  # pynetdicom: no accepted context for this operation
            association.abort()
            raise DeniedError("it does not offer this operation at study root") from error
        except RuntimeError as error:
            raise AwayError("its association is gone") from error
        except BaseException:
            association.abort()
            raise
        association.release()


def _storage_contexts() -> list[Any]:
    """The usual storage SOP classes, and as many of the others as an association has room for."""
    usual = {each.abstract_syntax for each in StoragePresentationContexts}
    others = [each for each in AllStoragePresentationContexts if each.abstract_syntax not in usual]
    return [*StoragePresentationContexts, *others][:_MOST_CONTEXTS]


def _take(event: evt.Event, selection: Selection, sink: Sink, stopped: list[AdapterError]) -> int:
    """A C-STORE of a C-GET; returns its status."""
    written = event.request._dataset_file
    if written is not None:
        written.close()
    if event.dataset_path is None:
        return _STORED_NOT  # there is no dataset
    path = Path(event.dataset_path)
    try:
        if stopped:
            return _FAILURE_NO_RESOURCES
        sink.check()
        with open(path, "rb+") as file:
            sync_file(file.fileno())
        sink.take_file(path, selection)
    except (PausedError, StoppedError, StorageError) as error:
        stopped.append(error)
        return _FAILURE_NO_RESOURCES
    except OSError as error:
        stopped.append(StorageError(f"a retrieved file could not be kept: {error.strerror}"))
        return _FAILURE_NO_RESOURCES
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    return _SUCCESS


def _query(level: str, keys: dict[str, Any]) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        if isinstance(value, str) and not value.isascii():
            query.SpecificCharacterSet = "ISO_IR 192"
        setattr(query, keyword, value)
    return query


def _wanted(selection: Selection) -> Dataset:
    keys: dict[str, Any] = {"StudyInstanceUID": selection.study_uid}
    level = "STUDY"
    if selection.series_uid:
        level, keys["SeriesInstanceUID"] = "SERIES", selection.series_uid
    if selection.sop_instance_uids:
        level, keys["SOPInstanceUID"] = "IMAGE", list(selection.sop_instance_uids)
    return _query(level, keys)


def _uid(match: Dataset, keyword: str) -> str:
    """A UID of a match; empty when it is none."""
    value = str(match.get(keyword) or "").strip()
    return value if is_uid_value(value.encode("ascii", "replace")) else ""


def _code(status: Dataset) -> int:
    """The status of a response.

    Raises:
        AwayError: there was none: a deadline passed, or the association broke.
    """
    if "Status" not in status:
        raise AwayError("it did not answer in time, or broke off")
    return int(status.Status)


def _not_established(association: Association) -> AdapterError:
    if association.is_rejected:
        primitive = association.acceptor.primitive
        if primitive is not None and primitive.result != _REJECTED_TRANSIENT:
            return DeniedError(f"it rejects our association: {primitive.reason_str}")
        return AwayError("it rejects our association for now")
    return AwayError("no association could be opened")
