"""The spool: names, the durable write, and what is found after a crash."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import CannotCreateError, ConfigurationError
from protocol.spool import (
    ShardWriter,
    Spool,
    association_of,
    clean_component,
    new_association_id,
    payload_name,
    sync_file,
    write_durably,
    writer_of,
)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "spool")
    made.create()
    return made


def test_an_object_is_in_transit_until_it_is_published(spool: Spool) -> None:
    writer = ShardWriter(spool, "receiver")
    part = writer.open_part(new_association_id(), 1)
    os.write(part.fd, b"object")
    (shard,) = spool.open_shards(())
    assert spool.list_shard(shard) == ([], [part.identifier])
    sync_file(part.fd)
    writer.publish([part])
    assert spool.list_shard(shard) == ([part.identifier], [])
    path = Path(spool.instance_path(part.identifier))
    assert path.read_bytes() == b"object"
    assert path.stat().st_mode & 0o777 == 0o440
    assert writer_of(shard) == writer.writer


def test_a_discarded_object_leaves_nothing(spool: Spool) -> None:
    writer = ShardWriter(spool, "receiver")
    part = writer.open_part(new_association_id(), 1)
    part.discard()
    part.discard()
    assert spool.list_shard(part.shard) == ([], [])


def test_the_file_name_tells_association_and_position(spool: Spool) -> None:
    association = new_association_id()
    part = ShardWriter(spool, "receiver").open_part(association, 42)
    stem = part.identifier.partition("/")[2]
    assert association_of(stem) == association
    assert stem.endswith("-000042")


def test_a_reclaimed_shard_is_replaced(spool: Spool) -> None:
    writer = ShardWriter(spool, "receiver")
    first = writer.open_part(new_association_id(), 1)
    first.discard()
    os.rmdir(spool.instances / first.shard)
    second = writer.open_part(new_association_id(), 1)
    assert second.shard != first.shard
    assert Path(second.path).exists()


def test_what_a_killed_writer_had_in_transit_is_removed_and_a_living_ones_is_kept(spool: Spool) -> None:
    program = (
        "import os, sys\n"
        "from protocol.spool import ShardWriter, Spool, new_association_id\n"
        "writer = ShardWriter(Spool(sys.argv[1]), 'receiver')\n"
        "part = writer.open_part(new_association_id(), 1)\n"
        "print(writer.writer, part.path, flush=True)\n"
        "sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(spool.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    name, path = child.stdout.readline().split()
    mine = ShardWriter(spool, "receiver")
    part = mine.open_part(new_association_id(), 1)
    assert spool.living_writers() == {name, mine.writer}
    child.kill()
    child.communicate()
    alive = spool.living_writers()
    assert alive == {mine.writer}
    assert spool.remove_parts(alive) == 1
    assert not Path(path).exists()
    assert Path(part.path).exists()


def test_a_closed_writer_is_no_longer_alive(spool: Spool) -> None:
    writer = ShardWriter(spool, "receiver")
    writer.close()
    assert spool.living_writers() == set()


def test_sealed_shards_are_left_out_of_the_scan(spool: Spool) -> None:
    part = ShardWriter(spool, "receiver").open_part(new_association_id(), 1)
    assert spool.open_shards({part.shard}) == []


def test_a_second_owner_is_refused_with_the_first_ones_process_id(spool: Spool) -> None:
    held = spool.lock()
    with pytest.raises(ConfigurationError, match=f"in use by another dicom-adapter .process {os.getpid()}"):
        spool.lock()
    os.close(held)
    os.close(spool.lock())


def test_a_place_that_cannot_be_made_is_named_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotCreateError, match=r"storage\.temporary"):
        Spool(tmp_path / "file" / "spool").create()


def test_a_small_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "access.json"
    write_durably(path, b"old")
    write_durably(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["access.json"]


@given(st.text(max_size=200))
def test_no_value_leaves_its_place_in_a_payload(value: str) -> None:
    cleaned = clean_component(value)
    assert cleaned
    assert cleaned not in (".", "..")
    assert "/" not in cleaned
    assert "\0" not in cleaned
    assert cleaned.isprintable()
    assert not cleaned.startswith("-")


def test_what_needs_no_cleaning_is_kept() -> None:
    assert payload_name("PID-123_4", "1.2.3", "1.2.3.4", "1.2.3.4.5") == "dcm/PID-123_4/1.2.3/1.2.3.4/1.2.3.4.5.dcm"


@pytest.mark.parametrize("hostile", ["..", ".", "", "../x", "/etc/passwd", "a\0b", "a\r\nb", "\x1b[31m", "$(id)"])
def test_hostile_values_stay_below_the_payload(hostile: str) -> None:
    name = payload_name(hostile, hostile, hostile, hostile)
    assert name.count("/") == 4
    assert os.path.normpath(name) == name
