"""Measures everything, or some parts, and writes `bench/results/`: `python -m bench --help`."""

import argparse
import signal
import sys
import time
from collections.abc import Callable

from bench import curves, end_to_end, export, extract, report
from bench.load import KINDS
from bench.place import Place, open_place
from bench.plot import bars
from bench.receive import REFERENCE, matrix_row
from bench.report import Section

_PEERS_AT = 4  # associations: the slower peers are asked there


def main() -> None:
    """Measure the gateway beside its peers, in interleaved rounds of one run."""
    parts: dict[str, Callable[[Place, argparse.Namespace], Section]] = {
        "receive": _receive,
        "extract": lambda place, _: extract.measure(place),
        "export": lambda place, _: export.measure(place),
        "latency": lambda place, _: curves.latency(place),
        "end-to-end": lambda place, _: end_to_end.measure(place),
        "ledger": lambda place, _: curves.growth(place),
        "receivers": lambda place, _: curves.more_receivers(place),
        "associations": lambda place, _: curves.more_associations(place),
    }
    parser = argparse.ArgumentParser(prog="python -m bench", description=main.__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}; all by default")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds (default 7)")
    parser.add_argument(
        "--seconds", type=float, default=200.0, help="after which a comparison ends with fewer rounds (default 200)"
    )
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS), help="sizes of objects (receive)")
    parser.add_argument("--associations", nargs="*", type=int, default=[1, 4, 16], help="at once (receive)")
    parser.add_argument("--nagle", choices=["on", "off", "both"], default="both", help="Nagle's algorithm (receive)")
    parser.add_argument(
        "--peers", action=argparse.BooleanOptionalAction, default=True, help="Orthanc and pynetdicom too (receive)"
    )
    parser.add_argument("--objects", type=int, default=0, help="objects an association sends (receive)")
    parser.add_argument("--name", default="", help="name of the result's files (receive), when it is a part of all")
    chosen = parser.parse_args()
    unknown = set(chosen.parts) - set(parts)
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}: choose of {', '.join(parts)}")
    # What was started is a session of its own: it must be ended when this is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    began = time.monotonic()

    def tell(line: str) -> None:
        print(f"  {time.monotonic() - began:5.0f} s  {line}", file=sys.stderr, flush=True)

    with open_place(chosen.rounds, chosen.seconds, tell) as place:
        for name in chosen.parts or parts:
            section = parts[name](place, chosen)
            section.save()
            print("\n".join(section.tables), flush=True)


def _receive(place: Place, chosen: argparse.Namespace) -> Section:
    section = Section(chosen.name or "receive", "Receiving, the whole gateway beside its peers")
    groups = []
    for kind in (KINDS[name] for name in chosen.kinds):
        for associations in chosen.associations:
            for nagle in {"both": [False, True], "off": [False], "on": [True]}[chosen.nagle]:
                peers = chosen.peers and not nagle and associations == _PEERS_AT and kind is not KINDS["multiframe"]
                series = matrix_row(place, kind, associations, nagle=nagle, peers=peers, objects=chosen.objects)
                title = f"{kind.name}, {associations} associations, Nagle {'on' if nagle else 'off'}"
                section.tables.append(report.comparison(title, series))
                base = next(one for one in series if one.name == REFERENCE)
                groups.append((title, {one.name: one.ratio_to(base) for one in series if one is not base}))
    section.plots[section.name] = bars(f"Receiving rate as a ratio to {REFERENCE} (median of paired rounds)", groups)
    return section


if __name__ == "__main__":
    main()
