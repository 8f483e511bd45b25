"""The services of the platform for tests, on the servicers that NVIDIA's package has for them."""

from collections.abc import Iterator
from typing import Any

from protocol.platforms.clara.generated import (
    common_pb2,
    jobs_pb2,
    jobs_pb2_grpc,
    map_of,
    payloads_pb2,
    payloads_pb2_grpc,
    pipelines_pb2,
    pipelines_pb2_grpc,
    put_map,
)
from tests.clara.store import ForbiddenError, Store

_CHUNK_BYTES = 64 * 1024


def _id(value: str) -> Any:
    return common_pb2.Identifier(value=value)


def _time(value: int) -> Any:
    return common_pb2.Timestamp(value=value)


class Jobs(jobs_pb2_grpc.JobsServicer):  # type: ignore[misc] # generated, without type information
    """Jobs.

    Args:
        store: what there is.
        finish: whether a job ends well as soon as it is started.
    """

    def __init__(self, store: Store, *, finish: bool) -> None:
        self._store = store
        self._finish = finish

    def Create(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's names
        job = self._store.create_job(
            request.name, request.pipeline_id.value, request.priority, map_of(request.metadata)
        )
        return jobs_pb2.JobsCreateResponse(job_id=_id(job["job_id"]), payload_id=_id(job["payload_id"]))

    def AddMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        metadata = self._store.add_metadata(request.job_id.value, map_of(request.metadata))
        answer = jobs_pb2.JobsAddMetadataResponse(job_id=request.job_id)
        put_map(answer.metadata, metadata)
        return answer

    def Start(self, request: Any, context: Any) -> Any:  # noqa: N802
        job = self._store.start(request.job_id.value)
        if self._finish:
            job = self._store.stop(job["job_id"], jobs_pb2.JOB_STATUS_HEALTHY)
        return jobs_pb2.JobsStartResponse(state=job["state"], status=job["status"], priority=job["priority"])

    def Status(self, request: Any, context: Any) -> Any:  # noqa: N802
        job = self._store.job(request.job_id.value)
        answer = jobs_pb2.JobsStatusResponse(
            job_id=_id(job["job_id"]),
            pipeline_id=_id(job["pipeline_id"]),
            payload_id=_id(job["payload_id"]),
            state=job["state"],
            status=job["status"],
            name=job["name"],
            priority=job["priority"],
            created=_time(job["created"]),
            started=_time(job["started"]),
            stopped=_time(job["stopped"]),
        )
        put_map(answer.metadata, job["metadata"])
        return answer

    def Cancel(self, request: Any, context: Any) -> Any:  # noqa: N802
        job = self._store.job(request.job_id.value)
        if job["state"] == jobs_pb2.JOB_STATE_STOPPED:
            raise ForbiddenError("FAILED_PRECONDITION", "it is over")
        job = self._store.stop(job["job_id"], jobs_pb2.JOB_STATUS_CANCELED)
        return jobs_pb2.JobsCancelResponse(job_id=request.job_id, job_state=job["state"], job_status=job["status"])

    def List(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        wanted = request.filter
        pipelines = {each.value for each in wanted.pipeline_id}
        answered = False
        for job in self._store.jobs():
            if (
                (pipelines and job["pipeline_id"] not in pipelines)
                or job["created"] < wanted.created_after.value
                or (wanted.has_state and job["state"] not in wanted.has_state)
                or (wanted.has_status and job["status"] not in wanted.has_status)
            ):
                continue
            answered = True
            details = jobs_pb2.JobsListResponse.JobDetails(
                job_id=_id(job["job_id"]),
                payload_id=_id(job["payload_id"]),
                pipeline_id=_id(job["pipeline_id"]),
                job_name=job["name"],
                state=job["state"],
                status=job["status"],
                priority=job["priority"],
                created=_time(job["created"]),
                started=_time(job["started"]),
                stopped=_time(job["stopped"]),
            )
            put_map(details.metadata, job["metadata"])
            yield jobs_pb2.JobsListResponse(job_details=details)
        if not answered:
            yield jobs_pb2.JobsListResponse()


class Payloads(payloads_pb2_grpc.PayloadsServicer):  # type: ignore[misc] # generated
    """Payloads.

    Args:
        store: what there is.
        uploaded: appended to: payload and name of every upload that was whole.
    """

    def __init__(self, store: Store, uploaded: list[tuple[str, str]]) -> None:
        self._store = store
        self._uploaded = uploaded

    def Upload(self, requests: Any, context: Any) -> Any:  # noqa: N802
        first = next(requests)
        payload_id, name = first.payload_id.value, first.details.name

        def chunks() -> Iterator[bytes]:
            request = first
            while request is not None:
                if request.details.name != name or request.payload_id.value != payload_id:
                    raise ForbiddenError("INVALID_ARGUMENT", "two blobs in one upload")
                if request.details.size != len(request.data):
                    raise ForbiddenError("INVALID_ARGUMENT", "size of a chunk")
                yield request.data
                request = next(requests, None)

        size = self._store.write(payload_id, name, chunks())
        self._uploaded.append((payload_id, name))
        return payloads_pb2.PayloadsUploadResponse(details=payloads_pb2.PayloadFileDetails(name=name, size=size))

    def Details(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        blobs = self._store.blobs(request.payload_id.value)
        for name, path in blobs.items():
            file = payloads_pb2.PayloadFileDetails(name=name, size=path.stat().st_size)
            yield payloads_pb2.PayloadsDetailsResponse(payload_id=request.payload_id, file=file)
        if not blobs:
            yield payloads_pb2.PayloadsDetailsResponse(payload_id=request.payload_id)

    def Download(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        path = self._store.blob(request.payload_id.value, request.name)
        if not path.is_file():
            raise ForbiddenError("NOT_FOUND", f"{request.name} is not there")
        details = payloads_pb2.PayloadFileDetails(name=request.name, size=path.stat().st_size)
        with path.open("rb") as file:
            while True:
                data = file.read(_CHUNK_BYTES)
                yield payloads_pb2.PayloadsDownloadResponse(details=details, data=data)
                if not data:
                    return

    def Remove(self, request: Any, context: Any) -> Any:  # noqa: N802
        path = self._store.blob(request.payload_id.value, request.name)
        self._store.check_writable(request.payload_id.value)
        if not path.is_file():
            raise ForbiddenError("NOT_FOUND", f"{request.name} is not there")
        path.unlink()
        return payloads_pb2.PayloadsRemoveResponse()


class Pipelines(pipelines_pb2_grpc.PipelinesServicer):  # type: ignore[misc] # generated
    """Pipelines."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def Create(self, request: Any, context: Any) -> Any:  # noqa: N802
        pipeline_id = self._store.add_pipeline(request.definition.path, request.pipeline_id.value)
        return pipelines_pb2.PipelinesCreateResponse(pipeline_id=_id(pipeline_id))

    def List(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        for pipeline_id, name in self._store.pipelines().items():
            details = pipelines_pb2.PipelinesListResponse.PipelineDetails(pipeline_id=_id(pipeline_id), name=name)
            yield pipelines_pb2.PipelinesListResponse(details=details)
