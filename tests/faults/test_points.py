"""No named point is forgotten: each is in a matrix, or a test names it."""

from pathlib import Path

from protocol.killpoints import POINTS
from tests.faults import test_exports_killed, test_kill_matrix, test_requests

_TESTS = Path(__file__).resolve().parents[1]


def test_every_point_is_reached_by_some_test() -> None:
    texts = [path.read_text(encoding="utf-8") for path in _TESTS.rglob("test_*.py")]
    visited = {*test_kill_matrix._POINTS, *test_requests._POINTS, *test_exports_killed._POINTS}
    named = {point for point in POINTS if any(f'"{point}"' in text for text in texts)}
    assert set(POINTS) - visited - named == set()
