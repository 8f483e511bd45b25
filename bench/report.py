"""What was measured, in Markdown, with the machine that it was measured on."""

import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.receive import REFERENCE, Series

RESULTS = Path(__file__).parent / "results"


@dataclass
class Section:
    """What one part has to say.

    Args:
        name: of its files.
        title: its heading.
        tables: in Markdown.
        plots: SVG by the name of its file.
    """

    name: str
    title: str
    tables: list[str] = field(default_factory=list)
    plots: dict[str, str] = field(default_factory=dict)

    def save(self) -> None:
        """Write `bench/results/`."""
        RESULTS.mkdir(exist_ok=True)
        shown = [f"![{name}]({name}.svg)\n" for name in self.plots]
        head = [f"# {self.title}", "", f"{machine()} {_load()} Medians with minimum and maximum.", ""]
        (RESULTS / f"{self.name}.md").write_text("\n".join([*head, *self.tables, *shown]))
        for name, drawing in self.plots.items():
            (RESULTS / f"{name}.svg").write_text(drawing)


def machine() -> str:
    """This machine in some sentences."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    kernel = platform.release().partition("-")[0]
    return (
        f"{cores} cores of {model}, {memory:.0f} GiB of memory, Linux {kernel}, {_file_system()}, {_python()}, "
        f"DCMTK {_dcmtk()}."
    )


def _load() -> str:
    """How busy the machine was beside us: the bench itself makes about 3."""
    return f"The load average at the end was {os.getloadavg()[1]:.0f} (5 minutes)."


def _file_system() -> str:
    """The file system that is measured, and whether ext4 has a journal there."""
    place = os.environ.get("BENCH_DIRECTORY", "/tmp")  # where `tempfile` goes
    device = os.stat(place).st_dev
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] == f"{os.major(device)}:{os.minor(device)}":
            kind, source = fields[fields.index("-") + 1 : fields.index("-") + 3]
            features = Path("/proc/fs/jbd2")
            journal = any(entry.name.startswith(Path(source).name) for entry in features.glob("*"))
            return f"{kind} {'with' if journal else 'without'} a journal" if kind == "ext4" else kind
    return "unknown file system"


def _python() -> str:
    """Its version, and whose it is: distributions build theirs with more care than most others do."""
    own = os.path.realpath(sys.executable).startswith("/usr/bin/")
    return f"{'the system' if own else 'no system'}'s Python {platform.python_version()}"


def _dcmtk() -> str:
    program = shutil.which("storescp")
    if program is None:
        return "is missing"
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    return told.partition("storescp v")[2].split(maxsplit=1)[0] if "storescp v" in told else "unknown"


def spread(values: Sequence[float], digits: int = 0) -> str:
    """A median with minimum and maximum."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def comparison(title: str, series: Sequence[Series]) -> str:
    """One comparison, with the median of the paired ratios to the reference."""
    base = next(one for one in series if one.name == REFERENCE)
    columns = [
        *("receiving side", "instances/s", "MB/s", f"ratio to {REFERENCE}", "CPU s/GB of receivers"),
        *("of all, with what follows", "peak MB of all", "of one receiver", "lost"),
    ]
    lines = [
        f"## {title}",
        "",
        f"{len(base.rates)} rounds.",
        "",
        "| " + " | ".join(columns) + " |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in series:
        lines.append(
            f"| {one.name} | {spread(one.rates)} | {spread(one.megabytes)} "
            f"| {one.ratio_to(base):.2f} | {spread(one.receivers_cpu_per_gb, 2)} | {spread(one.cpu_per_gb, 2)} "
            f"| {one.peak_bytes / 1e6:.0f} | {one.receiver_peak_bytes / 1e6:.0f} | {one.lost} |"
        )
    ours = [one for one in series if one.name.startswith("gateway")]
    for other in series:
        if other is not base and other not in ours:
            ratios = ", ".join(f"{one.name}: {one.ratio_to(other):.1f}" for one in ours)
            lines += ["", f"Ratio to {other.name}: {ratios}."]
    return "\n".join([*lines, ""])


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Any other table."""
    lines = [f"## {title}", "", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([*lines, ""])
