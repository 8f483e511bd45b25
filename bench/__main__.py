"""Measures everything, or a part, and writes `bench/results/`: `python -m bench --help`."""

import argparse
import shutil
import tempfile
from pathlib import Path

from bench import extract, load, receivers, report
from bench.receive import Series, compare, gateways

_REFERENCE = "storescp --fork"
_RESULTS = Path(__file__).parent / "results"
_KINDS = {"small": load.SMALL, "ct": load.CT, "multiframe": load.MULTI_FRAME}


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=main.__doc__)
    parser.add_argument("--what", nargs="*", choices=["receive", "extract"], default=["receive", "extract"])
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds (default 7)")
    parser.add_argument("--kinds", nargs="*", choices=_KINDS, default=list(_KINDS), help="sizes of objects")
    parser.add_argument("--associations", nargs="*", type=int, default=[1, 4, 16])
    parser.add_argument("--nagle", choices=["on", "off", "both"], default="both", help="the senders' algorithm")
    parser.add_argument(
        "--peers", action=argparse.BooleanOptionalAction, default=True, help="Orthanc and pynetdicom too"
    )
    parser.add_argument("--objects", type=int, default=0, help="objects an association sends")
    parser.add_argument("--save", action="store_true", help="write bench/results/")
    chosen = parser.parse_args()
    if "extract" in chosen.what:
        _extract(chosen)
    if "receive" in chosen.what:
        _receive(chosen)


def _extract(chosen: argparse.Namespace) -> None:
    measured = extract.table(extract.compare(chosen.rounds, lambda line: print("  " + line, flush=True)))
    print(measured)
    if chosen.save:
        _save("extract.md", "Describing", measured)


def _receive(chosen: argparse.Namespace) -> None:
    results: list[tuple[str, list[Series]]] = []
    for kind in chosen.kinds:
        for associations in chosen.associations:
            for nagle in {"both": ["off", "on"]}.get(chosen.nagle, [chosen.nagle]):
                title = f"{_KINDS[kind].name}, {associations} associations, Nagle {nagle}"
                # With Nagle's algorithm on, a peer needs 90 ms an object: fewer say the same.
                fewer = 50 if nagle == "on" else 0
                measured = _measure(_KINDS[kind], associations, chosen.objects or fewer, nagle, chosen)
                results.append((title, measured))
                print(report.table(title, measured, _REFERENCE), flush=True)
    if chosen.save:
        _save("receive.md", "Receiving", *(report.table(title, series, _REFERENCE) for title, series in results))
        (_RESULTS / "receive.svg").write_text(report.plot(results, _REFERENCE))


def _save(name: str, title: str, *tables: str) -> None:
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / name).write_text("\n".join([f"# {title}", "", report.machine(), "", *tables]))


def _measure(kind: load.Kind, associations: int, objects: int, nagle: str, chosen: argparse.Namespace) -> list[Series]:
    each = objects or max(kind.objects // max(1, associations // 4), 4)
    sides = [*gateways(), receivers.storescp]
    if chosen.peers and nagle == "off" and associations == 4 and kind is not load.MULTI_FRAME:
        sides += [receivers.orthanc, receivers.pynetdicom]
    memory = Path(tempfile.mkdtemp(prefix="bench-load-", dir="/dev/shm"))
    try:
        sent = load.Load(memory, kind, associations, each)
        return compare(
            sent, sides, chosen.rounds, nodelay=nagle == "off", tell=lambda line: print("  " + line, flush=True)
        )
    finally:
        shutil.rmtree(memory, ignore_errors=True)


if __name__ == "__main__":
    main()
