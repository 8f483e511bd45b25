"""`dicom-adapter dicomweb`: a study goes into a real Orthanc and comes back; errors are sentences with an exit code."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from cli import main
from tests.actors.exporter.stow.server import Reply, StowServer, as_json
from tests.peers import free_port, orthanc
from tests.samples import Study, dataset_bytes, make_study


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Done]


@pytest.fixture
def dicomweb(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in this process, which spares its start."""

    def run(*words: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["dicom-adapter", "dicomweb", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        told = capfd.readouterr()
        return Done(int(ended.value.code or 0), told.out, told.err)

    return run


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as ports:
        yield f"http://127.0.0.1:{ports['http']}/dicom-web"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, archive: str) -> Study:
    """Stored by the command itself, as a process of its own."""
    study = make_study(tmp_path_factory.mktemp("study") / "study", "PAT-WEB", 12, rows=64, series=2)
    command = [sys.executable, "-m", "cli", "dicomweb", "store", archive, str(study.directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "stored: 12 of 12 objects" in done.stdout
    return study


def test_query(dicomweb: Command, archive: str, study: Study) -> None:
    found = dicomweb("query", archive, "-m", "PatientID=PAT-WEB")
    assert study.uid in found.stdout
    assert "PAT-WEB" in found.stdout
    assert "no studies" in dicomweb("query", archive, "-m", "PatientID=PAT-NOBODY").stdout
    (one,) = json.loads(dicomweb("query", archive, "--study", study.uid, "--json").stdout)
    assert one["0020000D"]["Value"] == [study.uid]
    series = json.loads(dicomweb("query", archive, "--level", "series", "--study", study.uid, "--json").stdout)
    assert len(series) == 2
    instances = ("query", archive, "--level", "instances", "--study", study.uid, "--limit", "5", "--json")
    assert len(json.loads(dicomweb(*instances).stdout)) == 5


def test_retrieve_a_study_a_series_and_an_instance(
    dicomweb: Command, archive: str, study: Study, tmp_path: Path
) -> None:
    whole = dicomweb("retrieve", archive, "--study", study.uid, "-o", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    assert "retrieved: 12 objects" in whole.stdout
    files = {path.stem: path for path in (tmp_path / "whole" / study.uid).glob("*/*.dcm")}
    assert {uid: dataset_bytes(path) for uid, path in files.items()} == {
        uid: dataset_bytes(path) for uid, path in study.files.items()
    }
    first = next(iter(study.files))
    of_series = ("retrieve", archive, "--study", study.uid, "--series", files[first].parent.name)
    assert "retrieved: 6 objects" in dicomweb(*of_series, "-o", tmp_path / "series").stdout
    assert "retrieved: 1 objects" in dicomweb(*of_series, "--instance", first, "-o", tmp_path / "one").stdout
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 19


def test_what_cannot_be_is_a_sentence_and_an_exit_code(
    dicomweb: Command, archive: str, study: Study, tmp_path: Path
) -> None:
    text = tmp_path / "text"
    text.write_text("no DICOM")
    nobody = f"http://user:secret@127.0.0.1:{free_port()}/x"
    for code, says, *words in (
        (1, "no such", "retrieve", archive, "--study", "1.2.3.4.5", "-o", str(tmp_path)),
        (64, "no UID", "retrieve", archive, "--study", "../../etc", "-o", str(tmp_path)),
        (64, "goes with", "retrieve", archive, "--study", "1.2", "--instance", "1.3"),
        (64, "no level", "query", archive, "--level", "frames"),
        (64, "no match", "query", archive, "-m", "PatientID"),
        (64, "no address", "query", "ftp://host"),
        (64, "authentication type", "query", archive, "--auth-type", "Digest"),
        (69, "cannot be reached", "query", nobody),
        (1, "not stored", "store", archive, str(text)),
        (69, "cannot be reached", "store", nobody, str(study.directory)),
    ):
        done = dicomweb(*words)
        assert done.returncode == code, (words, done)
        assert says in done.stderr, (words, done.stderr)
        assert "Traceback" not in done.stderr
        assert "secret" not in done.stderr
    assert text in list(tmp_path.iterdir())


def test_what_the_server_says_of_each_file(dicomweb: Command, monkeypatch: pytest.MonkeyPatch, study: Study) -> None:
    first, second, *_ = study.files

    def answer(request: object) -> Reply:
        return Reply(202, as_json([first], {second: 0xA700}))

    monkeypatch.setenv("DICOMWEB_AUTH_ID", "me:secret")
    with StowServer(answer) as server:
        done = dicomweb("store", server.url, *study.part(0, 3), "--auth-type", "Basic")
    assert done.returncode == 1
    assert "stored: 1 of 3 objects" in done.stdout
    assert "0xA700" in done.stdout
    assert "does not name it" in done.stdout
    assert server.requests[0].headers["Authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("reply", "code", "says"),
    [
        (Reply(401), 1, "credentials"),
        (Reply(503), 69, "503"),
        (Reply(200, b"<html/>", "text/html"), 69, "does not answer as a DICOMweb service"),
        (Reply(413), 1, "413"),
    ],
)
def test_what_a_server_answers_instead(dicomweb: Command, study: Study, reply: Reply, code: int, says: str) -> None:
    with StowServer(lambda _: reply) as server:
        for words in (("store", server.url, *study.part(0, 1)), ("query", server.url)):
            done = dicomweb(*words)
            assert done.returncode == code, done
            assert says in done.stderr


def test_an_answer_that_is_cut_short_keeps_what_is_whole(dicomweb: Command, study: Study, tmp_path: Path) -> None:
    (first, second) = (path.read_bytes() for path in study.part(0, 2))
    body = b"--b\r\n\r\n" + first + b"\r\n--b\r\n\r\n" + second[:5000]
    kind = 'multipart/related; type="application/dicom"; boundary=b'
    with StowServer(lambda _: Reply(200, body, kind)) as server:
        done = dicomweb("retrieve", server.url, "--study", study.uid, "-o", tmp_path)
    assert done.returncode == 69
    assert "cut short" in done.stderr
    assert "1 objects are whole" in done.stderr
    (kept,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert kept.read_bytes() == first
