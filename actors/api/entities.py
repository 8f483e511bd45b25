"""The configuration resources as JSON: the names of the original, and the ledger rows that they stand for."""

from typing import Annotated

import msgspec
from msgspec import Meta

from protocol import exports, ledger


class Entity(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What all entities share: JSON names in camelCase, built by keyword."""


class ClaraAeTitle(Entity, frozen=True, kw_only=True):
    """An AE title that this gateway answers to, and what becomes of what it receives."""

    name: Annotated[str, Meta(description="Key; the AE title unless given.", examples=["COVIDAET"])]
    ae_title: Annotated[str, Meta(description="Called AE title, compared exactly.", examples=["COVIDAET"])]
    overwrite_same_instance: Annotated[
        bool, Meta(description="Whether the same SOP Instance replaces the one its group has.", examples=[False])
    ] = False
    ignored_sop_classes: Annotated[
        tuple[str, ...],
        Meta(description="SOP classes answered Success and not stored.", examples=[["1.2.840.10008.5.1.4.1.1.7"]]),
    ] = ()
    processor: Annotated[str, Meta(description="The job processor.", examples=["aetitle"])] = ""
    processor_settings: Annotated[
        dict[str, str],
        Meta(
            description="The job processor's settings.",
            examples=[{"timeout": "5", "groupBy": "0020,000D", "pipeline-covid": "ID of a pipeline"}],
        ),
    ] = {}

    @classmethod
    def of(cls, row: ledger.AeTitle) -> "ClaraAeTitle":
        """From its row."""
        return cls(
            name=row.name,
            ae_title=row.ae_title,
            overwrite_same_instance=row.overwrite_same_instance,
            ignored_sop_classes=tuple(row.ignored_sop_classes),
            processor=row.processor,
            processor_settings=row.processor_settings,
        )


class Source(Entity, frozen=True, kw_only=True):
    """Who may send: a calling AE title and where it calls from."""

    ae_title: Annotated[str, Meta(description="Key: the calling AE title.", examples=["MYPACS"])]
    host_ip: Annotated[
        str, Meta(description="Address, network (CIDR) or host name, or several.", examples=["10.20.30.1"])
    ]

    @classmethod
    def of(cls, row: ledger.Source) -> "Source":
        """From its row."""
        return cls(ae_title=row.ae_title, host_ip=row.host_ip)


class Destination(Entity, frozen=True, kw_only=True):
    """Where results may go by C-STORE."""

    name: Annotated[str, Meta(description="Key, compared without case.", examples=["MYPACS"])]
    ae_title: Annotated[str, Meta(description="The destination's AE title.", examples=["MYPACSAET"])]
    host_ip: Annotated[str, Meta(description="Address or host name.", examples=["10.20.30.2"])]
    port: Annotated[int, Meta(description="TCP port, 1 to 65535.", examples=[1104])]

    @classmethod
    def of(cls, row: ledger.Destination) -> "Destination":
        """From its row."""
        return cls(name=row.name, ae_title=row.ae_title, host_ip=row.host_ip, port=row.port)


class Pipeline(Entity, frozen=True, kw_only=True):
    """A command that the embedded platform runs on a job's payload."""

    pipeline_id: Annotated[
        str, Meta(description="Key; by default a new one is made.", examples=["0f7f3a52-6a0c-4c5c-9a43-6a3ae1d2ab01"])
    ]
    name: Annotated[str, Meta(description="A unique name.", examples=["covid"])]
    command: Annotated[
        tuple[str, ...],
        Meta(
            description="Program and arguments; {input} and {output} are replaced by the run's directories.",
            examples=[["/opt/covid/run", "{input}", "{output}"]],
        ),
    ]
    exports: Annotated[
        tuple[str, ...], Meta(description="Destinations of the results: names, or dicomweb:URL.", examples=[["MYPACS"]])
    ] = ()
    user: Annotated[str, Meta(description="Account that runs it; empty for the service's own.", examples=[""])] = ""
    timeout_seconds: Annotated[int, Meta(description="How long a run may take.", examples=[3600])] = 3600

    @classmethod
    def of(cls, row: ledger.Pipeline) -> "Pipeline":
        """From its row."""
        return cls(
            pipeline_id=row.pipeline_id,
            name=row.name,
            command=tuple(row.command),
            exports=tuple(map(exports.shown, row.exports)),
            user=row.user,
            timeout_seconds=row.timeout_seconds,
        )
