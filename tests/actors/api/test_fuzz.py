"""Bodies that nobody thought of, on real HTTP: each is taken or refused with its reason, and nothing worse."""

import copy
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol import messages
from tests import inference
from tests.actors.api.surroundings import Surroundings
from tests.actors.api.test_configuration import AE_TITLE, DESTINATION, PIPELINE, SOURCE

_REQUEST = inference.body(
    "T-1",
    "p1",
    [inference.by_study("1.2.3"), inference.resources(("Patient", "1"))],
    [inference.orthanc_web(8042), inference.fhir("http://127.0.0.1:8080/fhir"), inference.dimse(4242)],
)
_TARGETS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/api/config/claraaetitle", AE_TITLE),
    ("/api/config/sourceaetitle", SOURCE),
    ("/api/config/destinationaetitle", DESTINATION),
    ("/api/config/pipeline", PIPELINE),
    ("/api/inference", _REQUEST),
)
_ODD = ("", " ", "\0", "\x1b[31m", "../../etc/passwd", "A" * 5000, "é€𝄞", "1e999", "-1", "NaN", "9" * 400, "null")
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | st.sampled_from(_ODD)
_VALUES = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)
_JSON = {"content-type": "application/json"}


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something can be changed."""
    found = [path] if path else []
    if isinstance(value, dict):
        found += [place for key, inner in value.items() for place in _places(inner, (*path, key))]
    if isinstance(value, list):
        found += [place for number, inner in enumerate(value) for place in _places(inner, (*path, number))]
    return found


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    """A path, and what was a sound body for it once."""
    path, sound = draw(st.sampled_from(_TARGETS))
    value = copy.deepcopy(sound)
    for _ in range(draw(st.integers(1, 3))):
        places = _places(value)
        if not places:
            break
        *way, last = draw(st.sampled_from(places))
        holder = value
        for step in way:
            holder = holder[step]
        match draw(st.sampled_from(["replace", "remove", "repeat", "rename"])):
            case "replace":
                holder[last] = draw(_VALUES)
            case "remove":
                del holder[last]
            case "repeat" if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[last]))
            case _ if isinstance(holder, dict):
                holder[draw(st.text(max_size=10))] = holder.pop(last)
    body = json.dumps(value).encode()
    if draw(st.booleans()) and draw(st.booleans()):
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(st.binary(max_size=5)) + body[at + draw(st.integers(0, 5)) :]
    return path, body


def _accept(command: messages.Message) -> messages.Message:
    if isinstance(command, messages.AcceptRequest):
        return messages.RequestAccepted(job_id="job", payload_id="payload")
    return messages.Done(affected=1)


def _post(running: Surroundings, case: tuple[str, bytes]) -> None:
    assert running.owners is not None
    running.owners.answer = _accept
    path, body = case
    answer = running.rest.post(path, content=body, headers=_JSON)
    assert answer.status_code in (200, 201, 400, 409, 422, 503), f"{answer.status_code} {answer.text}"
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bodies())
def test_changed_bodies_are_taken_or_refused_with_a_reason(running: Surroundings, case: tuple[str, bytes]) -> None:
    _post(running, case)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(st.sampled_from([path for path, _ in _TARGETS]), st.binary(max_size=200)))
def test_garbage_is_refused_with_a_reason(running: Surroundings, case: tuple[str, bytes]) -> None:
    _post(running, case)
