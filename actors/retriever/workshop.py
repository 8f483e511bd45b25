"""Puts rounds together. What it imports is heavy, and is paid in the thread of the first request that comes."""

from collections.abc import Callable

from actors.retriever.arrivals import Arrivals
from actors.retriever.outcome import Kept
from actors.retriever.round import Round
from actors.retriever.shelf import Shelf
from actors.retriever.sources.base import DicomSource
from actors.retriever.sources.dicomweb import DicomWeb
from actors.retriever.sources.dimse import Dimse, Incoming
from actors.retriever.stock import Stock
from protocol.board import Board, Intake
from protocol.config import Settings
from protocol.inference import DimseSource, Order, Source
from protocol.spool import Spool


class Workshop:
    """What all rounds of this process share.

    Args:
        spool: where files go.
        board: tells whether there is room.
    """

    def __init__(self, spool: Spool, board: Board) -> None:
        self._spool = spool
        self._board = board
        self._incoming = Incoming(spool)
        self.arrivals = Arrivals(spool)

    def round(
        self,
        order: Order,
        job_id: str,
        settings: Settings,
        stopped: Callable[[], bool],
        report: Callable[[list[Kept]], None],
    ) -> Round:
        """A round of a request.

        Args:
            order: what is wanted.
            job_id: the request's job.
            settings: in force for it.
            stopped: whether to stop.
            report: told what is durable.
        """
        platform = settings.services.platform
        stock = Stock(
            job_id=job_id,
            shelf=Shelf(self._spool, job_id),
            tags=tuple(platform.metadata_dicom_source) if platform.upload_metadata else (),
            stopped=stopped,
            has_room=lambda: self._board.intake is Intake.OPEN,
            report=report,
        )

        def open_dicom(source: Source) -> DicomSource:
            if isinstance(source, DimseSource):
                return Dimse(source, settings.dicom.scu.ae_title, self.arrivals, self._incoming)
            return DicomWeb(source)

        return Round(order=order, stock=stock, open_dicom=open_dicom)
