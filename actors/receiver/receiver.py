"""The receiver: Storage and Verification SCP on the DICOM port, one of several processes that share it.

One event loop; each association is a small state machine in it. What it stores is announced to the extractors;
nothing else of the gateway is needed to receive.
"""

import dataclasses
import errno
import itertools
import socket
import threading
from functools import partial

from actors.actor import Actor
from actors.receiver.admission import Admission
from actors.receiver.association import Association
from actors.receiver.lane import NOT_USED
from actors.receiver.names import HostNames
from actors.receiver.pace import LOOK_SECONDS, Pace
from actors.receiver.pipe import Pipe
from actors.receiver.shared import RECEIVE_BYTES, Shared
from actors.receiver.store import Store
from actors.receiver.syncer import open_syncer
from protocol import channels, killpoints
from protocol.access import AccessFile
from protocol.birth import Birth
from protocol.config import Settings
from protocol.logs import Repeats
from protocol.messages import InstancesStored, StoredInstance
from protocol.moves import MovesFile
from protocol.spool import ShardWriter, Spool

_YIELD_SECONDS = 0.003  # how long a receiver with more associations leaves a connection to the others
_ACCEPTS_PER_TURN = 16
# A message for each instance would cost more than it is worth: each wakes three processes.
_ANNOUNCE_SECONDS = 0.1
_ANNOUNCE_AT_ONCE = 256
_NO_DESCRIPTORS_SECONDS = 1.0
_REPEATS_SECONDS = 10.0
_SLOW_DISK_SECONDS = 600.0
_SPARE_CONNECTIONS = 256  # of which no association has come yet, beside the maximum of associations
# Before a drain's time is over, associations are cut as they finish an object: so many seconds before, or that share.
_CUT_SECONDS = 2.0
_CUT_SHARE = 0.7
_STORE_CLOSE_SECONDS = 2.0
_OUT_OF_DESCRIPTORS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class Receiver(Actor):
    """One receiver process."""

    kind = "receiver"

    def __init__(self, birth: Birth, settings: Settings) -> None:
        super().__init__(birth, settings)
        self._row = self.board.receiver_row(birth.row)
        self._listeners = [socket.socket(fileno=fd) for fd in birth.listeners]
        self._connections: dict[Association, None] = {}  # in the order of their coming
        self._stored: list[StoredInstance] = []
        self._instances = self.bus.sender(channels.INSTANCES)
        self._repeats = Repeats(self.log.warning)
        self._slow_disk = Repeats(self.log.info, _SLOW_DISK_SECONDS, whose="storage")
        self._spool = Spool(settings.storage.temporary)
        writer = ShardWriter(self._spool, self.kind)
        names = HostNames(self.post, self.log)
        self._writer = writer
        syncer, pace = open_syncer(self), Pace(self._tell_of_slow_disk)
        self._moved_writer = ShardWriter(self._spool.arrivals(), self.kind)
        self._shared = Shared(
            loop=self,
            settings=settings,
            board=self.board,
            row=self._row,
            admission=Admission(AccessFile(self._spool.access), names, self.log, MovesFile(self._spool.moves)),
            names=names,
            writer=writer,
            store=Store(writer, syncer, self, pace),
            announce=self._announce,
            log=self.log,
            repeats=self._repeats,
            buffer=memoryview(bytearray(RECEIVE_BYTES)),
            pipe=Pipe(lambda reason: self.log.info("splice_not_used", reason=reason)),
            pace=pace,
        )
        self._shared.moved = dataclasses.replace(
            self._shared,
            writer=self._moved_writer,
            store=Store(self._moved_writer, syncer, self, pace),
            announce=lambda _: None,
        )

    def start(self) -> None:
        """Begin to accept."""
        # Receiving does not wait for what a dead predecessor left.
        threading.Thread(target=self._remove_dead_parts, daemon=True, name="remove parts").start()
        self._shared.admission.warm_up()
        self.every(_REPEATS_SECONDS, self._repeats.flush)
        self.every(_REPEATS_SECONDS, self._slow_disk.flush)
        self.every(LOOK_SECONDS, self._shared.pace.look)
        if NOT_USED:
            self.log.info("lane_not_used", reason=NOT_USED)
        self._row.set_accepting(True)
        for listener in self._listeners:
            listener.setblocking(False)
            self.watch(listener.fileno(), partial(self._connection_waits, listener))

    def _announce(self, instance: StoredInstance) -> None:
        """Tell the extractors soon, and of several at once."""
        if not self._stored:
            self.after(_ANNOUNCE_SECONDS, self._announce_all)
        self._stored.append(instance)
        if len(self._stored) >= _ANNOUNCE_AT_ONCE:
            self._announce_all()

    def _announce_all(self) -> None:
        """Lost, it is found by the processor's sweep."""
        if self._stored:
            self._instances.send(InstancesStored(instances=tuple(self._stored)))
            self._stored.clear()
            killpoints.reach("receiver.announced")

    def settings_changed(self, settings: Settings) -> None:
        """New limits hold for new associations."""
        self._shared.settings = settings
        if self._shared.moved is not None:
            self._shared.moved.settings = settings

    def busy_with(self) -> str:
        """How many associations there are."""
        return f"{self._row.active} associations"

    # The end.

    def begin_drain(self, seconds: float, *, gateway_stops: bool = False) -> None:
        """Stop accepting and let associations end; a later call may only hasten it.

        With a successor, associations go on until they are released, or the time is almost over. When the gateway
        stops there is none to wait for: they are cut at once, each between two objects.

        Args:
            seconds: how long it may take.
            gateway_stops: the whole gateway ends.
        """
        if self.draining:
            self.after(max(0.0, seconds), self.finish)
        super().begin_drain(seconds, gateway_stops=gateway_stops)
        if gateway_stops:
            self._cut()
        else:
            self.after(max(seconds - _CUT_SECONDS, seconds * _CUT_SHARE), self._cut)

    def drain(self) -> None:
        """Leave the port to the others."""
        self._row.set_accepting(False)
        for listener in self._listeners:
            self.unwatch(listener.fileno())
        self._finish_when_empty()

    def stop(self) -> None:
        """Cut what is left; only what was answered, or is complete, stays."""
        self._row.set_accepting(False)
        for connection in list(self._connections):
            connection.end()
        self._shared.store.close(_STORE_CLOSE_SECONDS)
        self._announce_all()
        self._shared.pipe.close()
        self._writer.close()
        self._moved_writer.close()
        self._repeats.flush(everything=True)
        self._slow_disk.flush(everything=True)
        for listener in self._listeners:
            listener.close()  # never shut down: the socket is shared

    def _cut(self) -> None:
        self._shared.cutting = True
        for connection in list(self._connections):
            connection.cut()
        self._finish_when_empty()

    def _finish_when_empty(self) -> None:
        if self.draining and not self._connections:
            self.finish()

    # Connections.

    def _connection_waits(self, listener: socket.socket, _: int) -> None:
        """Accept, unless another receiver has fewer: it shall have the chance to be quicker."""
        others = self._row.least_active_other()
        if others is not None and len(self._connections) > others:
            self.unwatch(listener.fileno())
            self.after(_YIELD_SECONDS, partial(self._accept_late, listener))
        else:
            self._accept(listener, 1 if others is not None else _ACCEPTS_PER_TURN)

    def _accept_late(self, listener: socket.socket) -> None:
        if self.draining:
            return
        self.watch(listener.fileno(), partial(self._connection_waits, listener))
        self._accept(listener, 1)

    def _accept(self, listener: socket.socket, most: int) -> None:
        for _ in range(most):
            try:
                connection, peer = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _OUT_OF_DESCRIPTORS:
                    self._wait_for_descriptors(listener, error)
                    return
                continue  # the peer is gone again
            self._connections[Association(self._shared, connection, peer, self._connection_closed)] = None
        self._bound_connections()

    def _wait_for_descriptors(self, listener: socket.socket, error: OSError) -> None:
        self._repeats.add(
            "cannot_accept", "any", reason=error.strerror, remedy="raise the limit of open files (LimitNOFILE=)"
        )
        self.unwatch(listener.fileno())
        self.after(_NO_DESCRIPTORS_SECONDS, partial(self._accept_late, listener))

    def _bound_connections(self) -> None:
        """Connections that are no associations must not pile up: the oldest of them go."""
        most = self.settings.dicom.scp.maximum_number_of_associations + _SPARE_CONNECTIONS
        excess = len(self._connections) - most
        if excess > 0:
            waiting = (each for each in self._connections if not each.associated)
            for oldest in list(itertools.islice(waiting, excess)):
                oldest.end()

    def _connection_closed(self, connection: Association) -> None:
        self._connections.pop(connection, None)
        self._finish_when_empty()

    def _tell_of_slow_disk(self, seconds: float) -> None:
        self._slow_disk.add(
            "disk_is_slow",
            str(self._spool.root),
            milliseconds=round(seconds * 1000, 1),
            meaning="an object and its syncs take that long: what comes goes through the page cache for a while",
            remedy="none is needed for a disk that turns; for another one see what else writes to it",
        )

    def _remove_dead_parts(self) -> None:
        try:
            removed = self._spool.remove_dead_parts()
        except OSError as error:
            self.log.warning("parts_not_removed", reason=error.strerror)
            return
        if removed:
            self.log.info("parts_removed", count=removed, reason="their writers died in the middle of them")
