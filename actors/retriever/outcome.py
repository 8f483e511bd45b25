"""What a round tells the main loop: which files are kept, and how it ended."""

import msgspec


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is durable; its fields are those of its row, and whether a receiver has counted its bytes."""

    path: str
    name: str
    size: int
    study_uid: str = ""
    series_uid: str = ""
    sop_instance_uid: str = ""
    attributes: dict[str, str] = {}
    source: int = 0
    retrieved_ns: int
    counted: bool = False


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a round ended.

    Args:
        missing: what was wanted and not found, without patient data.
        problems: what sources said.
        away: whether a source could not be reached, so that this was no try.
        broken_off: why it ended before its end, which is no try either.
    """

    missing: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    away: bool = False
    broken_off: str = ""
