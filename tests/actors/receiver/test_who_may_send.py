"""Who may send, and what is answered to those who may not."""

import socket
from pathlib import Path

import pytest

from protocol.access import AeTitleRule
from tests.actors.launcher import Launcher, RunningActor, wait_until
from tests.actors.receiver import raw
from tests.actors.receiver.raw import Peer, allow, stored_files
from tests.actors.receiver.senders import echo, send
from tests.samples import (
    Study,
    make_study,
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_study(tmp_path_factory.mktemp("small"), "PAT-2", 4, rows=64)


class TestAdmission:
    def test_the_originals_cases(self, launcher: Launcher, receiver: RunningActor) -> None:
        assert echo(launcher).exit_code == 0
        assert "Calling AE Title Not Recognized" in echo(launcher, calling="NOBODY").rejection
        assert "Called AE Title Not Recognized" in echo(launcher, called="NOWHERE").rejection

    def test_a_hint_when_the_case_differs(self, launcher: Launcher, receiver: RunningActor) -> None:
        allow(launcher.spool, "Chest", calling="Scanner")
        assert echo(launcher, "CHEST", "Scanner").rejection
        line = receiver.wait_for_log("association_rejected")
        # Repeats of one peer are summed up, so an earlier rejection may be the one that is written.
        assert "peer=127.0.0.1" in line

    def test_another_host(self, launcher: Launcher, receiver: RunningActor) -> None:
        allow(launcher.spool, "CT", host="10.1.2.3")
        assert "Calling AE Title Not Recognized" in echo(launcher).rejection

    def test_a_name_is_resolved_before_its_first_association_is_refused(
        self, launcher: Launcher, receiver: RunningActor
    ) -> None:
        allow(launcher.spool, "CT", host="localhost")
        assert echo(launcher).exit_code == 0

    def test_unknown_sources_may_be_allowed(self, own: Launcher) -> None:
        own.change_settings("DicomAdapter.dicom.scp.rejectUnknownSources=false")
        own.start("receiver-1")
        assert echo(own, calling="NOBODY").exit_code == 0
        own.change_settings("DicomAdapter.dicom.scp.rejectUnknownSources=true")
        wait_until(lambda: echo(own, calling="NOBODY").exit_code, "the new settings in force")

    def test_verification_may_be_off(self, own: Launcher, small: Study) -> None:
        own.change_settings("DicomAdapter.dicom.scp.verification.enabled=false")
        own.start("receiver-1")
        assert "App Context Name Not Supported" in echo(own).rejection
        assert send(own, small.directory).successes == 4

    def test_ignored_sop_classes_are_answered_success_and_not_stored(
        self, launcher: Launcher, receiver: RunningActor
    ) -> None:
        allow(launcher.spool, AeTitleRule(ae_title="CT", ignored_sop_classes=frozenset({raw.MR_IMAGE})))
        before = len(stored_files(launcher.spool))
        with Peer(launcher.port) as peer:
            peer.associate(raw.context(1), raw.context(3, raw.MR_IMAGE))
            peer.command(raw.store_rq("1.2.3", raw.MR_IMAGE), context_id=3)
            peer.dataset(raw.dataset("1.2.3", raw.MR_IMAGE), context_id=3)
            assert peer.response().status == 0
            assert peer.store("1.2.3").status == 0
            peer.release()
        assert len(stored_files(launcher.spool)) == before + 1
        receiver.wait_for_log("failed=0 ignored=1")


def test_an_ipv6_peer_with_a_mapped_address_is_known_by_its_ipv4(tmp_path: Path) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with Launcher(tmp_path) as launcher:
        allow(launcher.spool, "CT")
        launcher.listener.close()
        launcher.listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        launcher.start("receiver-1")
        assert echo(launcher).exit_code == 0
