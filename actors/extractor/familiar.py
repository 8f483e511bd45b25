"""What the headers of one association have in common, so that it is understood once.

In a series hardly anything differs but the SOP Instance UID and what belongs to one image. It is between the extractor
and `header`: bytes that were understood before, at the same place, are compared and not taken apart again. Nothing is
believed that was not compared; what is forgotten is only read anew.
"""

from collections import OrderedDict

from protocol.dimse.walk import Runs
from protocol.spool import association_of

_REMEMBERED = 16


class Familiar:
    """What is known of one association's headers.

    Args of the file meta group, as of its latest instance: `before` the element with the SOP Instance UID from the
    group's second element on, `after` it up to the dataset, and `meta`, what they say.
    """

    __slots__ = ("after", "before", "meta", "runs")

    def __init__(self) -> None:
        self.before = b""
        self.after = b""
        self.meta: dict[int, str] = {}
        self.runs: Runs = {}


class Familiars:
    """A bounded memory of associations; only for headers of which the same elements are wanted."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Familiar] = OrderedDict()

    def of(self, identifier: str) -> Familiar:
        """What is known of the association of an instance.

        Args:
            identifier: `SHARD/STEM`.
        """
        association = association_of(identifier.partition("/")[2])
        known = self._known.get(association)
        if known is None:
            known = self._known[association] = Familiar()
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return known
