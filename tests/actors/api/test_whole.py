"""What the API decides, as a modality feels it: against the whole gateway."""

import threading

import httpx

from tests.gateway import Gateway
from tests.peers import echoscu


def test_changes_hold_for_the_next_association(gateway: Gateway) -> None:
    """An AE title or a source accepts from its 201 on, and no longer after its deletion."""
    pipeline = gateway.add_pipeline("nothing", ["/bin/true"])

    def accepted() -> bool:
        return echoscu(gateway.port, called="ADAPTER", calling="MODALITY").exit_code == 0

    gateway.add_source("MODALITY")
    assert not accepted()
    for _ in range(2):
        gateway.add_aetitle("ADAPTER", pipeline_a=pipeline)
        assert accepted()
        assert gateway.rest.delete("/api/config/claraaetitle/ADAPTER").status_code == 200
        assert not accepted()
    gateway.add_aetitle("ADAPTER", pipeline_a=pipeline)
    assert gateway.rest.delete("/api/config/sourceaetitle/MODALITY").status_code == 200
    assert not accepted()


def test_restart_refuses_nobody(gateway: Gateway) -> None:
    """While the API is replaced its callers wait, and are answered by the successor."""
    assert gateway.rest.get("/health/live").text == "Healthy"
    before, over = gateway.pids("api"), threading.Event()
    seen: set[int | str] = set()

    def ask() -> None:
        while not over.is_set():
            # A connection of its own, since one that is open already ends with the predecessor.
            try:
                seen.add(httpx.get(f"{gateway.url}/api/config/sourceaetitle", timeout=30.0).status_code)
            except httpx.HTTPError as error:
                seen.add(repr(error))

    asking = threading.Thread(target=ask)
    asking.start()
    gateway.cli("restart", "api")
    over.set()
    asking.join(30.0)
    assert gateway.pids("api") != before
    assert seen == {200}
