"""The AE title job processor's settings, and what it does with them."""

import pytest

from actors.processor.aetitle import AeTitleJobProcessor
from protocol.clock import Moment
from protocol.job_processors import JobPlan, load
from protocol.messages import DescribedInstance

PIPELINE = {"pipeline-p": "id"}


def described(**attributes: str) -> DescribedInstance:
    named = {name.removeprefix("x"): value for name, value in attributes.items()}
    return DescribedInstance(identifier="shard/stem-000001", stored=Moment(0), attributes=named)


def test_it_is_the_default_and_the_originals_name_is_an_alias() -> None:
    original = "Nvidia.Clara.DicomAdapter.Server.Processors.AeTitleJobProcessor, Nvidia.Clara.DicomAdapter"
    assert load("") is load("aetitle") is load(original) is AeTitleJobProcessor


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"timeout": "0"},
        {"timeout": " 5 "},
        {"timeout": "+7"},
        {"timeout": "2147483647"},
        {"TIMEOUT": "5", "JobRetryDelay": "0", "Priority": "NORMAL", "groupby": "0020,000D"},
        {"jobRetryDelay": "5000"},
        *({"priority": value} for value in ("lower", "Normal", "HIGHER", "immediate")),
        *(
            {"groupBy": value}
            for value in ("0020,000D", "(0020,000d)", "0020000D", "PatientID", "0010, 0020", "0009,1001")
        ),
        {"Pipeline-two": "id 2"},
    ],
)
def test_valid_settings(settings: dict[str, str]) -> None:
    assert AeTitleJobProcessor.validate(PIPELINE | settings) == []
    AeTitleJobProcessor("AE", PIPELINE | settings)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"timeout": "-1"}, "'timeout' is '-1'"),
        ({"timeout": "5.0"}, "'timeout' is '5.0'"),
        ({"timeout": ""}, "'timeout' is ''"),
        ({"timeout": "2147483648"}, "'timeout'"),
        ({"timeout": "\u0665"}, "'timeout'"),
        ({"jobRetryDelay": "-1"}, "'jobRetryDelay'"),
        ({"jobRetryDelay": "soon"}, "'jobRetryDelay'"),
        ({"priority": "urgent"}, "lower, normal, higher, immediate"),
        ({"groupBy": "0020"}, "'groupBy'"),
        ({"groupBy": "NoSuchKeyword"}, "'groupBy'"),
        ({"groupBy": ""}, "'groupBy'"),
        ({"groupBy": "0002,0010"}, "'groupBy'"),
        ({"groupBy": "7FE0,0010"}, "'groupBy'"),
        ({"groupBy": "0008,1140"}, "'groupBy'"),
        ({"pipeline-": "id"}, "'pipeline-'"),
        ({"pipeline-x": " "}, "'pipeline-x'"),
        ({"timeOutt": "5"}, "'timeOutt'"),
        ({"pipeline": "id"}, "'pipeline'"),
        ({"timeout": "5", "Timeout": "6"}, "'Timeout' is given twice"),
    ],
)
def test_invalid_settings_are_named(settings: dict[str, str], named: str) -> None:
    (problem,) = AeTitleJobProcessor.validate(PIPELINE | settings)
    assert named in problem


def test_a_pipeline_is_needed_and_all_problems_are_told() -> None:
    problems = AeTitleJobProcessor.validate({"timeout": "x", "unknown": "y"})
    assert len(problems) == 3
    assert "pipeline-NAME" in problems[-1]


def test_defaults() -> None:
    processor = AeTitleJobProcessor("AE", PIPELINE)
    assert (processor.timeout_seconds, processor.retry_delay_seconds) == (5.0, 5.0)
    assert processor.tags == ("0020000D",)
    assert processor.plan("1.2", []) == [JobPlan(label="p", pipeline_id="id", priority="normal")]


def test_settings_are_used() -> None:
    settings = {"timeout": "12", "jobRetryDelay": "250", "priority": "Immediate", "groupBy": "PatientID"}
    processor = AeTitleJobProcessor("AE", settings | {"pipeline-One": " id-1 ", "PIPELINE-two": "id-2"})
    assert (processor.timeout_seconds, processor.retry_delay_seconds) == (12.0, 0.25)
    assert processor.tags == ("00100020",)
    assert processor.plan("P", []) == [
        JobPlan(label="One", pipeline_id="id-1", priority="immediate"),
        JobPlan(label="two", pipeline_id="id-2", priority="immediate"),
    ]


def test_a_short_timeout_is_raised() -> None:
    assert AeTitleJobProcessor("AE", PIPELINE | {"timeout": "1"}).timeout_seconds == 5.0


def test_the_group_key_is_the_elements_value() -> None:
    processor = AeTitleJobProcessor("AE", PIPELINE)
    assert processor.group_key(described(x0020000D=" 1.2.3 ")) == "1.2.3"
    assert processor.group_key(described(x0020000D="  ")) == ""
    assert processor.group_key(described()) == ""
