"""Where a task's files go: found by the task's parameters, or by the inference request that its job was made for.

Everything here reads the ledger, in any thread.
"""

import contextlib
from collections.abc import Sequence

import msgspec

from actors.exporter.scu import ScuDestination, ScuSender
from actors.exporter.sender import Sender
from actors.exporter.stow import StowDestination, StowSender
from protocol import exports
from protocol.config.problems import printable
from protocol.config.settings import Scu
from protocol.errors import NotFoundError, StorageError
from protocol.ledger import Destination, ExportTask, InferenceRequest, Pipeline, Result, pages
from protocol.vault import Vault

SCU, DICOMWEB = "scu", "dicomweb"
"""Transports of tasks (`ExportTask.transport`)."""
_SHOWN_CHARACTERS = 64


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One destination of a task.

    Args:
        name: for people, and the key of its deliveries; of a DICOMweb service its URL.
        where: what a sender is made for.
    """

    name: str
    where: ScuDestination | StowDestination

    def sender(self, settings: Scu) -> Sender:
        """A sender for one batch."""
        if isinstance(self.where, ScuDestination):
            return ScuSender(self.where, settings)
        return StowSender(self.where, settings)

    @property
    def is_scu(self) -> bool:
        """Whether it is reached by C-STORE."""
        return isinstance(self.where, ScuDestination)


def transport_of(agent: str, scu: Scu) -> str:
    """How an agent's tasks are carried; "" when it is no part of this system."""
    names = {scu.export.agent.casefold(): DICOMWEB, scu.ae_title.casefold(): SCU}
    return names.get(agent.casefold(), "")


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Where a task goes.

    Args:
        targets: that are known, each once.
        problem: why the task cannot succeed, whatever its targets say; "" when it can.
    """

    targets: tuple[Target, ...] = ()
    problem: str = ""


def route(task: ExportTask, vault: Vault) -> Route:
    """Find where a task goes.

    Raises:
        peewee.PeeweeException: the ledger does not answer.
    """
    if task.transport == SCU:
        return _by_names(task.parameters)
    try:
        return _by_request(task, vault)
    except StorageError as error:  # sealed with a key that is gone: that stays so
        return Route(problem=str(error))


def names_in(parameters: str) -> tuple[str, ...]:
    """The destinations that a task's parameters name: a JSON text, or a JSON list of texts.

    Raises:
        ValueError: they are neither; the sentence says what is wrong.
    """
    try:
        found = msgspec.json.decode(parameters)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise ValueError(
            "the task's parameters are no JSON: a destination's name in quotes, or a list of names"
        ) from None
    listed = found if isinstance(found, list) else [found]
    if not all(isinstance(name, str) for name in listed):
        raise ValueError("the task's parameters are neither a destination's name nor a list of names")
    names = {name.strip().casefold(): name.strip() for name in reversed(listed) if name.strip()}
    if not names:
        raise ValueError("the task names no destination")
    return tuple(reversed(names.values()))


def named(parameters: str) -> str:
    """What a task's parameters name, for people, before it is known whether that exists."""
    with contextlib.suppress(ValueError):
        return printable(", ".join(names_in(parameters)))[:200]
    return ""


def request_outputs(job_id: str, payload_id: str, vault: Vault) -> tuple[exports.DicomWebExport, ...]:
    """The DICOMweb services that the inference request of a job names for its results.

    Args:
        job_id: ours, or the platform's.
        payload_id: may be empty.
        vault: opens what the request has sealed.

    Raises:
        peewee.PeeweeException: the ledger does not answer.
        StorageError: they cannot be unsealed.
    """
    for column, key in (
        (InferenceRequest.job_id, job_id),
        (InferenceRequest.platform_job_id, job_id),
        (InferenceRequest.payload_id, payload_id),
    ):
        row = InferenceRequest.get_or_none(column == key) if key else None
        if row is not None and row.outputs:
            listed = msgspec.json.decode(vault.open(row.outputs), type=list[dict[str, str]])
            return tuple(
                exports.DicomWebExport(
                    url=each["uri"].rstrip("/"),
                    auth_type=each.get("authType") or "None",
                    auth_id=each.get("authId") or "",
                )
                for each in listed
            )
    return ()


def find(written: str, vault: Vault) -> Target:
    """What a person names: a destination, or a DICOMweb service, with the credentials that a pipeline has for it.

    Raises:
        NotFoundError: there is no such destination.
    """
    if "://" not in written:
        found = _destinations().get(written.casefold())
        if found is None:
            raise NotFoundError(
                f"there is no destination {written!r}: see dicom-adapter list dest, or write dicomweb:URL"
            )
        return _scu_target(found)
    try:
        wanted = exports.read_dicomweb(written)
    except ValueError as error:
        raise NotFoundError(f"{written.partition('@')[2] or written!r} {error}") from None
    if wanted.auth_type == "None":
        for page in pages(Pipeline.select(), Pipeline.pipeline_id):
            for export in (each for row in page for each in row.exports):
                if exports.is_dicomweb(export) and exports.url_of(export) == wanted.url:
                    return _stow_target(exports.unseal(export, vault))
    return _stow_target(wanted)


def _by_names(parameters: str) -> Route:
    try:
        names = names_in(parameters)
    except ValueError as error:
        return Route(problem=str(error))
    known = _destinations()
    found = [known[name.casefold()] for name in names if name.casefold() in known]
    unknown = [name for name in names if name.casefold() not in known]
    return Route(targets=tuple(_scu_target(row) for row in found), problem=_unknown(unknown))


def _unknown(names: Sequence[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(
        repr("".join(letter if letter.isprintable() else "?" for letter in name[:_SHOWN_CHARACTERS])) for name in names
    )
    return f"there is no destination {shown}: create it (dicom-adapter create dest), then retry the task"


def _by_request(task: ExportTask, vault: Vault) -> Route:
    services = {service.url: service for service in request_outputs(task.job_id, task.payload_id, vault)}
    try:
        wanted = names_in(task.parameters) if task.parameters.strip() else ()
    except ValueError:
        wanted = ()  # for this agent the request decides; its parameters are the pipeline's own
    row = Result.get_or_none(Result.payload_id == task.payload_id) if task.payload_id else None
    of_pipeline = {exports.url_of(each): each for each in row.exports if exports.is_dicomweb(each)} if row else {}
    chosen = [url for url in wanted if url in of_pipeline or url in services]
    if not services and not chosen:
        chosen = list(of_pipeline)
    for url in chosen:
        if url in of_pipeline:
            services.setdefault(url, exports.unseal(of_pipeline[url], vault))
    targets = tuple(_stow_target(services[url]) for url in chosen or services)
    if targets:
        return Route(targets=targets)
    return Route(problem="no inference request with this job or payload names a DICOMweb service for its results")


def _destinations() -> dict[str, Destination]:
    return {row.name.casefold(): row for page in pages(Destination.select(), Destination.name) for row in page}


def _scu_target(row: Destination) -> Target:
    where = ScuDestination(name=row.name, ae_title=row.ae_title, host=row.host_ip, port=row.port)
    return Target(name=row.name, where=where)


def _stow_target(service: exports.DicomWebExport) -> Target:
    where = StowDestination(url=service.url, auth_type=service.auth_type, auth_id=service.auth_id)
    return Target(name=service.url, where=where)
