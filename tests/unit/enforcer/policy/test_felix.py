"""FelixConfiguration beyond single fields: newer fields, annotations, groups of nodes, nftables' own settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from enforcer.backends.iptables.settings import settings_of
from enforcer.backends.nftables.settings import settings_of as nft_settings_of
from enforcer.policy import felix_fields
from enforcer.policy.felix_fields import CALICO, EARLIER, SCHEMAS, TYPES, misspelt, slips_between
from enforcer.policy.resources import Failsafe, FelixConfiguration, Resources
from enforcer.policy.validate_felix import FIELDS
from tests.unit.enforcer.policy.documents import accepted, document, faults

EXAMPLES: dict[str, str] = {
    "boolean": "true", "integer": "7", "number": "1.5", "string": "text", "array": "[]", "object": "{}",
    "int-or-string": "7",
}  # fmt: skip
PARTICULAR = {
    "dataplaneWatchdogTimeout": "90s", "localSubnetL2ReachabilityRefreshInterval": "90s",
    "deviceRouteSourceAddress": "10.0.0.1", "deviceRouteSourceAddressIPv6": "'fd00::1'", "featureGates": "a=b",
    "featureDetectOverride": "a=true", "natOutgoingAddress": "10.0.0.1",
}  # fmt: skip


def felix(spec: str = "{}", metadata: str = "{name: default}") -> Resources:
    return accepted(document("FelixConfiguration", spec, metadata))


# --- the fields of Calico ---------------------------------------------------------------------------------------------


def test_every_field_that_matters_is_calicos() -> None:
    assert TYPES.keys() >= FIELDS.keys()
    assert len(TYPES) == 188
    assert not TYPES.keys() & set(EARLIER)


def example(name: str) -> str:
    """A value in flow style that the field may have."""
    schema = SCHEMAS[name]
    if name in PARTICULAR:
        return PARTICULAR[name]
    if "enum" in schema:
        return f"'{schema['enum'][0]}'"
    if found := re.match(r"\^\(\?i\)\((\w+)", schema.get("pattern", "")):
        return f"'{found[1].lower()}'"
    return "90s" if "(ms|s|" in schema.get("pattern", "") else EXAMPLES[schema["type"]]


def test_every_other_field_is_passed_by_its_type() -> None:
    others = sorted(TYPES.keys() - FIELDS.keys() - {"nodeSelector", "routeTableRange"})
    right = "\n".join(f"{name}: {example(name)}" for name in others)
    assert felix(right).felix_configurations[0].written == frozenset()
    wrong = "\n".join(f"{name}: {'{}' if TYPES[name] == 'array' else '[]'}" for name in others)
    assert [where for where, _ in faults(document("FelixConfiguration", wrong, "{name: default}"))] == [
        f"spec.{name}" for name in others
    ]


def test_a_field_of_a_newer_calico_is_named_and_passed() -> None:
    found = felix("{packetMirrorTarget: eth1, xdpEnabled: false}\n")
    (note,) = found.notes
    assert (note.field, note.position.line) == ("spec.packetMirrorTarget", 5)
    assert note.message.startswith(f"not known here (Calico {CALICO} has 188 fields, and none of this name); passed")
    assert found.felix_for("jasper").xdp_enabled is False


def test_a_field_of_calico_enterprise_is_named_as_such() -> None:
    (note,) = felix("{dnsTrustedServers: ['10.0.0.53']}").notes
    assert (note.field, note.message) == (
        "spec.dnsTrustedServers",
        "a field of Calico Enterprise; passed, nothing here depends on it",
    )


@pytest.mark.parametrize("known", sorted(TYPES))
def test_a_misspelt_field_is_none_of_a_newer_calico(known: str) -> None:
    half = len(known) // 2
    exchanged = known[:half] + known[half + 1] + known[half] + known[half + 2 :]
    for slip in (
        known[:half] + known[half + 1 :],
        known + "s",
        f"{known[:half]}q{known[half:]}",
        known.upper(),
        exchanged,
    ):
        if slip not in TYPES:
            assert misspelt(slip, FIELDS), slip


def test_most_fields_are_no_slips_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """If Calico added any one of its fields as new, nearly all would be recognised correctly."""
    taken = []
    for name in TYPES:
        monkeypatch.setattr(felix_fields, "KNOWN", frozenset(TYPES.keys() - {name}))
        taken += [name] if misspelt(name, FIELDS.keys() - {name}) else []
    assert len(taken) <= 16, taken


def test_a_name_that_leaves_a_word_out_is_a_slip_where_the_field_matters() -> None:
    assert misspelt("failsafeInboundPorts", FIELDS) == "failsafeInboundHostPorts"
    assert misspelt("xdpRefreshIntervall", FIELDS) == "xdpRefreshInterval"
    assert slips_between("abcd", "abdc") == 1


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("failsafeHostPortsInbound", "failsafeInboundHostPorts"),
        ("failsafeInbound", "failsafeInboundHostPorts"),
        ("outboundFailsafePorts", "failsafeOutboundHostPorts"),
        ("enableXDP", "xdpEnabled"),
        ("xdpDisabled", "xdpEnabled"),
        ("genericXDP", "genericXDPEnabled"),
        ("excludeInterfaces", "interfaceExclude"),
        ("xdpRefreshIntervalSecs", "xdpRefreshInterval"),
        ("FELIX_XDPENABLED", "xdpEnabled"),
        ("xdp-enabled", "xdpEnabled"),
    ],
)
def test_the_words_of_a_field_that_matters_in_another_order_or_fewer_are_a_slip(name: str, meant: str) -> None:
    assert misspelt(name, FIELDS) == meant


@pytest.mark.parametrize("name", ["failsafeInboundHostPortsV6", "xdpMode", "xdpSampleInterval", "logAction", "v6", ""])
def test_a_field_of_its_own_is_no_slip(name: str) -> None:
    assert misspelt(name, FIELDS) == ""


# --- annotations ------------------------------------------------------------------------------------------------------

ANNOTATED: list[tuple[str, str, str, Any]] = [
    ("failsafes: none", "FailsafeInboundHostPorts: none", "failsafe_inbound", ()),
    ("failsafes", "FailsafeOutboundHostPorts: 'udp:53,179'", "failsafe_outbound", (Failsafe(17, 53), Failsafe(6, 179))),
    ("a boolean in text", "XDPEnabled: 'false'", "xdp_enabled", False),
    ("a boolean as Felix reads it", "GenericXDPEnabled: 'Y'", "generic_xdp_enabled", True),
    ("a boolean switched off", "XDPEnabled: none", "xdp_enabled", False),
    ("Felix takes any case of a name", "xdpenabled: 'no'", "xdp_enabled", False),
    ("seconds", "XDPRefreshInterval: '30.5'", "xdp_refresh_interval_s", 30.5),
    ("no refresh", "IpsetsRefreshInterval: none", "ipsets_refresh_interval_s", 0.0),
    ("a mask", "IptablesMarkMask: '0xff000000'", "iptables_mark_mask", 0xFF000000),
    ("an octal number", "MaxIpsetSize: '010'", "max_ipset_size", 8),
    ("a word in any case", "NFTablesMode: enabled", "nftables_mode", "Enabled"),
    ("no prefix", "LogPrefix: none", "log_prefix", ""),
]


@pytest.mark.parametrize(("text", "name", "value"), [row[1:] for row in ANNOTATED], ids=[row[0] for row in ANNOTATED])
def test_an_annotation_overrides_the_spec(text: str, name: str, value: object) -> None:
    metadata = f"{{name: default, annotations: {{config.projectcalico.org/{text}}}}}"
    spec = "{xdpEnabled: true, xdpRefreshInterval: 5s, failsafeInboundHostPorts: [{port: 1}], logPrefix: x}"
    found = felix(spec, metadata).felix_for("jasper")
    assert getattr(found, name) == value
    assert name in found.written


def test_annotations_of_others_and_settings_of_another_concern_are_passed() -> None:
    metadata = "{name: default, annotations: {example.org/XDPEnabled: x, config.projectcalico.org/BPFLogLevel: Debug}}"
    assert felix("{}", metadata).felix_for("jasper").written == frozenset()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("XDPEnabled: maybe", "expected a boolean such as 'true', found 'maybe'"),
        ("XDPEnabeld: 'false'", "Felix has no setting 'XDPEnabeld'; did you mean 'XdpEnabled'?"),
        ("XDPRefreshInterval: 30s", "expected a number of seconds, found '30s'"),
        ("XDPRefreshInterval: nan", "expected a number of seconds, found 'nan'"),
        ("MaxIpsetSize: 1_0", "expected a string, found the number 10"),
        ("MaxIpsetSize: '0x'", "expected a whole number, found '0x'"),
        ("MaxIpsetSize: none", "0 is outside 1..2147483647"),
        ("FailsafeInboundHostPorts: 'sctp:22'", "expected failsafes such as"),
    ],
)
def test_a_faulty_annotation_is_refused(text: str, message: str) -> None:
    metadata = f"{{name: default, annotations: {{config.projectcalico.org/{text}}}}}"
    found = faults(document("FelixConfiguration", "{}", metadata))
    assert found[0][0].startswith("metadata.annotations.config.projectcalico.org/")
    assert any(message in said for _, said in found)


# --- groups of nodes --------------------------------------------------------------------------------------------------

EDGE = document(
    "FelixConfiguration", "{nodeSelector: role == 'edge', xdpEnabled: false, maxIpsetSize: 3}", "{name: edge}"
)
ALL = document("FelixConfiguration", "{maxIpsetSize: 1, logPrefix: all, xdpEnabled: true}", "{name: default}")
MINE = document("FelixConfiguration", "{maxIpsetSize: 2}", "{name: node.jasper}")


def node(name: str, role: str, version: str = "projectcalico.org/v3") -> str:
    labels = f"{{name: {name}, labels: {{role: {role}}}}}"
    return document("Node", "{anything: [1]}", labels).replace("projectcalico.org/v3", version)


def together(*texts: str) -> Resources:
    return accepted("---\n".join(texts))


@pytest.mark.parametrize("version", ["projectcalico.org/v3", "v1"])
def test_a_group_overrides_default_and_is_overridden_by_the_nodes_own(version: str) -> None:
    found = together(ALL, MINE, EDGE, node("jasper", "edge", version), node("ruby", "core", version))
    mine, other = found.felix_for("jasper"), found.felix_for("ruby")
    assert (mine.max_ipset_size, mine.xdp_enabled, mine.log_prefix) == (2, False, "all")
    assert (other.max_ipset_size, other.xdp_enabled) == (1, True)
    assert not found.felix_unknown("jasper")
    assert not found.felix_unknown("ruby")


def test_of_a_node_of_unknown_labels_only_all_is_known_to_select_it() -> None:
    found = together(ALL, EDGE)
    assert found.felix_for("jasper").xdp_enabled is True
    assert [item.name for item in found.felix_unknown("jasper")] == ["edge"]
    every = together(ALL, EDGE.replace("role == 'edge'", "all()"))
    assert every.felix_for("jasper").xdp_enabled is False
    assert not every.felix_unknown("jasper")


def test_the_oldest_of_two_groups_counts_then_the_smaller_name() -> None:
    def group(name: str, size: int, created: str = "") -> str:
        stamp = f", creationTimestamp: '{created}'" if created else ""
        return document(
            "FelixConfiguration", f"{{nodeSelector: all(), maxIpsetSize: {size}}}", f"{{name: {name}{stamp}}}"
        )

    newer, older = "2026-01-02T00:00:00+02:00", "2026-01-01T21:00:00Z"
    assert together(group("a", 1, newer), group("b", 2, older)).felix_for("jasper").max_ipset_size == 2
    assert together(group("b", 1, older), group("a", 2, older)).felix_for("jasper").max_ipset_size == 2
    assert together(group("a", 1, older), group("b", 2)).felix_for("jasper").max_ipset_size == 2


def test_a_selector_has_no_place_where_the_name_says_which_nodes() -> None:
    for name in ("default", "node.jasper"):
        ((where, message),) = faults(document("FelixConfiguration", "{nodeSelector: all()}", f"{{name: {name}}}"))
        assert where == "spec.nodeSelector"
        assert message.startswith(f"may not be set in {name!r}")
    ((where, _),) = faults(document("FelixConfiguration", "{nodeSelector: role =}", "{name: edge}"))
    assert where == "spec.nodeSelector"
    ((where, message),) = faults(document("FelixConfiguration", "{}", "{name: x, creationTimestamp: today}"))
    assert (where, message) == (
        "metadata.creationTimestamp",
        "expected a time such as '2026-01-31T12:00:00Z', found 'today'",
    )


# --- nftables' own settings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "backend", "mark", "interval"),
    [
        ("Enabled", "Auto", 0xFFF00000, 60.0),
        ("Enabled", "NFT", 0xFFF00000, 60.0),
        ("Auto", "NFT", 0x0FFF0000, 100.0),  # Felix runs iptables-nft then, with its iptables settings
        ("Disabled", "Auto", 0x0FFF0000, 100.0),
        ("Auto", "Auto", 0xFFF00000, 60.0),  # the mark applies if nftables is chosen; either interval is valid
        ("Auto", "Legacy", 0xFFF00000, 100.0),
    ],
)
def test_nftables_has_settings_of_its_own(mode: str, backend: str, mark: int, interval: float) -> None:
    found = FelixConfiguration(
        "default", nftables_mode=mode, iptables_backend=backend, nftables_mark_mask=0xFFF00000,
        iptables_mark_mask=0x0FFF0000, nftables_refresh_interval_s=60.0, iptables_refresh_interval_s=100.0,
    )  # fmt: skip
    assert nft_settings_of(found).mark_mask == mark
    assert settings_of(found).mark_mask == 0x0FFF0000
    assert found.table_refresh_interval_s == interval


def test_the_documents_state_the_version_and_the_number_of_fields() -> None:
    page = (Path(__file__).parents[4] / "docs" / "resources.md").read_text(encoding="utf-8")
    assert f"All {len(TYPES)} fields of Calico {CALICO} are known" in page
