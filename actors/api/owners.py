"""Commands to the owners of what the API may not change itself: processor, submitter, platform, exporter, retriever."""

from protocol import messages
from protocol.bus import Bus
from protocol.channels import Channel
from protocol.errors import AdapterError, RefusedError
from protocol.logs import EventLogger

_TELL_SECONDS = 1.0
_ASK_SECONDS = 10.0


class Owners:
    """The asking end of all command channels; any thread may use it, since a socket lives for one command.

    Args:
        bus: of this process.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._log = EventLogger("adapter.api")

    def ask(self, channel: Channel, command: messages.Message) -> int:
        """Have something done; returns how many rows it changed.

        Raises:
            RefusedError: the owner will not do it.
            UnavailableError: it did not answer; whether it was done is not known.
        """
        return self._ask(channel, command, _ASK_SECONDS)

    def ask_for(self, channel: Channel, command: messages.Message, timeout_seconds: float) -> messages.Message:
        """Have something done; returns the owner's answer. Raises as `ask`."""
        client = self._bus.client(channel)
        try:
            return client.ask(command, timeout_seconds)
        finally:
            client.close()

    def tell(self, channel: Channel, command: messages.Message) -> None:
        """Say that something changed in the ledger; an owner that does not hear it finds it by its sweep."""
        try:
            self._ask(channel, command, _TELL_SECONDS)
        except AdapterError as error:
            self._log.warning("change_not_told", owner=channel.binder, change=type(command).__name__, reason=str(error))

    def _ask(self, channel: Channel, command: messages.Message, timeout_seconds: float) -> int:
        answer = self.ask_for(channel, command, timeout_seconds)
        if not isinstance(answer, messages.Done):
            raise RefusedError(f"the {channel.binder} answered {type(answer).__name__}: restart it")
        return answer.affected
