"""Curves of receiving: what receivers, idle associations and a full ledger make of the rate; latency at rising load."""

import contextlib
import functools
import resource
import sqlite3
import statistics
import threading
import time
from collections.abc import Sequence

from bench import receivers
from bench.load import CT, SMALL, Load
from bench.place import Place
from bench.plot import curves
from bench.receive import Series, compare
from bench.receivers import Receiving, Start
from bench.report import Section, spread, table
from protocol.ledger import Ledger
from tests.faults.scu import Association, make_dataset
from tests.gateway import Gateway
from tests.samples import new_uid

ON_RECORD = (10_000, 100_000, 1_000_000)
RECEIVERS = (1, 2, 4)
OPEN = (1, 4, 16, 64, 250, 1000)
RATES = (25, 50, 100, 200, 400)
_LATENCY_SECONDS = 4.0
_SENDERS = 8
_PIXELS = bytes(524_288)


def growth(place: Place) -> Section:
    """The rate with 10 thousand, 100 thousand and 1 million instances on record, all in the hot table."""
    sides: list[Start] = [
        functools.partial(
            receivers.gateway, sync=False, name=f"{count:,} on record", before=functools.partial(_fill, count=count)
        )
        for count in ON_RECORD
    ]
    section = Section("ledger", "Receiving with a growing ledger")
    lines = {}
    for kind in (SMALL, CT):
        with place.in_memory() as memory:
            series = compare(place, Load(memory, kind, 4, kind.objects), sides)
        section.tables.append(_table(f"{kind.name}, 4 associations, sync off", series))
        lines[kind.name] = [
            (float(count), one.ratio_to(series[0])) for count, one in zip(ON_RECORD, series, strict=True)
        ]
    title = "Rate, as a ratio to the one at 10 thousand instances on record"
    section.plots["ledger"] = curves(title, "instances on record", "ratio", lines, logarithmic=True)
    return section


def more_receivers(place: Place) -> Section:
    """The rate with 1, 2 and 4 receiver processes."""
    section = Section("receivers", "Receiving with 1, 2 and 4 receivers")
    lines = {}
    for sync in (False, True):
        sides: list[Start] = [
            functools.partial(
                receivers.gateway, sync=sync, name=f"{count} receivers", settings={"dicom.scp.receivers": count}
            )
            for count in RECEIVERS
        ]
        with place.in_memory() as memory:
            series = compare(place, Load(memory, CT, 4, CT.objects), sides)
        how = f"sync {'on' if sync else 'off'}"
        section.tables.append(_table(f"{CT.name}, 4 associations, {how}", series))
        lines[how] = [
            (float(count), statistics.median(one.rates)) for count, one in zip(RECEIVERS, series, strict=True)
        ]
    section.plots["receivers"] = curves("CT, 4 associations", "receivers", "instances/s", lines)
    return section


def more_associations(place: Place) -> Section:
    """The rate of 4 busy associations while others are open, up to 1000 together, and how long these took to open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    rows, points = [], []
    with (
        receivers.gateway(place.on_disk(), sync=False) as side,
        place.in_memory() as memory,
        contextlib.ExitStack() as idle,
    ):
        load = Load(memory, SMALL, 4, SMALL.objects)
        opened = 0
        for wanted in OPEN:
            start = time.monotonic()
            for _ in range(max(0, wanted - 4) - opened):
                one = Association(side.port, called=receivers.CALLED, calling=receivers.CALLED)
                idle.callback(one.release)
            fresh, opened = max(0, wanted - 4) - opened, max(0, wanted - 4)
            seconds = time.monotonic() - start
            busy = min(4, wanted)
            rates = []
            for _ in range(place.rounds):
                load.renew()
                taken = load.send(side.port, receivers.CALLED, nodelay=True, each=load.each * busy // 4, senders=busy)
                rates.append((load.each * busy // 4) * 4 / taken)
                side.calm(0)
            each = f"{seconds / fresh * 1e3:.1f}" if fresh else "-"
            rows.append([wanted, spread(rates), each])
            points.append((float(wanted), statistics.median(rates)))
            place.tell(f"{wanted} associations: {statistics.median(rates):.0f}/s")
    section = Section("associations", "Receiving with 1 to 1000 associations")
    columns = ["open associations", "instances/s", "ms to open one more"]
    title = f"{SMALL.name}, sync off; at most 4 associations send, the others are open and silent"
    section.tables.append(table(title, columns, rows))
    section.plots["associations"] = curves(title, "open associations", "instances/s", {"gateway": points})
    return section


def latency(place: Place) -> Section:
    """How long one C-STORE of a CT takes while so many a second are sent."""
    sides: list[Start] = [
        functools.partial(receivers.gateway, sync=False),
        functools.partial(receivers.gateway, sync=True),
        receivers.storescp,
    ]
    rows: list[list[object]] = []
    medians: dict[str, list[tuple[float, float]]] = {}
    tails: dict[str, list[tuple[float, float]]] = {}
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(start(place.on_disk())) for start in sides]
        for rate in RATES:
            for side in running:
                taken = sorted(_latencies(side, rate))
                median, tail = (taken[int(len(taken) * share)] * 1e3 for share in (0.5, 0.99))
                medians.setdefault(side.name, []).append((float(rate), median))
                tails.setdefault(side.name, []).append((float(rate), tail))
                rows.append([side.name, rate, f"{median:.1f}", f"{tail:.1f}"])
                place.tell(f"{side.name}, {rate}/s: median {median:.1f} ms, 99th percentile {tail:.1f} ms")
                side.settle(len(taken))
                side.empty()
    section = Section("latency", "Latency of a C-STORE at rising load")
    title = f"{CT.name}, {_SENDERS} associations, from when it was due to its response"
    section.tables.append(table(title, ["receiving side", "sent per second", "median ms", "99 % ms"], rows))
    section.plots["latency"] = curves(f"Median, {title}", "sent per second", "ms", medians, logarithmic=True)
    section.plots["latency-99"] = curves(f"99th percentile, {title}", "sent per second", "ms", tails, logarithmic=True)
    return section


def _latencies(side: Receiving, rate: int) -> list[float]:
    """Send at a steady rate, whatever the answers take; what is late began when it was due."""
    taken: list[float] = []
    start = time.monotonic() + 0.2

    def send(number: int) -> None:
        association = Association(side.port, called=receivers.CALLED, calling=receivers.CALLED)
        study = new_uid()
        for turn in range(int(rate * _LATENCY_SECONDS / _SENDERS)):
            due = start + (turn * _SENDERS + number) / rate
            uid = new_uid()
            dataset = make_dataset(uid, study, "PAT-1", _PIXELS)
            time.sleep(max(0.0, due - time.monotonic()))
            if association.store(uid, dataset) != 0:
                raise RuntimeError(f"{side.name} did not store an object")
            taken.append(time.monotonic() - due)
        association.release()

    threads = [threading.Thread(target=send, args=(number,)) for number in range(_SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = _SENDERS * int(rate * _LATENCY_SECONDS / _SENDERS)
    if len(taken) != expected:
        raise RuntimeError(f"{side.name}: {len(taken)} of {expected} objects were stored")
    return taken


def _table(title: str, series: Sequence[Series]) -> str:
    rows = [
        [one.name, spread(one.rates), f"{one.ratio_to(series[0]):.2f}", spread(one.cpu_per_gb, 2), one.lost]
        for one in series
    ]
    return table(title, ["", "instances/s", "ratio to the first", "CPU s/GB, with what follows", "lost"], rows)


def _fill(running: Gateway, *, count: int) -> None:
    """Put instances on record, 100 a group, as if each had been received and its pipeline had run."""
    running.write_configuration()
    Ledger(f"sqlite:///{running.ledger}").close()  # makes its tables
    now, each = time.time_ns(), 100
    with contextlib.closing(sqlite3.connect(running.ledger)) as ledger, ledger:
        ledger.executemany(
            "INSERT INTO instance_group (group_id, ae_title, processor, key_value, revision, state, instances, "
            "last_wall_ns, last_boot_ns, boot, opened_ns, closed_ns) VALUES "
            "(?, 'OLD', '', ?, 0, 'Closed', ?, ?, 0, '', ?, ?)",
            ((number + 1, new_uid(), each, now, now, now) for number in range(count // each)),
        )
        series = new_uid()
        ledger.executemany(
            "INSERT INTO instance (identifier, group_id, state, reason, called_ae_title, calling_ae_title, host, "
            "sop_class_uid, sop_instance_uid, transfer_syntax_uid, study_uid, series_uid, patient_id, attributes, "
            "size, dataset_offset, stored_wall_ns, stored_boot_ns, boot) VALUES "
            "(?, ?, 'Grouped', '', 'OLD', 'OLD', '127.0.0.1', ?, ?, '1.2.840.10008.1.2.1', ?, ?, 'PAT-OLD', '{}', "
            "526000, 900, ?, 0, '')",
            (
                (
                    *(f"20200101T000000-receiver_00000000-0001/old-{number:07d}", number // each + 1),
                    *("1.2.840.10008.5.1.4.1.1.2", new_uid(), f"2.25.{number // each}", series, now),
                )
                for number in range(count)
            ),
        )
