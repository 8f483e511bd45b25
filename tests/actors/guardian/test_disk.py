"""When intake stops, and when it goes on."""

from pathlib import Path

import pytest

from actors.guardian.disk import Lack, Limits, Room, measure

GB = 10**9
MIB = 2**20


def room(total: int = 100 * GB, free: int = 50 * GB, inodes: int = 1_000_000, free_inodes: int = 500_000) -> Room:
    return Room(total_bytes=total, free_bytes=free, total_inodes=inodes, free_inodes=free_inodes)


@pytest.mark.parametrize(
    ("watermark", "reserve", "reserved"),
    [(75, 5, 25 * GB), (99, 5, 5 * GB), (100, 0.5, GB // 2), (1, 5, 99 * GB)],
)
def test_the_stricter_of_watermark_and_reserve_holds(watermark: int, reserve: float, reserved: int) -> None:
    limits = Limits(watermark_percent=watermark, reserve_gb=reserve)
    assert limits.reserved_bytes(room()) == reserved
    assert limits.lacks(room(free=reserved), paused=False) is None
    assert limits.lacks(room(free=reserved - 1), paused=False) is Lack.BYTES


@pytest.mark.parametrize(("total", "reserved"), [(100 * GB, 16 * MIB), (64 * MIB, 64 * MIB // 100)])
def test_what_frees_space_finds_room_whatever_is_configured(total: int, reserved: int) -> None:
    assert Limits(watermark_percent=100, reserve_gb=0).reserved_bytes(room(total=total)) == reserved


def test_intake_goes_on_only_with_a_margin() -> None:
    limits = Limits(watermark_percent=75, reserve_gb=5)
    just_enough = room(free=25 * GB)
    assert limits.lacks(just_enough, paused=False) is None
    assert limits.lacks(just_enough, paused=True) is Lack.BYTES
    assert limits.lacks(room(free=26 * GB), paused=True) is None


def test_the_margin_never_asks_for_more_than_there_can_be() -> None:
    limits = Limits(watermark_percent=1, reserve_gb=0)
    assert limits.lacks(room(free=100 * GB), paused=True) is None
    assert Limits(watermark_percent=75, reserve_gb=200).lacks(room(free=100 * GB), paused=True) is Lack.BYTES


def test_inodes_count_too_where_they_are_counted() -> None:
    limits = Limits(watermark_percent=100, reserve_gb=0)
    assert limits.lacks(room(free_inodes=9_999), paused=False) is Lack.INODES
    assert limits.lacks(room(free_inodes=10_000), paused=False) is None
    assert limits.lacks(room(inodes=0, free_inodes=0), paused=False) is None


def test_a_small_file_system_is_not_paused_for_its_number_of_inodes_alone() -> None:
    limits = Limits(watermark_percent=100, reserve_gb=0)
    assert limits.lacks(room(inodes=800, free_inodes=500), paused=False) is None


@pytest.mark.parametrize(
    ("watermark", "reserve", "wanted"),
    [
        (75, 5, 27.5),
        (99, 5, 6.5),
        (100, 0.5, 2.0),
        (1, 5, 99.75),
    ],  # a tenth of what is reserved, or the margin and half
)
def test_room_is_short_before_intake_stops(watermark: int, reserve: float, wanted: float) -> None:
    limits = Limits(watermark_percent=watermark, reserve_gb=reserve)
    enough = room(free=int(wanted * GB))
    assert not limits.is_short(enough)
    assert limits.is_short(room(free=enough.free_bytes - 1))
    assert limits.lacks(enough, paused=True) is None, "and until it goes on"
    assert not limits.is_short(room(free=100 * GB)), "there can be enough"


def test_inodes_are_short_before_intake_stops() -> None:
    limits = Limits(watermark_percent=100, reserve_gb=0)
    assert limits.is_short(room(free_inodes=10_999))
    assert not limits.is_short(room(free_inodes=11_000))
    assert not limits.is_short(room(inodes=800, free_inodes=500))
    assert not limits.is_short(room(inodes=0, free_inodes=0))


def test_a_quota_is_what_counts_when_it_is_smaller(tmp_path: Path) -> None:
    assert measure(str(tmp_path), 1000, 400).total_bytes == 1000
    assert measure(str(tmp_path), 1000, 400).free_bytes == 600
    assert measure(str(tmp_path), 1000, 4000).free_bytes == 0
    assert measure(str(tmp_path), None, 400).total_bytes > 1000
