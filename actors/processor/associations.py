"""What is known of associations: their called AE title, and the group of their latest instance.

An identifier tells its association and its position there (`protocol.spool.stem`), so nothing else is needed to see
what an object in transit will probably belong to.
"""

import contextlib
import dataclasses
from collections import OrderedDict

from actors.processor.filemeta import called_ae_title
from protocol.spool import Spool, association_of

_REMEMBERED = 20_000


@dataclasses.dataclass(slots=True)
class _Association:
    ae_title: str
    position: int = 0
    group_id: int | None = None


class Associations:
    """A bounded memory of associations; what was forgotten is read from the spool again.

    Args:
        spool: where instances are.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._known: OrderedDict[str, _Association] = OrderedDict()

    def note(self, identifier: str, ae_title: str, group_id: int | None) -> None:
        """An instance is on record, in a group or in none."""
        name = identifier.partition("/")[2]
        association = association_of(name)
        digits = name.rpartition("-")[2]
        position = int(digits) if digits.isdecimal() else 0
        known = self._known.get(association)
        if known is None:
            self._known[association] = _Association(ae_title, position, group_id)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        elif position >= known.position:
            known.position = position
            known.group_id = group_id
            self._known.move_to_end(association)

    def latest_group(self, identifier: str) -> int | None:
        """The group of the latest instance on record of an object's association."""
        known = self._known.get(association_of(identifier.partition("/")[2]))
        return known.group_id if known else None

    def ae_title(self, identifier: str) -> str | None:
        """The called AE title of an instance that is not on record; None when its file is gone.

        A file that says none belongs to "", which is no AE title.
        """
        association = association_of(identifier.partition("/")[2])
        known = self._known.get(association)
        if known is None:
            with contextlib.suppress(FileNotFoundError):
                known = self._known[association] = _Association(called_ae_title(self._spool.instance_path(identifier)))
        return known.ae_title if known else None
