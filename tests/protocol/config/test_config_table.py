"""Every setting: default, smallest, largest, one below, one above, a wrong type, null; and none is left out."""

import json
import os
import re
from typing import Any, NamedTuple

import msgspec
import pytest

from protocol.config.table import BY_KEY, SETTINGS, key_of

CORES = len(os.sched_getaffinity(0))
INT32 = 2**31 - 1


class Is(NamedTuple):
    """A written value that is used in another form."""

    written: object
    used: object


class Limits(NamedTuple):
    """One row: what is used without the setting, what is just allowed, and what is just not."""

    default: object
    smallest: object
    largest: object
    below: object
    above: object
    wrong_type: object
    beside: dict[str, object] = {}  # noqa: RUF012 - never written to; other settings that the allowed values need


def whole(default: int, smallest: int, largest: int = INT32) -> Limits:
    return Limits(default, smallest, largest, smallest - 1, largest + 1, True)


def seconds(default: float, smallest: float, largest: float) -> Limits:
    return Limits(default, smallest, largest, round(smallest - 0.1, 1), largest + 0.1, "soon")


def flag(default: bool) -> Limits:
    return Limits(default, False, True, -1, 2, "yes")


SCP, SCU, PLATFORM = "DicomAdapter.dicom.scp.", "DicomAdapter.dicom.scu.", "DicomAdapter.services.platform."
STORAGE, API = "DicomAdapter.storage.", "DicomAdapter.api."
SYNTAX = "1.2.840.10008.1.2"
OPEN = {"DicomAdapter.api.allowAnonymous": True}
NO_RESERVE = {"DicomAdapter.storage.reserveSpaceGB": 0}
CLARA = {PLATFORM + "endpoint": "clara:1"}
TLS = {**CLARA, PLATFORM + "tls.enabled": True}
TAGS = ["00080020", "00080060", "00081030", "0008103E", "00100020", "00100030", "00101010", "0020000D"]

TABLE = {
    SCP + "port": whole(104, 1, 65535),
    SCP + "bind": Limits(
        ["0.0.0.0"], Is("127.0.0.1", ["127.0.0.1"]), ["0.0.0.0", "::"], [], ["256.0.0.1"], {"address": "::"}
    ),
    SCP + "receivers": whole(min(CORES, 4), 1, 64),
    SCP + "maximumNumberOfAssociations": whole(25, 1, 1000),
    SCP + "maximumAssociationsPerHost": whole(0, 0, 1000),
    SCP + "verification.enabled": flag(True),
    SCP + "verification.transferSyntaxes": Limits(
        [SYNTAX + ".1", SYNTAX, SYNTAX + ".2"], [SYNTAX], [SYNTAX, SYNTAX + ".4.203"], [], ["1.2.840.10008.1.1"], 5
    ),
    SCP + "logDimseDatasets": flag(False),
    SCP + "rejectUnknownSources": flag(True),
    SCP + "drainSeconds": seconds(900, 0, 86400),
    SCP + "repeatSeconds": seconds(60, 0, 86400),
    SCP + "limits.firstBytesSeconds": seconds(10, 0.1, 3600),
    SCP + "limits.pduSeconds": seconds(60, 0.1, 3600),
    SCP + "limits.idleSeconds": seconds(300, 0.1, 86400),
    SCP + "limits.writeSeconds": seconds(30, 0.1, 3600),
    SCP + "limits.maxPduBytes": whole(131072, 4096, 1048576),
    SCP + "limits.maxAssociateBytes": whole(1048576, 4096, 16777216),
    SCP + "limits.maxCommandBytes": whole(65536, 1024, 1048576),
    SCU + "aeTitle": Limits("ClaraSCU", "A", "ABCDEFGHIJKLMNOP", " ", "ABCDEFGHIJKLMNOPQ", ["A"]),
    SCU + "logDimseDatasets": flag(False),
    SCU + "logDataPDUs": flag(False),
    SCU + "maximumNumberOfAssociations": whole(8, 1, 100),
    SCU + "export.maximumRetries": whole(3, 0),
    SCU + "export.failureThreshold": Limits(0.5, 0, 1, -0.01, 1.01, "half"),
    SCU + "export.pollFrequencyMs": whole(500, 1),
    SCU + "export.agent": Limits("DICOMweb", "A", "A" * 64, "", "A" * 65, {}),
    PLATFORM + "endpoint": Limits("embedded", "clara:1", "[2001:db8::1]:65535", "clara:0", "clara:65536", 5),
    PLATFORM + "maxRetries": whole(3, 0),
    PLATFORM + "retryDelaySeconds": whole(180, 0),
    PLATFORM + "parallelUploads": whole(4, 1),
    PLATFORM + "uploadMetadata": flag(False),
    PLATFORM + "metadataDicomSource": Limits(
        TAGS,
        Is(["(0010,0010)"], ["00100010"]),
        Is(["0008,0020", "00201209"], ["00080020", "00201209"]),
        [],
        ["0008,1140"],
        80020,
    ),
    PLATFORM + "concurrentRuns": whole(CORES, 1, 1000),
    PLATFORM + "resultsDays": whole(0, 0, 36500),
    PLATFORM + "timeoutSeconds": seconds(30, 0.1, 3600),
    PLATFORM + "tls.enabled": flag(False)._replace(beside=CLARA),
    PLATFORM + "tls.caFile": Limits(None, "/t", "/a/" + "b" * 200, " ", "/a\nb", ["/t"], beside=TLS),
    PLATFORM + "tls.certificateFile": Limits(
        None, "/t", "/a/" + "b" * 200, " ", "/a\nb", ["/t"], beside={**TLS, PLATFORM + "tls.keyFile": "/k"}
    ),
    PLATFORM + "tls.keyFile": Limits(
        None, "/t", "/a/" + "b" * 200, " ", "/a\nb", ["/t"], beside={**TLS, PLATFORM + "tls.certificateFile": "/c"}
    ),
    "DicomAdapter.services.resultsServiceEndpoint": Limits(
        "embedded", "http://h", Is("https://h:65535/x/", "https://h:65535/x"), "h:80", "http://h:65536", True
    ),
    "DicomAdapter.services.stopSeconds": seconds(10, 0, 3600),
    STORAGE + "temporary": Limits("/payloads", "/", "/a/" + "b" * 200, "", "/a\nb", ["/payloads"]),
    STORAGE + "watermarkPercent": whole(75, 1, 100),
    STORAGE + "reserveSpaceGB": Limits(5, 0, INT32, -0.1, INT32 + 1, "much"),
    STORAGE + "volumeSize": Limits(None, Is("1", 1), Is("7Ei", 7 * 2**60), 0, "9Ei", "50 gigabytes", beside=NO_RESERVE),
    STORAGE + "syncOnStore": flag(True),
    API + "bind": Limits("127.0.0.1", Is("localhost", "127.0.0.1"), "::", "127.0.0", "256.0.0.1", ["::1"], beside=OPEN),
    API + "port": whole(5000, 1, 65535),
    API + "token": Limits(None, "a", "a" * 512, " ", "a" * 513, ["a"]),
    API + "tokenFile": Limits(None, "/t", "/a/" + "b" * 200, " ", "/a\nb", ["/t"]),
    API + "allowAnonymous": flag(False),
    "DicomAdapter.database.historyDays": whole(90, 1, 36500),
    "DicomAdapter.database.volumeSize": Limits(None, 1, Is("7Ei", 7 * 2**60), 0, "9Ei", True),
    "DicomAdapter.runtimeDirectory": Limits("/state/dicomadapter.run", "/", "/a/" + "b" * 200, " ", "/a\nb", []),
    "ConnectionStrings.DicomAdapterDatabase": Limits(
        "sqlite:////state/dicomadapter.db",
        Is("Data Source=a", "sqlite:////state/a"),
        "postgresql://u@h/d",
        "Data Source=",
        "mysql://u@h/d",
        5,
    ),
    "Logging.LogLevel": Limits(
        {"Default": "Information"},
        Is({"default": "TRACE"}, {"Default": "Trace"}),
        {"Default": "None"},
        {"Default": "Verbose"},
        {"Default": -1},
        "Debug",
    ),
    "Logging.Console.disableColors": flag(False),
    "Logging.Console.format": Limits("auto", Is("Text", "text"), "json", "", "xml", True),
    "AllowedHosts": Limits(["*"], Is("a", ["a"]), Is("a;*.b;[::1]", ["a", "*.b", "[::1]"]), "", "a/c", {"host": "a"}),
}


def in_force(loaded: Any, path: str) -> object:
    """Return a setting's value, as JSON would have it."""
    value = json.loads(msgspec.json.encode(loaded.settings))
    for name in BY_KEY[key_of(path.split("."))].target:
        value = value[name]
    return value


def test_no_setting_is_left_out() -> None:
    """The table of this test has exactly the settings of the program."""
    assert sorted(TABLE) == sorted(setting.path for setting in SETTINGS)


@pytest.mark.parametrize("path", TABLE)
def test_default(configure, path):
    """Without the setting its default is in force, and says that it is the default."""
    loaded = configure(STATE_DIRECTORY="/state")
    assert in_force(loaded, path) == TABLE[path].default
    assert loaded.origins.get(path) in {"default", None}


@pytest.mark.parametrize("path", TABLE)
def test_null_is_as_if_not_given(configure, path):
    """Null leaves the default, as the documentation says."""
    loaded = configure({path: None}, STATE_DIRECTORY="/state")
    assert in_force(loaded, path) == TABLE[path].default


def edges(*names: str) -> list[Any]:
    """Return path, written and used value of the named edges of every setting."""
    rows = [(path, name, getattr(limits, name)) for path, limits in TABLE.items() for name in names]
    values = [(path, name, value if isinstance(value, Is) else Is(value, value)) for path, name, value in rows]
    return [pytest.param(path, *value, id=f"{path}-{name}") for path, name, value in values]


def scalars(rows: list[Any]) -> list[Any]:
    return [row for row in rows if not isinstance(row.values[1], list | dict)]


@pytest.mark.parametrize(("path", "written", "used"), edges("smallest", "largest"))
def test_allowed(configure, path, written, used):
    """What is just allowed is in force."""
    loaded = configure({**TABLE[path].beside, path: written}, STATE_DIRECTORY="/state")
    assert in_force(loaded, path) == used


@pytest.mark.parametrize(("path", "written", "used"), scalars(edges("smallest", "largest")))
def test_allowed_as_text(configure, path, written, used):
    """Numbers and booleans may be texts, as environment variables and --set have nothing else."""
    beside = {name: str(value) for name, value in TABLE[path].beside.items()}
    loaded = configure(beside, sets=(f"{path}={written}",), STATE_DIRECTORY="/state")
    assert in_force(loaded, path) == used
    assert loaded.origins[path] == "--set"


@pytest.mark.parametrize(("path", "written", "used"), edges("below", "above", "wrong_type"))
def test_refused(problems, path, written, used):
    """What is just not allowed is one problem: path, value, where it stands, what is allowed."""
    (problem,) = problems({path: written})
    part = next(iter(written.values())) if path == "Logging.LogLevel" and isinstance(written, dict) else written
    part = part[0] if isinstance(part, list) and part and isinstance(TABLE[path].default, list) else part
    shown = "***" if path == API + "token" else json.dumps(part)[:70]
    expected = rf"{re.escape(path)}\S*: {re.escape(shown)}.* \(appsettings.json line \d+\): allowed is \S.*"
    assert re.fullmatch(expected, problem)
