"""The SCU: a batch of files to one destination, over as many associations as it takes, one after the other.

What one association cannot do is told from what none can. An association that breaks in the middle of an object is
followed by another one that begins with this object; an object on which a second one breaks too is reported as failed,
so that it does not hold up the others. So is one that is not answered in time. A peer that takes nothing on three
associations in a row, that rejects one, or that is too slow for two objects in a row or for the only one, is down:
what was not reported is still to be sent.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence

import msgspec

from actors.exporter.part10 import DicomFile, NotDicomError, read_file
from actors.exporter.scu.association import Association, FileChangedError
from actors.exporter.scu.negotiation import Pair
from actors.exporter.scu.status import outcome_of
from actors.exporter.scu.values import BrokenError, Deadlines, RejectedError, ScuDestination, TooSlowError
from actors.exporter.sender import DestinationDownError, Outcome, OutgoingFile, Report, Sender
from protocol.config.settings import Scu
from protocol.dimse import VERIFICATION
from protocol.dimse.items import MOST_CONTEXTS
from protocol.logs import EventLogger

_IMPLICIT_LITTLE = "1.2.840.10008.1.2"
_MOST_BREAKS = 3
"""Associations in a row that break before anything was answered on them."""
_MOST_SLOW = 2
"""Objects in a row that are not answered in time."""


class _Outgoing(msgspec.Struct, frozen=True):
    """A file that can be sent."""

    file: OutgoingFile
    dicom: DicomFile

    @property
    def pair(self) -> Pair:
        return self.dicom.sop_class, self.dicom.transfer_syntax


class ScuSender(Sender):
    """Delivers by C-STORE.

    Args:
        destination: whom to call.
        settings: our AE title, and what is logged.
        deadlines: of every wait.
    """

    def __init__(self, destination: ScuDestination, settings: Scu, deadlines: Deadlines | None = None) -> None:
        self._destination = destination
        self._settings = settings
        self._deadlines = deadlines or Deadlines()
        self._log = EventLogger("adapter.exporter.scu")
        self._broken_on: set[str] = set()  # URIs of files on which an association has broken
        self._breaks = 0
        self._slow = 0
        self._answered = False

    def deliver(
        self, files: Sequence[OutgoingFile], report: Callable[[Report], None], stopping: threading.Event
    ) -> None:
        """See `Sender`."""
        by_pair: dict[Pair, list[_Outgoing]] = {}
        for file in files:
            if stopping.is_set():
                return
            try:
                outgoing = _Outgoing(file, read_file(file.path))
            except NotDicomError as error:
                report(Report(uri=file.uri, outcome=Outcome.REFUSED, reason=str(error)))
            except OSError as error:
                report(Report(uri=file.uri, outcome=Outcome.FAILED, reason=_unreadable(error)))
            else:
                by_pair.setdefault(outgoing.pair, []).append(outgoing)
        pairs = list(by_pair)
        for first in range(0, len(pairs), MOST_CONTEXTS):
            some = pairs[first : first + MOST_CONTEXTS]
            waiting = [outgoing for pair in some for outgoing in by_pair[pair]]
            waiting.reverse()  # the next one is the last one
            while waiting and not stopping.is_set():
                self._one_association(some, waiting, report, stopping)

    def probe(self) -> str:
        """See `Sender`: C-ECHO."""
        started = time.monotonic()
        association = self._associate([(VERIFICATION, _IMPLICIT_LITTLE)])
        if not association.agreement.contexts:
            association.release()
            raise DestinationDownError(
                f"{self._told()} accepts the association, but does not answer C-ECHO: it may take objects all the same"
            )
        try:
            status = association.echo()
        except BrokenError as error:
            raise self._down(error) from None
        association.release()
        if status:
            raise DestinationDownError(f"{self._told()} answered C-ECHO with 0x{status:04X}")
        milliseconds = (time.monotonic() - started) * 1000
        implementation = association.agreement.implementation
        told = f" ({''.join(c if c.isprintable() else '?' for c in implementation)})" if implementation else ""
        return f"{self._told()} answered C-ECHO in {milliseconds:.0f} ms{told}"

    def _one_association(
        self,
        pairs: Sequence[Pair],
        waiting: list[_Outgoing],
        report: Callable[[Report], None],
        stopping: threading.Event,
    ) -> None:
        """Open an association and send on it what can be sent; what was reported is taken from the list's end."""
        association = self._associate(pairs)
        try:
            while waiting and not stopping.is_set():
                outgoing = waiting[-1]
                said = self._send(association, outgoing)
                waiting.pop()
                report(said)
        except TooSlowError as error:
            self._slow += 1
            report(_failed(waiting.pop(), f"the destination was too slow for this object: {error}"))
            if self._slow >= _MOST_SLOW or not (waiting or self._answered):
                raise self._down(error) from None
        except FileChangedError as error:
            report(_failed(waiting.pop(), str(error)))
        except BrokenError as error:
            self._broke(error, waiting, report)
        else:
            association.release()
        finally:
            association.close()

    def _send(self, association: Association, outgoing: _Outgoing) -> Report:
        refused = association.agreement.refused.get(outgoing.pair)
        if refused:
            sop_class, transfer_syntax = outgoing.pair
            reason = f"the destination refuses objects of {sop_class} in {transfer_syntax}: {refused}"
            return _report(outgoing, Outcome.REFUSED, reason)
        try:
            fd = os.open(outgoing.file.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            return _failed(outgoing, _unreadable(error))
        try:
            outcome, reason = outcome_of(association.store(outgoing.dicom, fd))
        finally:
            os.close(fd)
        self._breaks = self._slow = 0
        self._answered = True
        return _report(outgoing, outcome, reason)

    def _broke(self, error: BrokenError, waiting: list[_Outgoing], report: Callable[[Report], None]) -> None:
        """An association broke while the list's last object was sent."""
        self._breaks += 1
        if waiting[-1].file.uri in self._broken_on:
            report(_failed(waiting.pop(), f"the association broke while this object was sent: {error}"))
        else:
            self._broken_on.add(waiting[-1].file.uri)
        if self._breaks >= _MOST_BREAKS:
            raise self._down(error)
        self._log.debug("association_broke", destination=self._destination.name, reason=str(error))

    def _associate(self, pairs: Sequence[Pair]) -> Association:
        settings = self._settings
        try:
            return Association(
                self._destination,
                settings.ae_title,
                pairs,
                self._deadlines,
                self._log,
                log_pdus=settings.log_data_pdus,
                log_datasets=settings.log_dimse_datasets,
            )
        except BrokenError as error:
            raise self._down(error) from None

    def _down(self, error: BrokenError) -> DestinationDownError:
        remedy = ""
        if isinstance(error, RejectedError):
            remedy = f"; it has to accept {self._settings.ae_title!r} calling {self._destination.ae_title!r}"
        return DestinationDownError(f"{self._told()}: {error}{remedy}")

    def _told(self) -> str:
        destination = self._destination
        return f"{destination.name} ({destination.host}:{destination.port})"


def _report(outgoing: _Outgoing, outcome: Outcome, reason: str) -> Report:
    return Report(uri=outgoing.file.uri, outcome=outcome, sop_instance_uid=outgoing.dicom.sop_instance, reason=reason)


def _failed(outgoing: _Outgoing, reason: str) -> Report:
    return _report(outgoing, Outcome.FAILED, reason)


def _unreadable(error: OSError) -> str:
    return f"the file cannot be read: {(error.strerror or type(error).__name__).lower()}"
