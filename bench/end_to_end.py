"""End to end: from the last response of studies that close at once to the start of their pipelines."""

import functools
import json
import statistics

from bench import receivers
from bench.load import CT, Load
from bench.place import Place
from bench.plot import curves
from bench.receivers import WholeGateway
from bench.report import Section, spread, table

STUDIES = (1, 10, 100)
_OBJECTS = 4
_SENDERS = 4


def measure(place: Place) -> Section:
    """1, 10 and 100 studies at once."""
    section = Section("end-to-end", "From the last response to the pipeline's start")
    rows, lines = [], []
    with receivers.gateway(place.on_disk(), sync=True) as side:
        for count in STUDIES:
            with place.in_memory() as memory:
                load = Load(memory, CT, count, _OBJECTS)
                medians, lasts = [], []
                for number in place.turns():
                    delays = _round(side, load)
                    if number:
                        medians.append(statistics.median(delays))
                        lasts.append(max(delays))
                        place.tell(f"{count} studies: the last pipeline started {lasts[-1]:.2f} s after its deadline")
                rows.append([count, spread(medians, 2), spread(lasts, 2), f"{max(lasts):.2f}"])
                lines.append((float(count), statistics.median(lasts)))
    columns = ["studies", "the median study", "the last study", "the worst round"]
    title = (
        f"Seconds from a group's deadline ({receivers.GROUP_SECONDS} s after its last object was stored) to its "
        f"pipeline's start; {_OBJECTS} CT objects a study"
    )
    section.tables.append(table(title, columns, rows))
    section.plots["end-to-end"] = curves(
        "The last pipeline start after its group's deadline", "studies that close at once", "s", {"gateway": lines}
    )
    return section


def _round(side: WholeGateway, load: Load) -> list[float]:
    """Send all, and see by their shims' records when the pipelines started; seconds after the deadlines."""
    last = side.query("SELECT COALESCE(MAX(group_id), 0) FROM instance_group")[0][0]
    load.renew()
    load.send(side.port, receivers.CALLED, nodelay=True, senders=min(_SENDERS, len(load.studies)))
    objects = len(load.studies) * load.each
    lost = objects - side.settle(objects)
    if lost:
        raise RuntimeError(f"{lost} of {objects} objects came into no job")
    started = functools.partial(_started_ns, side)
    deadlines = side.query(
        "SELECT instance_group.last_wall_ns, run.rowid FROM instance_group JOIN job USING (group_id) "
        f"JOIN run USING (job_id) WHERE group_id > {last}"
    )
    if len(deadlines) != len(load.studies):
        raise RuntimeError(f"{len(deadlines)} jobs for {len(load.studies)} studies")
    side.empty()
    return [(started(run) - stored) / 1e9 - receivers.GROUP_SECONDS for stored, run in deadlines]


def _started_ns(side: WholeGateway, row: int) -> int:
    ((payload,),) = side.query(f"SELECT payload_id FROM run WHERE rowid = {row}")
    result = side.running.spool / "platform" / str(payload) / "runs" / "1" / "result.json"
    return int(json.loads(result.read_text())["started_ns"])
