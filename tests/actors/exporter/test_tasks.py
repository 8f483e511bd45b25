"""What a try means for a task: the original's thresholds and retries."""

import pytest

from actors.exporter.tasks import FAILURE, RETRY, SUCCESS, Count, judge


@pytest.mark.parametrize(
    ("files", "delivered", "retries", "hopeless", "report"),
    [
        (10, [10], 0, False, SUCCESS),
        (10, [5], 0, False, SUCCESS),  # exactly the threshold
        (10, [4], 0, False, RETRY),
        (10, [4], 2, False, RETRY),
        (10, [4], 3, False, FAILURE),  # at maximumRetries
        (10, [10, 4], 0, False, RETRY),  # the worst destination decides
        (10, [10, 10], 0, False, SUCCESS),
        (10, [10], 0, True, FAILURE),
        (10, [], 0, True, FAILURE),
        (0, [0], 0, False, FAILURE),
    ],
)
def test_judge(files: int, delivered: list[int], retries: int, hopeless: bool, report: str) -> None:
    verdict = judge(
        files=files,
        counts=[Count(delivered=count) for count in delivered],
        threshold=0.5,
        retries=retries,
        most_retries=3,
        hopeless=hopeless,
    )
    assert verdict.report == report
    assert verdict.failed == files - min(delivered, default=0)
