"""Who may open an association: called and calling AE titles and the peer's host, by the access list in the spool.

It decides after the A-ASSOCIATE-RQ was decoded and before a slot is claimed; it needs neither ledger nor API.
"""

import functools
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from actors.receiver.names import HostNames
from actors.receiver.negotiation import Proposal
from actors.receiver.pdu import Rejection
from protocol.access import AccessFile, AccessList, AeTitleRule, SourceRule, normalize_address
from protocol.dimse import APPLICATION_CONTEXT
from protocol.logs import EventLogger
from protocol.moves import MovesFile

_SEPARATORS = re.compile(r"[,;\s]+")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Admitted:
    """The association may be opened.

    Args:
        rule: of the called AE title.
        moved: whether it brings what a C-MOVE of ours asked for.
        shared: moved, and the called title is an AE title's, too: what no C-MOVE has begun is for that.
    """

    rule: AeTitleRule
    moved: bool = False
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """It may not.

    Args:
        rejection: what the peer is told.
        reason: what the log says.
        hint: what may be meant; "" when nothing comes to mind.
    """

    rejection: Rejection
    reason: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class NamesNeeded:
    """It depends on names that were not resolved lately: refresh them, and ask again."""

    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Hosts:
    """A source's `hostIp`, understood."""

    networks: tuple[Network, ...]
    names: frozenset[str]


@functools.lru_cache(maxsize=1024)
def _hosts(host_ip: str) -> _Hosts:
    networks: list[Network] = []
    names = set()
    for part in filter(None, _SEPARATORS.split(host_ip)):
        try:
            networks.append(ipaddress.ip_network(normalize_address(part), strict=False))
        except ValueError:
            names.add(part)
    return _Hosts(tuple(networks), frozenset(names))


class Admission:
    """Decides by the access list as it stands on disk at this moment.

    Args:
        access: the access list.
        names: resolves the sources' host names.
        log: told when the access list cannot be read.
        moves: from where C-MOVEs of ours bring something; None for nowhere.
    """

    def __init__(self, access: AccessFile, names: HostNames, log: EventLogger, moves: MovesFile | None = None) -> None:
        self._access = access
        self._moves = moves
        self._names = names
        self._log = log
        self._last = AccessList()

    def warm_up(self) -> None:
        """Resolve all names on the side, so that the first associations need not wait for them."""
        names = frozenset[str]().union(*(_hosts(source.host_ip).names for source in self._current().sources))
        self._names.refresh(names, lambda: None)

    def decide(
        self, *, called: str, calling: str, host: str, any_source: bool, last_word: bool = False, own: str = ""
    ) -> Admitted | Refused | NamesNeeded:
        """Decide about one association.

        Args:
            called: called AE title, "" when it was none.
            calling: calling AE title, "" when it was none.
            host: the peer's address, normalized.
            any_source: whether unknown sources are accepted (`rejectUnknownSources` off).
            last_word: decide by what is known of names, instead of asking for a refresh.
            own: our AE title as SCU, to which C-MOVEs of ours send.
        """
        if calling and called and called == own and self._moves is not None and self._moves.expects(host):
            found = self._by_access_list(called, calling, host, any_source=any_source, last_word=True)
            if isinstance(found, Admitted):
                return Admitted(found.rule, moved=True, shared=True)
            return Admitted(AeTitleRule(ae_title=own), moved=True)
        return self._by_access_list(called, calling, host, any_source=any_source, last_word=last_word)

    def _by_access_list(
        self, called: str, calling: str, host: str, *, any_source: bool, last_word: bool
    ) -> Admitted | Refused | NamesNeeded:
        access = self._current()
        if not calling:
            return Refused(Rejection.CALLING_AE_TITLE, "the calling AE title is blank or not of its characters")
        if not any_source:
            sources = [source for source in access.sources if source.ae_title == calling]
            if not sources:
                hint = _differs_in_case(calling, (source.ae_title for source in access.sources))
                return Refused(Rejection.CALLING_AE_TITLE, "the calling AE title is no source", hint)
            outcome = self._host_among(sources, host, last_word)
            if outcome is not None:
                return outcome
        if not called:
            return Refused(Rejection.CALLED_AE_TITLE, "the called AE title is blank or not of its characters")
        for rule in access.ae_titles:
            if rule.ae_title == called and rule.accepting:
                return Admitted(rule)
        hint = _differs_in_case(called, (rule.ae_title for rule in access.ae_titles if rule.accepting))
        return Refused(Rejection.CALLED_AE_TITLE, "the called AE title is not known", hint)

    def _host_among(self, sources: Iterable[SourceRule], host: str, last_word: bool) -> Refused | NamesNeeded | None:
        """None when the host is one of the sources'."""
        address = ipaddress.ip_address(host)
        names: set[str] = set()
        for source in sources:
            hosts = _hosts(source.host_ip)
            if any(address in network for network in hosts.networks):
                return None
            names |= hosts.names
        for name in names:
            if host in map(normalize_address, self._names.addresses(name)):
                return None
        stale = frozenset(name for name in names if not self._names.is_fresh(name))
        if stale and not last_word:
            return NamesNeeded(stale)
        return Refused(
            Rejection.CALLING_AE_TITLE,
            "the calling AE title is a source, but not from this host",
            "its hostIp is " + ", ".join(sorted({source.host_ip for source in sources})),
        )

    def _current(self) -> AccessList:
        """The access list; the last one that could be read when the file is out of reach or broken."""
        try:
            self._last = self._access.current()
        except (OSError, msgspec.DecodeError) as error:
            self._log.error("access_list_unreadable", reason=type(error).__name__, remedy="the last known one is used")
        return self._last


def against(proposal: Proposal) -> Refused | None:
    """What speaks against a proposal, whoever makes it (PS3.8 §9.3.2)."""
    if not proposal.protocol_version & 1:
        return Refused(Rejection.PROTOCOL_VERSION, "protocol version 1 is not offered")
    if proposal.application_context != APPLICATION_CONTEXT:
        return Refused(Rejection.APPLICATION_CONTEXT, "another application context than DICOM's")
    return None


def against_now(proposal: Proposal, *, verification: bool, intake_is_open: bool) -> Refused | None:
    """What speaks at this moment against a proposal of one who is admitted.

    Args:
        proposal: what it wants.
        verification: whether C-ECHO is offered.
        intake_is_open: whether objects are taken.
    """
    if proposal.verification_only and not verification:
        return Refused(Rejection.APPLICATION_CONTEXT, "Verification is off (dicom.scp.verification.enabled)")
    if proposal.storage_only and not intake_is_open:
        return Refused(Rejection.TEMPORARY_CONGESTION, "no space for what would be stored")
    return None


def _differs_in_case(title: str, known: Iterable[str]) -> str:
    for each in known:
        if each.lower() == title.lower():
            return f"it differs from {each} in case only; AE titles are compared exactly"
    return ""
