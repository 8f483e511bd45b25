"""Kill points: the table and the code agree, and only an armed one acts."""

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from protocol import killpoints

_REPOSITORY = Path(__file__).resolve().parents[2]
_SOURCES = ("actors", "protocol", "supervisor", "cli")
_REACH_TWICE = "from protocol import killpoints; killpoints.reach('api.committed'); killpoints.reach('api.committed')"


def reached_in_code() -> list[str]:
    """The argument of every call of `killpoints.reach`."""
    found = []
    for directory in _SOURCES:
        for path in sorted((_REPOSITORY / directory).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "killpoints.reach":
                    found.append(ast.literal_eval(node.args[0]))
    return found


def run(directory: Path, program: str) -> int:
    environ = {**os.environ, killpoints.KILL_DIRECTORY: str(directory)}
    return subprocess.run([sys.executable, "-c", program], cwd=_REPOSITORY, env=environ, check=False).returncode


def test_every_point_is_in_the_code_once_and_no_other() -> None:
    each_platform_has = ["submitter.file-linked"]
    assert sorted(reached_in_code()) == sorted([*killpoints.POINTS, *each_platform_has])


def test_points_are_named_after_their_actor() -> None:
    kinds = {path.name for path in (_REPOSITORY / "actors").iterdir() if (path / "__init__.py").exists()}
    assert {name.partition(".")[0] for name in killpoints.POINTS} == kinds


def test_an_armed_point_ends_one_process_once(tmp_path: Path) -> None:
    (tmp_path / "api.committed").write_text("kill")
    assert run(tmp_path, _REACH_TWICE) == -signal.SIGKILL
    (taken,) = tmp_path.iterdir()
    assert taken.name.startswith("api.committed.")
    assert run(tmp_path, _REACH_TWICE) == 0


def test_another_armed_point_does_nothing(tmp_path: Path) -> None:
    (tmp_path / "api.access-written").write_text("kill")
    assert run(tmp_path, _REACH_TWICE) == 0


def test_it_can_hang(tmp_path: Path) -> None:
    (tmp_path / "api.committed").write_text("hang")
    environ = {**os.environ, killpoints.KILL_DIRECTORY: str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", _REACH_TWICE], cwd=_REPOSITORY, env=environ)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    process.kill()
    process.wait(10.0)


@pytest.mark.skipif(killpoints.KILL_DIRECTORY in os.environ, reason="points are armed in this process")
def test_without_the_variable_nothing_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "api.committed").write_text("kill")
    monkeypatch.chdir(tmp_path)
    killpoints.reach("api.committed")
    assert (tmp_path / "api.committed").exists()
