"""What lies in open shards, on a real spool."""

import os
import time
from collections.abc import Collection
from pathlib import Path

import pytest

from actors.processor.filemeta import called_ae_title
from actors.processor.shards import OpenShards
from protocol.spool import ShardWriter, Spool
from tests.actors.processor.world import file_meta


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path)
    made.create()
    return made


def nothing(identifiers: Collection[str]) -> Collection[str]:
    return ()


def make_old(spool: Spool, shard: str) -> None:
    """Give a shard's directory a time stamp of a minute ago."""
    then = time.time() - 60
    os.utime(spool.instances / shard, (then, then))


def test_it_tells_what_is_missing_and_what_is_in_transit(spool: Spool) -> None:
    writer = ShardWriter(spool, "receiver")
    one, two = writer.open_part("a", 1), writer.open_part("a", 2)
    writer.publish([one])
    shards = OpenShards(spool, nothing)
    listing = shards.look()
    assert (listing.missing, listing.transit) == ({one.identifier}, {two.identifier})
    shards.put_on_record([one.identifier])
    assert shards.is_on_record(one.identifier)
    writer.publish([two])
    listing = shards.look()
    assert (listing.missing, listing.transit) == ({two.identifier}, frozenset())
    writer.close()


def test_rows_of_before_are_found_when_a_shard_is_new_here(spool: Spool) -> None:
    writer = ShardWriter(spool, "receiver")
    one, two = writer.open_part("a", 1), writer.open_part("a", 2)
    writer.publish([one, two])
    shards = OpenShards(spool, {one.identifier}.intersection)
    assert shards.look().missing == {two.identifier}
    assert shards.is_on_record(one.identifier)
    writer.close()


def test_a_shard_is_sealed_when_its_writer_moved_on_and_all_is_on_record(spool: Spool) -> None:
    writer = ShardWriter(spool, "receiver")
    part = writer.open_part("a", 1)
    writer.publish([part])
    shard = part.shard
    shards = OpenShards(spool, nothing)
    shards.put_on_record([part.identifier])
    make_old(spool, shard)
    shards.look()
    assert shards.sealable() == [], "its writer may still use it"
    newer = f"{shard[:-4]}{int(shard[-4:]) + 1:04d}"
    (spool.instances / newer).mkdir()
    shards.look()
    assert shards.sealable() == [shard]
    shards.seal([shard])
    assert shards.is_on_record(part.identifier)
    writer.close()
    shards.look()
    make_old(spool, newer)
    shards.look()
    assert shards.sealable() == [newer], "its writer is gone"


def test_a_change_in_a_settled_shard_is_seen(spool: Spool) -> None:
    writer = ShardWriter(spool, "receiver")
    part = writer.open_part("a", 1)
    writer.publish([part])
    shards = OpenShards(spool, nothing)
    make_old(spool, part.shard)
    assert shards.look().missing == {part.identifier}
    assert shards.look().missing == {part.identifier}
    os.unlink(spool.instance_path(part.identifier))
    assert shards.look().missing == frozenset()
    writer.close()


def test_what_is_no_shard_is_left_alone(spool: Spool) -> None:
    (spool.instances / "lost+found").mkdir()
    (spool.instances / "notes.txt").touch()
    shards = OpenShards(spool, nothing)
    assert shards.look().missing == frozenset()
    assert shards.sealable() == []


@pytest.mark.parametrize(
    ("content", "ae_title"),
    [
        (file_meta("CALLED", "CALLING", "1.2.3") + b"dataset", "CALLED"),
        (file_meta("SIXTEEN CHARS AE", "C", "1.2.3"), "SIXTEEN CHARS AE"),
        (b"", ""),
        (bytes(132), ""),
        (file_meta("CALLED", "CALLING", "1.2.3")[:200], ""),
        (bytes(128) + b"DICM" + b"\x02\x00\x00\x00OB\x00\x00\xff\xff\xff\xff", ""),
    ],
)
def test_the_called_ae_title_stands_in_the_file_meta_group(tmp_path: Path, content: bytes, ae_title: str) -> None:
    path = tmp_path / "file.dcm"
    path.write_bytes(content)
    assert called_ae_title(str(path)) == ae_title
