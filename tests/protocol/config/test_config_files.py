"""The two files: what .NET's habits and a site's own mistakes make of them."""

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.config import load, rows
from protocol.errors import ConfigurationError

ORIGINAL = Path(__file__).with_name("original_appsettings.json").read_text(encoding="utf-8")


def test_the_originals_file_is_valid(configure):
    """Every setting of the original's page, comments and stray commas included, is read without a warning."""
    loaded = configure(ORIGINAL)
    assert loaded.warnings == ()
    assert loaded.settings.dicom.scp.verification.transfer_syntaxes == (
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.2",
        "1.2.840.10008.1.2.2",
    )
    assert loaded.settings.logging.levels["Microsoft.Hosting.Lifetime"] == "Warning"
    assert loaded.settings.logging.disable_colors
    assert loaded.settings.allowed_hosts == ("*",)


def test_the_originals_two_mistakes_are_both_named(problems):
    """The page's missing comma and missing colon are reported with line, column and the line itself."""
    broken = re.sub(r"(\]\s+\}),", r"\1", ORIGINAL, count=1).replace('"failureThreshold":', '"failureThreshold"')
    line = broken[: broken.index('"logDimseDatasets"')].count("\n")
    comma, colon = problems(broken)
    assert f"appsettings.json line {line}, column 10: a comma is missing here, before" in comma
    assert comma.endswith(f'"logDimseDatasets" in line {line + 1}: the line is: }}')
    assert "column 29: a colon is missing after" in colon
    assert colon.endswith('the line is: "failureThreshold" 0.5, /* half of a task\'s files */')


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ("", "line 1, column 1", "must begin with {"),
        ("[]", "line 1, column 1", "must begin with {"),
        ("{", "line 1, column 2", "the file ends before the } of line 1"),
        ('{\n "A": [1,\n', "line 3, column 1", "the file ends before the ] of line 2"),
        ('{"A" }', "line 1, column 5", 'a colon and a value are missing after "A"'),
        ('{"A": }', "line 1, column 7", "a value is expected instead of }"),
        ('{"A": 1 B: 2}', "line 1, column 9", "a comma or } is expected instead of B"),
        ("{A: 1}", "line 1, column 2", "a name in quotes is expected instead of A"),
        ('{"A": yes}', "line 1, column 7", "yes is no value"),
        ('{"A": True}', "line 1, column 7", "True is no value"),
        ('{"A": 01}', "line 1, column 7", "01 is no value"),
        ('{"A": 1.}', "line 1, column 7", "1. is no value"),
        ('{"A": "b\n"}', "line 1, column 7", "does not end in its line"),
        ('{"A": "\\q"}', "line 1, column 7", "unknown \\"),
        ("{} {}", "line 1, column 4", "nothing may follow"),
        ("{ /* }", "line 1, column 3", "a comment /* without its */"),
        ('{"A":' + "[" * 40, "line 1", "more than 32 levels"),
        ('{"A": 1,\n "a": 2}', "line 2, column 2", '"a" stands in line 1 already'),
    ],
)
def test_syntax_errors(problems, text, place, what):
    """Each is reported where it is, and the rest of the file is no second problem."""
    (problem, *_) = problems(text)
    assert place in problem
    assert what in problem


def test_a_file_of_nothing_but_mistakes_is_given_up(problems):
    """Reporting is bounded."""
    assert len(problems('{"A": [' + "1 " * 10_000 + "]}")) == 50


def test_secrets_are_not_quoted(problems):
    """The line of a syntax error is not shown when a token or a URL with a password may be in it."""
    for line in ('"token": "geheim" "x": 1', '"DicomAdapterDatabase": "postgresql://u:geheim@h/d" "x": 1'):
        assert "geheim" not in "".join(problems("{" + line + "}"))


def test_values_with_secrets_are_masked(problems, configure):
    """Neither a problem nor the listing shows a token or a password."""
    assert "geheim" not in "".join(problems({"DicomAdapter.api.token": "geheim geheim"}))
    assert "geheim" not in "".join(problems({"ConnectionStrings.DicomAdapterDatabase": "mysql://u:geheim@h/d"}))
    loaded = configure(
        {"ConnectionStrings.DicomAdapterDatabase": "postgresql://u:geheim@h/d", "DicomAdapter.api.token": "geheim"}
    )
    shown = {path: value for path, value, _ in rows(loaded)}
    assert "geheim" not in "".join(shown.values())
    assert shown["DicomAdapter.api.token"] == "***"
    assert shown["ConnectionStrings.DicomAdapterDatabase"] == '"postgresql://u:***@h/d"'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_encodings(configure, tmp_path, encoding):
    """A byte-order mark does not matter, and carriage returns neither."""
    text = '{\r\n"DICOMADAPTER": {"Dicom:SCP": {"PORT": " 11104 "}}\r\n}'.encode(encoding).decode("utf-8")
    assert configure(text).settings.dicom.scp.port == 11104


def test_not_utf8(problems, tmp_path):
    """A file in Latin-1 is named with the place of its first wrong byte."""
    file = tmp_path / "latin.json"
    file.write_bytes(b'{\n "Logging": "\xe9"}')
    with pytest.raises(ConfigurationError, match="line 2, column 14 is not UTF-8: save the file as UTF-8"):
        load(file, None, [], {})


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("DicomAdapter.dicom.scp.prot", "DicomAdapter.dicom.scp.port"),
        ("DicomAdapter.scp", "DicomAdapter.dicom.scp"),
        ("DicomAdapter.dicom.scp.verificaton", "DicomAdapter.dicom.scp.verification"),
        ("DicomAdapter.storage.reserveSpaceGb2", "DicomAdapter.storage.reserveSpaceGB"),
    ],
)
def test_unknown_settings(problems, path, nearest):
    """An unknown setting under DicomAdapter is a problem that names the nearest one."""
    assert problems({path: {"enabled": 1, "x": 2}}) == [
        f"{path}: unknown setting (appsettings.json line {path.count('.') + 2}): the nearest known one is {nearest}"
    ]


def test_unknown_elsewhere_is_a_warning(configure):
    """Outside DicomAdapter others may have settings; they are named, not refused."""
    (warning,) = configure({"Kestrel.Endpoints": 1}).warnings
    assert warning.startswith("Kestrel: ignored, not a setting of this system (appsettings.json line 2)")


def test_section_that_is_none(problems):
    """A value where a section belongs says what belongs there."""
    (problem,) = problems({"DicomAdapter.dicom.scp.verification": True})
    assert problem.startswith("DicomAdapter.dicom.scp.verification: true is no section (appsettings.json line 5)")
    assert problem.endswith("allowed is a section of enabled, transferSyntaxes")


def test_ten_mistakes_are_ten_problems(problems):
    """All are found in one run, those of syntax included."""
    text = """{
  "DicomAdapter": {
    "dicom": {
      "scp": {"port": 0, "maximumNumberOfAssociations": 1001, "verification": {"enabled": 1}}
      "scu": {"aeTitle": "ABCDEFGHIJKLMNOPQ", "logDataPdu": false, "export": {"failureThreshold" 2}}
    },
    "services": {"platform": {"metadataDicomSource": ["0008,0020", "0010"]}},
    "storage": {"watermarkPercent": "full"}
  }
}"""
    found = problems(text)
    assert len(found) == 10, "\n".join(found)


VALUES = """
image: ignored
dicomAdapter:
  dicomPort: 11104 # modalities
  apiPort: "5001"
  resources: {limits: {cpu: 1}}

storage:
  volumeSize: 50Gi
  hostPath: "/clara-io"

database:
  volumeSize: 3G
  hostPath: /clara-io/dicom-adapter
"""
_PORTS, _, _SECTIONS = VALUES.partition("\n\n")
NESTED_VALUES = f"{_PORTS}\n{textwrap.indent(_SECTIONS, '  ')}"


@pytest.mark.parametrize("values", [VALUES, NESTED_VALUES], ids=["chart", "nested"])
def test_values_win_over_the_file(configure, values):
    """Ports, places and quotas of values.yaml are in force, and say where they come from.

    `storage` and `database` stand beside `dicomAdapter`, as in the original's chart, or below it.
    """
    loaded = configure({"DicomAdapter.dicom.scp.port": 104}, values=values)
    assert loaded.settings.dicom.scp.port == 11104
    assert loaded.settings.api.port == 5001
    assert loaded.settings.storage.temporary == "/clara-io"
    assert loaded.settings.storage.quota_bytes == 50 * 2**30
    assert loaded.settings.database == "sqlite:////clara-io/dicom-adapter/dicomadapter.db"
    assert loaded.settings.database_quota_bytes == 3 * 10**9
    assert loaded.settings.runtime_directory == "/clara-io/dicom-adapter/dicomadapter.run"
    assert loaded.origins["DicomAdapter.dicom.scp.port"] == "values.yaml line 4"
    (warning,) = loaded.warnings
    assert warning.startswith("DicomAdapter.dicom.scp.port: appsettings.json line 5 is overridden by dicomAdapter.")


def test_database_server_stays(configure):
    """hostPath places a file; it does not move a site from its PostgreSQL to a new, empty ledger."""
    loaded = configure({"ConnectionStrings.DicomAdapterDatabase": "postgres://u@h/d"}, values=VALUES)
    assert loaded.settings.database == "postgresql://u@h/d"
    assert "the ledger is on a server" in loaded.warnings[0]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ("dicomAdapter: {dicomPort: 70000}", "dicomAdapter.dicomPort: 70000 is too large (values.yaml line 1)"),
        ("dicomAdapter:\n  storage: {volumeSize: 50Gb}", 'dicomAdapter.storage.volumeSize: "50Gb" is not a size'),
        ("dicomAdapter:\n  storage: {volumeSize: 1.5Mi, volumeSize: 1}", "is in line 2 of values.yaml, and in line 2"),
        ("storage: {volumeSize: 50Gb}", 'storage.volumeSize: "50Gb" is not a size'),
        (
            "dicomAdapter:\n  storage: {hostPath: /a}\nstorage: {hostPath: /b}",
            "storage.hostPath: is in line 3 of values.yaml, and in line 2 as dicomAdapter.storage.hostPath: keep one",
        ),
        ("dicomAdapter:\n  storage: {hostPath: [a]}", "dicomAdapter.storage.hostPath: [] is a list, not a text"),
        ("dicomAdapter:\n  apiPort: !!python/name:os.system", "values.yaml line 2, column 12"),
        ("dicomAdapter:\n\tapiPort: 1", "values.yaml line 2, column 1: found character '\\t'"),
        ("a: [" * 5000, "cannot be read as YAML"),
    ],
)  # fmt: skip
def test_wrong_values(problems, values, problem):
    """Problems of values.yaml are named as its author knows them."""
    assert problem in problems(values=values)[0]


SHIPPED_VALUES = (Path(__file__).parents[3] / "configs/values.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "values", ["", "dicomAdapter:", "dicomAdapter:\n  dicomPort:\n  storage:\n", "storage:", SHIPPED_VALUES]
)
def test_empty_values(configure, values):
    """What is empty is as if it were not there."""
    loaded = configure(values=values)
    assert loaded.settings.dicom.scp.port == 104
    assert loaded.warnings == ()


def test_values_of_another_chart_are_warned_of(configure):
    (warning,) = configure(values="replicas: 1\n").warnings
    assert "neither dicomAdapter nor storage nor database in it" in warning


def test_misspelt_values_are_warned_of(configure):
    """Other keys belong to Kubernetes, but a near miss is said."""
    (warning,) = configure(values="dicomAdapter:\n  dicomport: 1\n  replicas: 1\n").warnings
    assert warning == "dicomAdapter.dicomport: ignored (values.yaml line 2): did you mean dicomAdapter.dicomPort?"


@given(
    at=st.integers(0, len(ORIGINAL)),
    put=st.text('{}[]",:\\/*\n 0e-.tn\u2028\ud800', max_size=6),
    cut=st.integers(0, 40),
)
def test_any_damage_ends_in_settings_or_problems(tmp_path_factory, at, put, cut):
    """Whatever is done to a file, it is read or explained, one line a problem; nothing else is raised."""
    file = tmp_path_factory.mktemp("damaged") / "appsettings.json"
    file.write_bytes((ORIGINAL[:at] + put + ORIGINAL[at + cut :]).encode("utf-8", "surrogatepass"))
    problems: Sequence[str] = ()
    try:
        load(file, None, [], {})
    except ConfigurationError as error:
        problems = error.problems or ["\n"]
    assert all(problem.isprintable() for problem in problems)
