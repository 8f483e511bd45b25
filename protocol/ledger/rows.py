"""What all tables are made of."""

from typing import Any

import msgspec
import peewee as pw


class JsonField(pw.TextField):
    """A small value kept as JSON text."""

    def db_value(self, value: Any) -> str:
        """To the database."""
        return msgspec.json.encode(value).decode()

    def python_value(self, value: str | None) -> Any:
        """From the database."""
        return None if value is None else msgspec.json.decode(value)


class Row(pw.Model):
    """Base of all tables."""

    class Meta:
        legacy_table_names = False
