"""Files of payloads on Clara Platform: uploaded in chunks and several at once, and downloaded."""

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

from protocol import killpoints
from protocol.errors import RefusedError, StorageError
from protocol.platforms.base import PayloadFile, PlatformError
from protocol.platforms.clara.connection import Connection, ExistsError, NotThereError, header, identifier
from protocol.platforms.clara.generated import payloads_pb2

_CHUNK_BYTES = 256 * 1024
_SLOWEST_BYTES = 128 * 1024  # that are uploaded in a second, on the slowest line that is waited for
_DOWNLOAD_SECONDS = 4 * 3600.0


class Payloads:
    """Uploads and downloads.

    Args:
        connection: to the platform.
        parallel: how many files of one payload are uploaded at once.
    """

    def __init__(self, connection: Connection, parallel: int) -> None:
        self._connection = connection
        self._parallel = parallel
        self._stub = connection.payloads

    def upload(self, payload_id: str, files: Sequence[PayloadFile], *, again: bool) -> None:
        """Upload files; the first failure is raised when those that are under way have ended.

        Args:
            payload_id: the platform's own identifier.
            files: what belongs there.
            again: whether some may be there: what is of the right size is whole, since a file's bytes come in order;
                what is of another was broken off, and is removed first.

        Raises:
            AdapterError: as `protocol.platforms.base.Platform` tells.
        """
        there = self._sizes(payload_id) if again else {}
        missing = [file for file in files if there.get(file.name) != _size(file.path)]
        if not missing:
            return
        broken = threading.Event()

        def upload(file: PayloadFile) -> None:
            if broken.is_set():
                return
            try:
                self._upload(payload_id, file, replace=file.name in there)
            except BaseException:
                broken.set()
                raise

        with ThreadPoolExecutor(min(self._parallel, len(missing)), thread_name_prefix="upload") as pool:
            futures = [pool.submit(upload, file) for file in missing]
        for future in futures:
            future.result()

    def download(self, payload_id: str, name: str, target: BinaryIO) -> None:
        """Write a file to an open file.

        Raises:
            AdapterError: as `protocol.platforms.base.Platform` tells.
        """
        message = payloads_pb2.PayloadsDownloadRequest(header=header(), payload_id=identifier(payload_id), name=name)
        wanted = written = 0
        try:
            for answer in self._connection.stream(
                "send a file", self._stub.Download, message, private=True, most_seconds=_DOWNLOAD_SECONDS
            ):
                wanted = wanted or answer.details.size
                target.write(answer.data)
                written += len(answer.data)
        except NotThereError:
            raise RefusedError(f"Clara Platform has no such file in payload {payload_id}") from None
        except OSError as error:
            raise StorageError(f"a file of payload {payload_id} could not be written: {error.strerror}") from error
        if written < wanted:
            raise PlatformError(f"Clara Platform sent {written} of a file's {wanted} bytes")

    def _sizes(self, payload_id: str) -> dict[str, int]:
        """What is in a payload: names, and how many bytes each has."""
        message = payloads_pb2.PayloadsDetailsRequest(header=header(), payload_id=identifier(payload_id))
        answers = self._connection.stream("tell what is in a payload", self._stub.Details, message, private=True)
        return {answer.file.name.lstrip("/"): answer.file.size for answer in answers if answer.file.name}

    def _upload(self, payload_id: str, file: PayloadFile, *, replace: bool) -> None:
        if replace:
            removal = payloads_pb2.PayloadsRemoveRequest(
                header=header(), payload_id=identifier(payload_id), name=file.name
            )
            self._connection.ask("remove half a file", self._stub.Remove, removal, private=True)
        messages = _Messages(payload_id, file)
        more_seconds = messages.size / _SLOWEST_BYTES
        try:
            self._connection.ask("take a file", self._stub.Upload, messages, more_seconds=more_seconds, private=True)
        except ExistsError as error:
            # An upload of the process before this one has gone on there after what is there was read.
            if self._sizes(payload_id).get(file.name) != messages.size:
                raise PlatformError("Clara Platform has half a file of this name") from error
        except PlatformError:
            if messages.failure:
                raise _unreadable(file.path, messages.failure) from messages.failure
            raise
        killpoints.reach("submitter.file-linked")


class _Messages:
    """The messages of an upload, one a chunk; a file without bytes has one too.

    They are read in a thread of gRPC's own, which lets go of this, and so of the open file, when the call has ended.
    """

    def __init__(self, payload_id: str, file: PayloadFile) -> None:
        try:
            self._source = open(file.path, "rb")  # noqa: SIM115 - see above
        except OSError as error:
            raise _unreadable(file.path, error) from error
        self.size = os.fstat(self._source.fileno()).st_size
        self.failure: OSError | None = None
        self._payload_id = payload_id
        self._name = file.name
        self._first = True

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            data = self._source.read(_CHUNK_BYTES)
        except OSError as error:
            self.failure = error
            raise
        if not (data or self._first):
            self._source.close()
            raise StopIteration
        self._first = False
        return payloads_pb2.PayloadsUploadRequest(
            header=header(),
            payload_id=identifier(self._payload_id),
            details=payloads_pb2.PayloadFileDetails(name=self._name, size=len(data)),
            data=data,
        )


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> StorageError:
    if isinstance(error, FileNotFoundError):
        return StorageError(f"the instance {path} is not in the spool any more: discard the job")
    return StorageError(f"the instance {path} cannot be read: {error.strerror}")
