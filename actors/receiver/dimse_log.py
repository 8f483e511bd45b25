"""The service with a log of what is said (`dicom.scp.logDimseDatasets`): requests, datasets' elements, responses.

An association has it in place of the plain service when an administrator asked for it; without that, nothing of it
stands on the way of an object. Patient data is in these lines, at Information, since that is what was asked for.
"""

from actors.receiver.command import Command
from actors.receiver.reception import StorageContext
from actors.receiver.service import Service
from protocol.dimse.elements import HEAD_BYTES, IMPLICIT_LITTLE, dump


class LoggingService(Service):
    """Writes each request, the beginning of each dataset, and each response to the log; else as `Service`."""

    _head = b""

    def fragment(self, data: memoryview) -> None:
        """Keep what comes of a message until there is enough of it."""
        if len(self._head) < HEAD_BYTES:
            self._head += data[: HEAD_BYTES - len(self._head)]
        super().fragment(data)

    def message_ends(self) -> None:
        """Write what came, whatever becomes of it."""
        context = self._contexts[self._context_id]
        if self._in_command:
            self._tell("dimse_request", context, dump(self._head, IMPLICIT_LITTLE))
        elif context.encoding is None:
            self._tell("dimse_dataset", context, "not shown: it cannot be read without inflating it")
        else:
            self._tell("dimse_dataset", context, dump(self._head, context.encoding))
        self._head = b""
        super().message_ends()

    def _form_of(self, data: bytes, command: Command) -> None:  # each response is written by `_respond`
        """No request is of a form here: all of them go the long way, and are told."""

    def _respond(self, command: Command, context: StorageContext, status: int, comment: str) -> None:
        told = f"status 0x{status:04X}" + (f": {comment}" if comment else "")
        self._tell("dimse_response", context, told, message=command.message_id)
        super()._respond(command, context, status, comment)

    def _tell(self, event: str, context: StorageContext, elements: str, **more: int) -> None:
        self._shared.log.info(
            event, association=self._association, context=context.context_id, **more, elements=elements
        )
