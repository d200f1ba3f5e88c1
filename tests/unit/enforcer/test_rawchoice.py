"""Which raw backend a plan selects: the request, the host's facts, and the stated reasons."""

from __future__ import annotations

import pytest

from enforcer.model.choices import RawChoice
from enforcer.model.errors import UnsupportedKernelError
from enforcer.model.facts import HostFacts, HostRules, Probe
from enforcer.model.vocabulary import Answer, Backend
from enforcer.planning.raw_choice import raw_backend
from enforcer.policy.load import load_text
from enforcer.policy.resources import FelixConfiguration

YES, NO, UNKNOWN = Probe(Answer.YES), Probe(Answer.NO, "no such table"), Probe(Answer.UNKNOWN, "needs root")
IPTABLES, NFTABLES = Backend.IPTABLES, Backend.NFTABLES
BOTH = {IPTABLES: YES, NFTABLES: YES}
LEGACY_GONE = {IPTABLES: NO, NFTABLES: YES}

ROWS = [
    ("legacy tables are there", {}, RawChoice.AUTO, BOTH, IPTABLES, "this host has the legacy tables"),
    ("they are not", {}, RawChoice.AUTO, LEGACY_GONE, NFTABLES, "this host has no legacy tables: no such table"),
    ("nobody knows", {}, RawChoice.AUTO, {IPTABLES: UNKNOWN}, IPTABLES, "this host has the legacy tables"),
    ("nothing requested", {}, RawChoice.AUTO, {}, IPTABLES, "this host has the legacy tables"),
    ("nftablesMode", {"nftables_mode": "Enabled"}, RawChoice.AUTO, BOTH, NFTABLES, "nftablesMode: Enabled"),
    ("iptablesBackend", {"iptables_backend": "NFT"}, RawChoice.AUTO, BOTH, NFTABLES, "iptablesBackend: NFT"),
    ("in small letters", {"iptables_backend": "nft"}, RawChoice.AUTO, BOTH, NFTABLES, "iptablesBackend: NFT"),
    ("Disabled", {"nftables_mode": "Disabled"}, RawChoice.AUTO, BOTH, IPTABLES, "nftablesMode: Disabled"),
    ("Legacy", {"iptables_backend": "Legacy"}, RawChoice.AUTO, BOTH, IPTABLES, "iptablesBackend: Legacy"),
    (
        "either is enough",
        {"iptables_backend": "NFT", "nftables_mode": "Disabled"},
        RawChoice.AUTO,
        BOTH,
        NFTABLES,
        "iptablesBackend: NFT",
    ),
    (
        "the command line overrides both",
        {"iptables_backend": "NFT", "nftables_mode": "Enabled"},
        RawChoice.IPTABLES,
        BOTH,
        IPTABLES,
        "raw backend 'iptables' was requested",
    ),
    ("nftables by name", {}, RawChoice.NFTABLES, BOTH, NFTABLES, "raw backend 'nftables' was requested"),
    ("by name, not probed", {}, RawChoice.NFTABLES, {}, NFTABLES, "raw backend 'nftables' was requested"),
]


NO_RULES = HostRules()


def facts(backends: dict[Backend, Probe], rules: HostRules = NO_RULES) -> HostFacts:
    return HostFacts("jasper", backends=backends, rules=rules)


@pytest.mark.parametrize(
    ("fields", "choice", "backends", "expected", "why"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_which_backend(
    fields: dict[str, str], choice: RawChoice, backends: dict[Backend, Probe], expected: Backend, why: str
) -> None:
    felix = FelixConfiguration("default", **fields)  # type: ignore[arg-type]  # of several types
    assert raw_backend(facts(backends), felix, choice) == (expected, why)


# Felix's DetectBackend: Kubernetes' mark, else the backend with more rules; with equal numbers, the legacy tables.
DETECTED = [
    ("no rules anywhere", HostRules(), BOTH, IPTABLES, "this host has the legacy tables"),
    ("nf_tables has some", HostRules(nft=3), BOTH, NFTABLES, "this host has its own rules in nf_tables (3)"),
    ("a draw", HostRules(legacy=2, nft=2), BOTH, IPTABLES, "this host has the legacy tables"),
    ("legacy has more", HostRules(legacy=3, nft=2), BOTH, IPTABLES, "this host has the legacy tables"),
    ("nf_tables has more", HostRules(legacy=1, nft=2), BOTH, NFTABLES,
        "this host has its own rules in nf_tables (2; legacy tables have 1)"),
    ("Kubernetes in nf_tables", HostRules(legacy=9, nft=2, kubernetes=NFTABLES), BOTH, NFTABLES,
        "Kubernetes uses nf_tables on this host"),
    ("Kubernetes in legacy", HostRules(legacy=2, nft=9, kubernetes=IPTABLES), BOTH, IPTABLES,
        "Kubernetes uses the legacy tables on this host"),
    ("what nf_tables there is cannot hold ours", HostRules(nft=3), {IPTABLES: YES, NFTABLES: NO}, IPTABLES,
        "this host has its own rules in nf_tables (3), which cannot be used: no such table"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "backends", "expected", "why"), [row[1:] for row in DETECTED], ids=[row[0] for row in DETECTED]
)
def test_ours_go_where_the_hosts_rules_are(
    rules: HostRules, backends: dict[Backend, Probe], expected: Backend, why: str
) -> None:
    felix = FelixConfiguration("default")
    assert raw_backend(facts(backends, rules), felix, RawChoice.AUTO) == (expected, why)


REFUSED = [
    (
        {"nftables_mode": "Enabled"},
        RawChoice.AUTO,
        "nftables is not possible on this host .nftablesMode: Enabled.: no su",
    ),
    ({}, RawChoice.NFTABLES, "nftables is not possible on this host .raw backend 'nftables' was requested.: no such"),
    ({}, RawChoice.AUTO, "no backend for the raw table: iptables: no such table; nftables: no such table"),
    ({"iptables_backend": "Legacy"}, RawChoice.AUTO, "iptables is not possible on this host .iptablesBackend: Legacy"),
]


@pytest.mark.parametrize(("fields", "choice", "message"), REFUSED)
def test_what_the_host_has_not_is_refused(fields: dict[str, str], choice: RawChoice, message: str) -> None:
    felix = FelixConfiguration("default", **fields)  # type: ignore[arg-type]  # of several types
    with pytest.raises(UnsupportedKernelError, match=message):
        raw_backend(facts({IPTABLES: NO, NFTABLES: NO}), felix, choice)


def test_the_words_of_the_yaml_are_understood() -> None:
    text = "{apiVersion: projectcalico.org/v3, kind: FelixConfiguration, metadata: {name: default}, spec: {%s}}"
    for spec, expected in (("iptablesBackend: nft", NFTABLES), ("nftablesMode: Enabled", NFTABLES), ("", IPTABLES)):
        felix = load_text(text % spec).felix_for("jasper")
        assert raw_backend(facts(BOTH), felix, RawChoice.AUTO)[0] is expected
