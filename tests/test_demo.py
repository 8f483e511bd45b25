"""`make demo` shows the whole journey, ends well, and leaves nothing behind."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parent.parent


def test_demo(tmp_path: Path) -> None:
    # Sockets' paths are short, so the directory is not pytest's own.
    with tempfile.TemporaryDirectory(prefix="demo-") as directory:
        ended = subprocess.run(
            [sys.executable, "-m", "demo.demo"],
            cwd=_REPOSITORY,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            env={**os.environ, "TMPDIR": directory},
        )
        assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
        for part in ("110 of 110", "group 1 of DEMO closed", "pipeline ended, Succeeded", "CT series 2", "MR series 1"):
            assert part in ended.stdout
        assert list(Path(directory).iterdir()) == []
