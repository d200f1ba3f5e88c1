"""FelixConfiguration: reads and checks the fields that affect untracked policy (``felix/config/config_params.go``).

All other fields of Felix are only checked (``felix_schema``). As in Felix, an empty string leaves the default, ``none``
disables a text setting, and an annotation ``config.projectcalico.org/NAME`` overrides the spec (``felix_annotations``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from enforcer.policy import felix_fields, schema, values
from enforcer.policy.felix_annotations import overrides
from enforcer.policy.felix_schema import of_schema
from enforcer.policy.nodes import Fieldset, Scalar, shown
from enforcer.policy.reading import (
    UNKNOWN_MAX,
    Cursor,
    Fields,
    Identity,
    Reader,
    Refused,
    boolean,
    integer,
    list_of,
    one_of,
    string,
)
from enforcer.policy.regexp import NoExpression, check
from enforcer.policy.resources import Failsafe, FelixConfiguration

WORD_MAX = 0xFFFFFFFF
COUNT_MAX = 2**31 - 1
BURST_MAX = 9999
# Felix uses marks for accept, pass, seen and endpoint, and one scratch bit.
MARK_BITS = 5

_INTERFACE = re.compile(r"[a-zA-Z0-9_-]{1,15}")
_LOG_PREFIX = re.compile(r"[a-zA-Z0-9%: /_-]*")
_RATE = re.compile(r"[1-9][0-9]{0,3}/(second|minute|hour|day)")
# One failsafe in the format of Felix's file and environment: 22, tcp:22, udp:10.0.0.0/8:53, udp:[fd00::/8]:53
_FAILSAFE = re.compile(r"(?:(tcp|udp):(?:([^\[\]:]+):)?)?(?:\[([^\]]+)\]:)?([0-9]{1,9})", re.IGNORECASE)


# --- failsafes ------------------------------------------------------------------------------------------------------


def _failsafes(at: Cursor) -> tuple[Failsafe, ...] | None:
    """Failsafes as a list, or as one string in the format of Felix's configuration file."""
    if not (isinstance(at.node, Scalar) and isinstance(at.node.value, str)):
        return list_of(_failsafe)(at)
    text = at.node.value
    if text.lower() == "none":
        return ()
    return tuple(_written_failsafe(at, part.strip()) for part in text.split(",") if part.strip()) if text else None


def _failsafe(at: Cursor) -> Failsafe:
    fields = Fields(at, schema.PROTO_PORT)
    protocol = fields.get("protocol", _word("TCP", "UDP", "SCTP"), None) or "TCP"  # Felix ignores case
    return Failsafe(
        schema.PROTOCOLS[protocol],
        fields.need("port", integer(0, values.PORT_MAX), 0),
        fields.get("net", _optional_net, None),
    )


def _optional_net(at: Cursor) -> Any:
    return values.lenient_net(at) if string(at) else None


def _written_failsafe(at: Cursor, text: str) -> Failsafe:
    found = _FAILSAFE.fullmatch(text)
    if not found or (found[2] and found[3]):
        raise Refused(
            at, f"expected failsafes such as 'tcp:22,udp:10.0.0.0/8:53,udp:[fd00::/8]:53' or none, found {shown(text)}"
        )
    net, port = found[2] or found[3], int(found[4])
    if port > values.PORT_MAX:
        raise Refused(at, f"{port} is outside 0..{values.PORT_MAX}")
    where = Cursor(at.report, Scalar(net, at.node.line, at.node.column), at.field)
    within = values.lenient_net(where) if net else None
    return Failsafe(schema.PROTOCOLS[(found[1] or "tcp").upper()], port, within)


# --- text -----------------------------------------------------------------------------------------------------------


def _word(*words: str) -> Reader[str | None]:
    """Reads one of the words in any case, like the schema and Felix; "" is the default."""

    def read(at: Cursor) -> str | None:
        text = string(at)
        found = next((word for word in words if word.lower() == text.lower()), None)
        if text and found is None:
            raise Refused(at, f"expected {' or '.join(words)}, found {shown(text)}")
        return found

    return read


def _prefixes(at: Cursor) -> tuple[str, ...] | None:
    parts = tuple(string(at).split(","))
    if parts == ("",):
        return None
    for part in parts:
        if not _INTERFACE.fullmatch(part):
            raise Refused(at, f"expected names of 1..15 letters, digits, '_', '-', joined by ',', found {shown(part)}")
    if parts in (("none",), ("None",)):
        raise Refused(at, "Felix requires a prefix of workload interfaces")
    return parts


def _exclusions(at: Cursor) -> tuple[str, ...] | None:
    text = string(at)
    if text.lower() in ("", "none"):
        return () if text else None
    parts = tuple(text.split(","))
    for part in parts:
        if re.fullmatch(r"/\S+/", part):
            try:
                check(part[1:-1])
            except NoExpression as error:
                raise Refused(at, f"{shown(part)} is not a valid regexp: {error}") from error
        elif not _INTERFACE.fullmatch(part):
            raise Refused(
                at,
                "expected interface names of 1..15 letters, digits, '_', '-', or /expressions/, joined by ',', "
                f"found {shown(part)}; Felix would leave its default",
            )
    return parts


def _log_prefix(at: Cursor) -> str | None:
    text = string(at)
    if not _LOG_PREFIX.fullmatch(text):
        raise Refused(at, f"expected letters, digits, blanks and '%', ':', '/', '_', '-', found {shown(text)}")
    return "" if text.lower() == "none" else text or None


def _rate(at: Cursor) -> str | None:
    text = string(at)
    if text and not _RATE.fullmatch(text):
        raise Refused(at, f"expected 1..9999 per second, minute, hour or day, as '10/minute', found {shown(text)}")
    return text or None


def _mark_mask(at: Cursor) -> int:
    mask = integer(0, WORD_MAX)(at)
    if mask.bit_count() < MARK_BITS:
        raise Refused(at, f"{mask:#x} has {mask.bit_count()} bits; Felix needs {MARK_BITS}")
    return mask


# --- metrics and health ---------------------------------------------------------------------------------------------

_TIMEOUT = re.compile(r"\s*([a-zA-Z0-9_ -]+?)\s*=\s*(\S+)\s*")


def _metrics_host(at: Cursor) -> str:
    of_schema("prometheusMetricsHost", felix_fields.SCHEMAS["prometheusMetricsHost"])(at)
    return string(at)


def _given(at: Cursor) -> str | None:
    return string(at) or None


def _timeouts(at: Cursor) -> tuple[tuple[str, float], ...] | None:
    """Timeouts of health components as a list, or as one string in the format of Felix's configuration file."""
    if not (isinstance(at.node, Scalar) and isinstance(at.node.value, str)):
        before = len(at.report.findings)
        of_schema("healthTimeoutOverrides", felix_fields.SCHEMAS["healthTimeoutOverrides"])(at)
        if len(at.report.findings) > before:
            return None
        return list_of(lambda item: (string(item.down("name")), values.duration_s(item.down("timeout"))))(at)
    found = []
    for part in filter(None, at.node.value.split(",")):
        parsed = _TIMEOUT.fullmatch(part)
        if parsed is None:
            raise Refused(at, f"expected timeouts such as 'event-loop=90s,pass=10m', found {shown(part)}")
        where = Cursor(at.report, Scalar(parsed[2], at.node.line, at.node.column), at.field)
        found.append((parsed[1], values.duration_s(where)))
    return tuple(found) or None


# --- the table ------------------------------------------------------------------------------------------------------

_allow = _word("Accept", "Return")
_client_auth = one_of("RequireAndVerifyClientCert", "RequireAnyClientCert", "VerifyClientCertIfGiven", "NoClientCert")

# API field -> (field of FelixConfiguration, its reader). A reader that returns None leaves the field unset. Annotations
# use Felix's own names, which differ only in case.
FIELDS: dict[str, tuple[str, Reader[Any]]] = {
    "xdpEnabled": ("xdp_enabled", boolean),
    "genericXDPEnabled": ("generic_xdp_enabled", boolean),
    "xdpRefreshInterval": ("xdp_refresh_interval_s", values.duration_s),
    "failsafeInboundHostPorts": ("failsafe_inbound", _failsafes),
    "failsafeOutboundHostPorts": ("failsafe_outbound", _failsafes),
    "interfacePrefix": ("interface_prefix", _prefixes),
    "interfaceExclude": ("interface_exclude", _exclusions),
    "iptablesMarkMask": ("iptables_mark_mask", _mark_mask),
    "maxIpsetSize": ("max_ipset_size", integer(1, COUNT_MAX)),
    "ipsetsRefreshInterval": ("ipsets_refresh_interval_s", values.duration_s),
    "iptablesRefreshInterval": ("iptables_refresh_interval_s", values.duration_s),
    "nftablesMarkMask": ("nftables_mark_mask", _mark_mask),
    "nftablesRefreshInterval": ("nftables_refresh_interval_s", values.duration_s),
    "nftablesFilterDenyAction": ("nftables_filter_deny_action", _word("Drop", "Reject")),
    "nftablesFilterAllowAction": ("nftables_filter_allow_action", _allow),
    "nftablesMangleAllowAction": ("nftables_mangle_allow_action", _allow),
    "chainInsertMode": ("chain_insert_mode", _word("insert", "append")),
    "ipv6Support": ("ipv6_support", boolean),
    "logPrefix": ("log_prefix", _log_prefix),
    "logActionRateLimit": ("log_action_rate_limit", _rate),
    "logActionRateLimitBurst": ("log_action_rate_limit_burst", integer(0, BURST_MAX)),
    "iptablesFilterDenyAction": ("iptables_filter_deny_action", _word("Drop", "Reject")),
    "iptablesFilterAllowAction": ("iptables_filter_allow_action", _allow),
    "iptablesMangleAllowAction": ("iptables_mangle_allow_action", _allow),
    "defaultEndpointToHostAction": ("default_endpoint_to_host_action", _word("Drop", "Accept", "Return")),
    "disableConntrackInvalidCheck": ("disable_conntrack_invalid_check", boolean),
    "iptablesBackend": ("iptables_backend", _word("Auto", "Legacy", "NFT")),
    "nftablesMode": ("nftables_mode", one_of("Auto", "Enabled", "Disabled")),
    "bpfEnabled": ("bpf_enabled", boolean),
    "bpfAttachType": ("bpf_attach_type", one_of("TC", "TCX", "Netkit")),
    "bpfMapSizeIPSets": ("bpf_map_size_ipsets", integer(1, COUNT_MAX)),
    "prometheusMetricsEnabled": ("metrics_enabled", boolean),
    "prometheusMetricsHost": ("metrics_host", _metrics_host),
    "prometheusMetricsPort": ("metrics_port", integer(0, values.PORT_MAX)),
    "prometheusMetricsCAFile": ("metrics_ca_file", _given),
    "prometheusMetricsCertFile": ("metrics_cert_file", _given),
    "prometheusMetricsKeyFile": ("metrics_key_file", _given),
    "prometheusMetricsClientAuth": ("metrics_client_auth", _client_auth),
    "prometheusProcessMetricsEnabled": ("metrics_of_process", boolean),
    "healthEnabled": ("health_enabled", boolean),
    "healthHost": ("health_host", _given),
    "healthPort": ("health_port", integer(0, values.PORT_MAX)),
    "healthTimeoutOverrides": ("health_timeouts_s", _timeouts),
}


NODE_SELECTOR = "nodeSelector"


def felix_configuration(at: Cursor, base: Identity) -> FelixConfiguration:
    """Reads a ``spec``. ``written``: the fields it sets, as ``node.<name>`` overrides ``default`` field by field."""
    names = at.node.fields.keys() if isinstance(at.node, Fieldset) else ()
    spec = Fields(at, {*felix_fields.KNOWN, *_passed(at, names)})
    found: dict[str, Any] = {}
    for api_name, (name, read) in FIELDS.items():
        value = spec.get(api_name, read, None)
        if value is not None:
            found[name] = value
    for api_name, value in overrides(base.annotations, {name: read for name, (_, read) in FIELDS.items()}):
        found[FIELDS[api_name][0]] = value
    for api_name in sorted(felix_fields.TYPES.keys() - FIELDS.keys() - {NODE_SELECTOR}):
        spec.get(api_name, of_schema(api_name, felix_fields.SCHEMAS[api_name]), None)
    if "routeTableRange" in spec and "routeTableRanges" in spec:
        spec.cursor("routeTableRange").fault("cannot be used with routeTableRanges; leave it out")
    blank = FelixConfiguration(base.name, base.labels, base.position, written=frozenset(found))
    return replace(blank, node_selector=_node_selector(spec, base.name), created=base.created, **found)


def _passed(at: Cursor, names: Iterable[str]) -> Iterator[str]:
    """Notes unknown fields that are not misspellings; they are ignored."""
    for name in sorted(set(names) - felix_fields.KNOWN)[:UNKNOWN_MAX]:
        where = at.down(name)
        if felix_fields.is_enterprise(name):
            where.note("a field of Calico Enterprise; passed, nothing here depends on it")
            yield name
        elif not felix_fields.misspelt(name, FIELDS):
            known = f"Calico {felix_fields.CALICO} has {len(felix_fields.TYPES)} fields"
            where.note(f"not known here ({known}, and none of this name); passed, nothing here depends on it")
            yield name


def _node_selector(spec: Fields, name: str) -> str:
    """The nodeSelector of a FelixConfiguration that is neither ``default`` nor ``node.<name>``."""
    if NODE_SELECTOR in spec and (name == "default" or name.startswith("node.")):
        spec.cursor(NODE_SELECTOR).fault(f"may not be set in {name!r}, which says by its name which nodes it is for")
    return spec.get(NODE_SELECTOR, values.selector(), "")
