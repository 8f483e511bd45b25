"""The quarantine over REST."""

import httpx
import pytest

from protocol import messages
from protocol.ledger import Ledger
from protocol.states import InstanceState
from tests.actors.api import rows
from tests.actors.api.surroundings import Owners

STEM = "018bcfe568000a1b2c3d-000002"


@pytest.fixture
def held(ledger: Ledger) -> None:
    """Two in quarantine, one that was discarded, one in a group."""
    with ledger.transaction():
        rows.instance(1, state=InstanceState.QUARANTINED, reason="no Study Instance UID", study_uid="")
        rows.instance(2, state=InstanceState.QUARANTINED, reason="cut short")
        rows.instance(3, state=InstanceState.DISCARDED)
        rows.instance(4, group_id=1)


@pytest.mark.usefixtures("held")
def test_list(rest: httpx.Client) -> None:
    """What waits, the newest first, with nothing of the patient."""
    found = rest.get("/api/quarantine").json()
    assert [one["id"][-6:] for one in found] == ["000002", "000001"]
    assert found[0] == {
        "id": STEM,
        "aeTitle": "COVIDAET",
        "callingAeTitle": "MODALITY",
        "host": "10.0.0.9",
        "sopClassUid": "1.2.840.10008.5.1.4.1.1.2",
        "sopInstanceUid": "1.2.3.2",
        "studyInstanceUid": "1.2.3",
        "reason": "cut short",
        "size": 1000,
        "stored": "2023-11-14T22:13:22.000Z",
    }
    assert len(rest.get("/api/quarantine?limit=1&offset=1").json()) == 1


@pytest.mark.usefixtures("held")
def test_decide(rest: httpx.Client, owners: Owners) -> None:
    """The processor hears the whole identifier."""
    identifier = f"20231114T221300-receiver_1-0001/{STEM}"
    assert rest.post(f"/api/quarantine/{STEM}/release").json() == {"affected": 1}
    assert rest.post(f"/api/quarantine/{STEM}/discard").json() == {"affected": 1}
    expected = [
        messages.ReleaseInstances(identifiers=(identifier,)),
        messages.DiscardInstances(identifiers=(identifier,)),
    ]
    assert owners.take() == expected
    owners.answer = lambda _: messages.Done(affected=0)
    assert rest.post(f"/api/quarantine/{STEM}/release").status_code == 409


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize(
    "stem", ["018bcfe568000a1b2c3d-000003", "018bcfe568000a1b2c3d-000004", "%25-000002", "_-2", "..%2f2-2", "x"]
)
def test_not_in_quarantine(rest: httpx.Client, owners: Owners, stem: str) -> None:
    """Neither what is not there, nor a pattern of the database's."""
    assert rest.post(f"/api/quarantine/{stem}/release").status_code == 404
    assert owners.take() == []
