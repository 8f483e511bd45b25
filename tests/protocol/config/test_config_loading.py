"""Which source wins, where files are looked for, what the environment says, and what only two settings have wrong."""

import msgspec
import pytest

from protocol.config import Loaded, decode, encode, load, loading
from protocol.errors import ConfigurationError

PORT = "DicomAdapter.dicom.scp.port"
SYNTAXES = "DicomAdapter.dicom.scp.verification.transferSyntaxes"

PLATFORM = "DicomAdapter.services.platform"
CLARA = {f"{PLATFORM}.endpoint": "clara:50051"}


def test_each_source_wins_over_the_one_before(configure, tmp_path):
    """Default, file, the environment's file, values.yaml, environment, --set: in this order."""
    assert configure().settings.dicom.scp.port == 104
    assert configure({PORT: 1}).settings.dicom.scp.port == 1
    (tmp_path / "appsettings.Test.json").write_text('{"DicomAdapter": {"dicom": {"scp": {"port": 2}}}}')
    named = {"DOTNETCORE_ENVIRONMENT": "Test"}
    loaded = configure({PORT: 1}, **named)
    assert (loaded.settings.dicom.scp.port, loaded.origins[PORT]) == (2, "appsettings.Test.json line 1")
    assert [file.name for file in loaded.files] == ["appsettings.json", "appsettings.Test.json"]
    named_values = {"values": "dicomAdapter: {dicomPort: 3}"}
    assert configure({PORT: 1}, **named, **named_values).settings.dicom.scp.port == 3
    named["DICOMADAPTER__dicom__SCP__port"] = "4"
    assert configure({PORT: 1}, **named, **named_values).settings.dicom.scp.port == 4
    loaded = configure({PORT: 1}, **named, **named_values, sets=(f"{PORT}=5", f"{PORT}=6"))
    assert (loaded.settings.dicom.scp.port, loaded.origins[PORT]) == (6, "--set")


def test_lists(configure):
    """A later list replaces the whole; an index replaces one item, or adds one."""
    variable = SYNTAXES.replace(".", "__")
    file = {SYNTAXES: ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"]}
    loaded = configure(file, **{f"{variable}__1": "1.2.840.10008.1.2.5", f"{variable}__7": "1.2.840.10008.1.2.2"})
    expected = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.2")
    assert loaded.settings.dicom.scp.verification.transfer_syntaxes == expected
    assert loaded.origins[SYNTAXES].startswith("appsettings.json line 6, environment variable ")
    loaded = configure(file, **{variable: "1.2.840.10008.1.2.5; 1.2.840.10008.1.2.2"})
    assert loaded.settings.dicom.scp.verification.transfer_syntaxes == expected[1:]


def test_levels(configure):
    """Categories come from all sources, in any case, dots included; Default is always there."""
    levels = configure(
        {"Logging": {"LogLevel": {"Nvidia.Clara": "warning"}}},
        sets=("Logging.LogLevel.nvidia.clara=Error",),
        Logging__LogLevel__Dicom="DEBUG",
    ).settings.logging.levels
    assert levels == {"Default": "Information", "Nvidia.Clara": "Error", "Dicom": "Debug"}


def test_services_of_kubernetes(configure):
    """The original's variables give both endpoints; a setting of ours wins over them."""
    variables = {
        "CLARA_SERVICE_HOST": "10.0.0.1",
        "CLARA_SERVICE_PORT_API": "50051",
        "CLARA_RESULTSSERVICE_SERVICE_HOST": "fd00::1",
        "CLARA_RESULTSSERVICE_SERVICE_PORT": "8088",
    }
    services = configure(**variables).settings.services
    assert services.platform.endpoint == "10.0.0.1:50051"
    assert services.results_service_endpoint == "http://[fd00::1]:8088"
    loaded = configure(**variables, DicomAdapter__services__platform__endpoint="clara:1")
    assert loaded.settings.services.platform.endpoint == "clara:1"


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"CLARA_SERVICE_HOST": "h"}, "CLARA_SERVICE_HOST: is set, but not CLARA_SERVICE_PORT_API: set both or none"),
        ({"DicomAdapter__dicom__scp__prot": "1"}, "DicomAdapter.dicom.scp.prot: unknown setting (environment variable"),
        ({"DicomAdapter__api__port": "1", "DICOMADAPTER__API__PORT": "2"}, "says the same as DICOMADAPTER__API__PORT"),
        ({"DicomAdapter__dicom__scp__port": ""}, 'DicomAdapter.dicom.scp.port: "" is not a whole number (environment'),
        ({"DOTNETCORE_ENVIRONMENT": "../x"}, 'DOTNETCORE_ENVIRONMENT: "../x" is no name of an environment'),
        ({"Logging__LogLevel": "Debug"}, 'Logging.LogLevel: "Debug" is a text, not an object'),
    ],
)
def test_wrong_variables(problems, variables, problem):
    """A wrong environment variable is named."""
    assert problem in problems(**variables)[0]


@pytest.mark.parametrize("name", ["PATH", "LOGGING", "DICOM_ADAPTER_URL", "DicomAdapter"])
def test_other_variables(configure, name):
    """What is no setting's variable does not matter."""
    assert configure(**{name: "x"}).warnings == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("port", "--set port: has no name and value: write --set NAME=VALUE"),
        (
            "dicom.scp.port=1",
            "dicom.scp.port: unknown setting (--set): the nearest known one is DicomAdapter.dicom.scp.port",
        ),
        (f"{PORT}=x", f'{PORT}: "x" is not a whole number (--set): allowed is a whole number from 1 to 65535'),
        (f"{PORT}={'9' * 5000}", "is too large"),
    ],
)
def test_wrong_sets(problems, text, problem):
    """A wrong --set is always a problem."""
    assert problem in problems(sets=(text,))[0]


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ({"DicomAdapter.api.bind": "0.0.0.0"}, "DicomAdapter.api.bind: 0.0.0.0 can be reached from other machines"),
        ({"DicomAdapter.api.token": "a", "DicomAdapter.api.tokenFile": "/t"}, "keep one of them"),
        ({"DicomAdapter.api.port": 104}, "DicomAdapter.api.port: 104 is the DICOM port too"),
        (
            {"DicomAdapter.storage.volumeSize": "5G"},
            "DicomAdapter.storage.volumeSize: 5000000000 bytes are no more than",
        ),
        ({f"{PLATFORM}.tls.enabled": True}, "jobs run on this machine"),
        ({**CLARA, f"{PLATFORM}.tls.caFile": "/ca"}, "is false, and caFile is given"),
        (
            {**CLARA, f"{PLATFORM}.tls.enabled": True, f"{PLATFORM}.tls.keyFile": "/k"},
            "tls.certificateFile: is not given, and the other one is",
        ),
    ],
)
def test_contradictions(problems, written, problem):
    """Settings that are each allowed, but not together."""
    (found,) = problems(written)
    assert problem in found


def test_what_gives_something_up_is_warned_of(configure):
    """Patient data in logs, no sync, and an open API are allowed, and said."""
    loaded = configure(
        {
            "DicomAdapter.dicom.scp.logDimseDatasets": True,
            "DicomAdapter.dicom.scu.logDataPDUs": True,
            "DicomAdapter.storage.syncOnStore": False,
            "DicomAdapter.api.bind": "::",
            "DicomAdapter.api.allowAnonymous": True,
            **CLARA,
        }
    )
    assert len(loaded.warnings) == 5


def test_surroundings(configure, tmp_path, monkeypatch):
    """The ledger and the runtime directory follow systemd's directories, else the working directory."""
    monkeypatch.chdir(tmp_path)
    settings = configure().settings
    assert settings.database == f"sqlite:///{tmp_path}/dicomadapter.db"
    assert settings.runtime_directory == f"{tmp_path}/dicomadapter.run"
    settings = configure(STATE_DIRECTORY="/var/lib/a:/var/lib/b", RUNTIME_DIRECTORY="/run/a").settings
    assert settings.database == "sqlite:////var/lib/a/dicomadapter.db"
    assert settings.runtime_directory == "/run/a"
    sets = (
        "DicomAdapter.runtimeDirectory=/run/b",
        "ConnectionStrings.DicomAdapterDatabase=data source='x y.db';Cache=Shared",
    )
    settings = configure(sets=sets, RUNTIME_DIRECTORY="/run/a").settings
    assert settings.database == f"sqlite:///{tmp_path}/x y.db"
    assert settings.runtime_directory == "/run/b"


def test_files_that_are_not_there(tmp_path, monkeypatch):
    """A file named on purpose must exist; without a name the places that were tried are named."""
    config = tmp_path / "appsettings.json"
    with pytest.raises(
        ConfigurationError, match=r"appsettings.json: cannot be read: No such file .*: name a file that"
    ):
        load(config, None, [], {})
    config.write_text("{}")
    with pytest.raises(ConfigurationError, match=r"v.yaml: cannot be read: No such file"):
        load(config, tmp_path / "v.yaml", [], {})
    monkeypatch.setattr(loading, "PLACES", (tmp_path / "none.json", config))
    assert isinstance(load(None, None, [], {}), Loaded)
    config.unlink()
    with pytest.raises(
        ConfigurationError, match=r"no configuration file at .*none.json and .*: name one with --config"
    ):
        load(None, None, [], {})


def test_settings_survive_the_way_to_a_child(configure):
    """What the supervisor writes, an actor reads."""
    settings = configure().settings
    assert decode(encode(settings)) == settings
    with pytest.raises(msgspec.DecodeError):
        decode(b"{}")
