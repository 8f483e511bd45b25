"""What is remembered: the peewee tables, each with its owner, on SQLite or PostgreSQL.

One process owns a table and is the only one that writes it; any may read. Commit first, then say so. Rows that
are read in numbers are read in pages and closed at once, since an open cursor lets SQLite's log grow.
"""

from protocol.ledger.database import (
    PAGE_ROWS,
    Ledger,
    pages,
    row_where,
    tuples,
)
from protocol.ledger.rows import JsonField, Row
from protocol.ledger.tables import (
    TABLES,
    AeTitle,
    Delivery,
    Destination,
    ExportTask,
    Group,
    InferenceRequest,
    Instance,
    InstanceHistory,
    Job,
    Pipeline,
    Reclaim,
    Result,
    Retrieval,
    Run,
    SchemaVersion,
    SealedShard,
    Source,
    Submission,
    Withdrawal,
)

__all__ = [
    "PAGE_ROWS",
    "TABLES",
    "AeTitle",
    "Delivery",
    "Destination",
    "ExportTask",
    "Group",
    "InferenceRequest",
    "Instance",
    "InstanceHistory",
    "Job",
    "JsonField",
    "Ledger",
    "Pipeline",
    "Reclaim",
    "Result",
    "Retrieval",
    "Row",
    "Run",
    "SchemaVersion",
    "SealedShard",
    "Source",
    "Submission",
    "Withdrawal",
    "pages",
    "row_where",
    "tuples",
]
