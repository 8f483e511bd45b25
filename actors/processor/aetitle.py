"""The default job processor: groups by one element, and makes one job for each pipeline of its settings."""

import re
from collections.abc import Callable, Mapping, Sequence

from protocol.config.kinds import Refused, dicom_tag
from protocol.job_processors import PRIORITIES, JobPlan, JobProcessor
from protocol.messages import DescribedInstance

MINIMUM_TIMEOUT_SECONDS = 5
DEFAULT_RETRY_DELAY_MS = 5000
STUDY_INSTANCE_UID = "0020000D"
PIPELINE_PREFIX = "pipeline-"

_LARGEST = 2**31 - 1
_HEXADECIMAL_TAG = re.compile(r"\(?\s*([0-9A-Fa-f]{4})\s*,?\s*([0-9A-Fa-f]{4})\s*\)?")


class AeTitleJobProcessor(JobProcessor):
    """Groups by `groupBy`, waits for `timeout`, and starts every `pipeline-NAME`.

    Its settings, their names in any case: `timeout` (whole seconds, raised to 5), `jobRetryDelay` (whole
    milliseconds), `priority`, `groupBy` (a DICOM tag), and `pipeline-NAME` = pipeline ID, at least one.
    """

    label = "AE Title Job Processor"

    def __init__(self, ae_title: str, settings: Mapping[str, str]) -> None:
        super().__init__(ae_title, settings)
        plain = {name.strip().lower(): value for name, value in settings.items()}
        self.timeout_seconds = float(max(MINIMUM_TIMEOUT_SECONDS, int(plain.get("timeout", 0))))
        self.retry_delay_seconds = int(plain.get("jobretrydelay", DEFAULT_RETRY_DELAY_MS)) / 1000
        self.priority = plain.get("priority", "normal").strip().lower()
        self.tags = (_tag(plain.get("groupby", STUDY_INSTANCE_UID)),)
        self.pipelines = {
            name.strip()[len(PIPELINE_PREFIX) :]: pipeline_id.strip()
            for name, pipeline_id in settings.items()
            if _is_pipeline(name)
        }

    @classmethod
    def validate(cls, settings: Mapping[str, str]) -> Sequence[str]:
        """Everything that is wrong with settings, a sentence each; an unknown setting is named."""
        problems = []
        seen: set[str] = set()
        for name, value in settings.items():
            plain = name.strip().lower()
            if _is_pipeline(name):
                problems += _problems_of_pipeline(name, value)
            elif plain not in _CHECKS:
                problems.append(f"the processor setting {name!r} is unknown: allowed are {_ALLOWED}")
            elif plain in seen:
                problems.append(f"the processor setting {name!r} is given twice: remove one")
            else:
                problems += _CHECKS[plain](value)
            seen.add(plain)
        if not any(_is_pipeline(name) for name in settings):
            problems.append("no pipeline is set: add pipeline-NAME with the ID of a pipeline")
        return problems

    def group_key(self, instance: DescribedInstance) -> str:
        """The value of the grouping element; white space around it does not count."""
        return instance.attributes.get(self.tags[0], "").strip()

    def plan(self, group_key: str, instances: Sequence[DescribedInstance]) -> Sequence[JobPlan]:  # noqa: ARG002
        """One job for each pipeline."""
        return [
            JobPlan(label=name, pipeline_id=pipeline_id, priority=self.priority)
            for name, pipeline_id in self.pipelines.items()
        ]


def _is_pipeline(name: str) -> bool:
    return name.strip().lower().startswith(PIPELINE_PREFIX)


def _tag(text: str) -> str:
    """A DICOM tag, or an element's keyword, as eight upper-case hexadecimal digits; "" when it is neither."""
    digits = _HEXADECIMAL_TAG.fullmatch(text.strip())
    if digits:
        return "".join(digits.groups()).upper()
    if not text.strip():
        return ""  # pydicom's dictionary has elements without a keyword
    from pydicom.datadict import tag_for_keyword  # noqa: PLC0415 - half a second, and hardly any site writes keywords

    number = tag_for_keyword(text.strip())
    return "" if number is None else f"{number:08X}"


def _problems_of_pipeline(name: str, pipeline_id: str) -> list[str]:
    problems = []
    if not name.strip()[len(PIPELINE_PREFIX) :].strip():
        problems.append(f"the processor setting {name!r} has no name after {PIPELINE_PREFIX!r}: add one")
    if not pipeline_id.strip():
        problems.append(f"the processor setting {name!r} is empty: give the ID of a pipeline")
    return problems


def _whole_number(name: str, unit: str) -> Callable[[str], list[str]]:
    def check(value: str) -> list[str]:
        if re.fullmatch(r"\s*\+?[0-9]{1,10}\s*", value) and int(value) <= _LARGEST:
            return []
        return [f"the processor setting '{name}' is {value!r}: allowed are whole {unit} from 0 to {_LARGEST}"]

    return check


def _check_priority(value: str) -> list[str]:
    if value.strip().lower() in PRIORITIES:
        return []
    return [f"the processor setting 'priority' is {value!r}: allowed are {', '.join(PRIORITIES)}"]


def _check_group_by(value: str) -> list[str]:
    try:
        dicom_tag().parse(_tag(value))
    except Refused as refused:
        return [f"the processor setting 'groupBy' {refused} ({value!r}): allowed are tags such as 0020,000D"]
    return []


_CHECKS: dict[str, Callable[[str], list[str]]] = {
    "timeout": _whole_number("timeout", "seconds"),
    "jobretrydelay": _whole_number("jobRetryDelay", "milliseconds"),
    "priority": _check_priority,
    "groupby": _check_group_by,
}
_ALLOWED = "timeout, jobRetryDelay, priority, groupBy and pipeline-NAME"
