"""FelixConfiguration's fields that this project ignores: values that Calico refuses are refused here as well."""

from __future__ import annotations

import pytest

from tests.unit.enforcer.policy.documents import accepted, document, faults

DURATION = "expected a duration such as '90s' or '1m30s', found"

# A valid value of a field, an invalid one, and position and message of the refusal.
ROWS: list[tuple[str, str, str]] = [
    ("{awsSrcDstCheck: DoNothing}", "{awsSrcDstCheck: enable}",
     "awsSrcDstCheck: expected DoNothing or Enable or Disable, found 'enable'; did you mean 'Enable'?"),
    ("{serviceLoopPrevention: ''}", "{serviceLoopPrevention: drop}",
     "serviceLoopPrevention: expected Drop or Reject or Disabled, found 'drop'; did you mean 'Drop'?"),
    ("{logSeverityScreen: wArNiNg}", "{logSeverityScreen: Critical}",
     "logSeverityScreen: expected Trace or Debug or Info or Warning or Error or Fatal, found 'Critical'"),
    ("{wireguardListeningPort: 65535}", "{wireguardListeningPort: 65536}",
     "wireguardListeningPort: 65536 is outside 1..65535"),
    ("{wireguardRoutingRulePriority: 32765}", "{wireguardRoutingRulePriority: 32766}",
     "wireguardRoutingRulePriority: 32766 is outside 1..32765"),
    ("{goGCThreshold: -1}", "{goGCThreshold: -2}", "goGCThreshold: -2 is not -1 or more"),
    ("{bpfExtToServiceConnmark: 0xffffffff}", "{bpfExtToServiceConnmark: 0x100000000}",
     "bpfExtToServiceConnmark: 4294967296 is outside 0..4294967295"),
    ("{routeRefreshInterval: 1m30s}", "{routeRefreshInterval: 90}",
     "routeRefreshInterval: expected a string, found the number 90"),
    ("{reportingTTL: 90s}", "{reportingTTL: 90sec}", f"reportingTTL: {DURATION} '90sec'"),
    ("{reportingTTL: 0s}", "{reportingTTL: ''}", f"reportingTTL: {DURATION} ''"),
    ("{dataplaneWatchdogTimeout: 90s}", "{dataplaneWatchdogTimeout: soon}",
     f"dataplaneWatchdogTimeout: {DURATION} the string 'soon'"),
    ("{bpfConntrackTimeouts: {tcpSynSent: Auto}}", "{bpfConntrackTimeouts: {tcpSynSent: auto}}",
     f"bpfConntrackTimeouts.tcpSynSent: {DURATION} 'auto'"),
    ("{bpfConntrackTimeouts: {udpTimeout: 60s}}", "{bpfConntrackTimeouts: {udpTimeouts: 60s}}",
     "bpfConntrackTimeouts.udpTimeouts: unknown field; did you mean 'udpTimeout'?"),
    ("{featureDetectOverride: 'a=true,b=false,'}", "{featureDetectOverride: 'a=1'}",
     "featureDetectOverride: expected text that matches "
     "^([a-zA-Z0-9-_]+=(true|false|),)*([a-zA-Z0-9-_]+=(true|false|))?$, found 'a=1'"),
    ("{bpfDataIfacePattern: 'eth.*'}", "{bpfDataIfacePattern: '*'}",
     "bpfDataIfacePattern: '*' is not a valid regexp: no argument for repetition operator: *"),
    ("{wireguardInterfaceName: wg0}", "{wireguardInterfaceName: 'wg&0'}",
     "wireguardInterfaceName: expected an interface name of 1..15 letters, digits, '_', '.', '-', found 'wg&0'"),
    ("{bpfForceTrackPacketsFromIfaces: [docker+, eth0]}", "{bpfForceTrackPacketsFromIfaces: [eth0, cali@4]}",
     "bpfForceTrackPacketsFromIfaces[1]: expected an interface name of 1..15 letters, digits, '_', '.', '-', ':', '+', "
     "found 'cali@4'"),
    ("{bpfLogFilters: {eth0: tcp}}", "{bpfLogFilters: {'eth/0': tcp}}",
     "bpfLogFilters.eth/0: expected an interface name of 1..15 letters, digits, '_', '.', '-', found 'eth/0'"),
    ("{bpfLogFilters: {}}", "{bpfLogFilters: {eth0: 7}}", "bpfLogFilters.eth0: expected a string, found the number 7"),
    ("{bpfDSROptoutCIDRs: [10.0.0.1/8, 'fd00::1']}", "{bpfDSROptoutCIDRs: [10.0.0.0/40]}",
     "bpfDSROptoutCIDRs[0]: expected a prefix length of 0..32, found '40' in '10.0.0.0/40'"),
    ("{externalNodesList: [192.0.2.1, 192.0.2.0/24]}", "{externalNodesList: ['fd00::1']}",
     "externalNodesList[0]: expected an IPv4 address or CIDR, found the string 'fd00::1'"),
    ("{natOutgoingAddress: 192.0.2.1}", "{natOutgoingAddress: 'fd00::1'}",
     "natOutgoingAddress: expected an IPv4 address, found the string 'fd00::1'"),
    ("{deviceRouteSourceAddressIPv6: 'fd00::1'}", "{deviceRouteSourceAddressIPv6: 'fd00::1/128'}",
     "deviceRouteSourceAddressIPv6: expected an IP address without mask, found 'fd00::1/128'"),
    ("{deviceRouteSourceAddress: ''}", "{deviceRouteSourceAddress: 192.0.2}",
     "deviceRouteSourceAddress: expected an IP address, found '192.0.2'"),
    ("{kubeNodePortRanges: ['30000:32767', 80]}", "{kubeNodePortRanges: [http]}",
     "kubeNodePortRanges[0]: expected a port number or a range 'first:last', found the string 'http'"),
    ("{kubeNodePortRanges: [1, 2, 3, 4, 5, 6, 7]}", "{kubeNodePortRanges: [1, 2, 3, 4, 5, 6, 7, 8]}",
     "kubeNodePortRanges: 8 items; at most 7 are allowed"),
    ("{natPortRange: '1024:65535'}", "{natPortRange: '1024:65536'}", "natPortRange: '1024:65536' is outside 1..65535"),
    ("{openstackRegion: region-1}", "{openstackRegion: Region}",
     "openstackRegion: 'Region' is not valid; use lower case letters, digits, '-', beginning and ending with a "
     "letter or digit"),
    ("{routeTableRange: {min: 1, max: 250}}", "{routeTableRange: {min: 1, max: 251}}",
     "routeTableRange.max: 251 is outside 1..250"),
    ("{routeTableRange: {min: 8, max: 8}}", "{routeTableRange: {min: 50, max: 45}}",
     "routeTableRange: the range 50..45 ends before it begins"),
    ("{routeTableRanges: [{min: 1, max: 0xffff}]}", "{routeTableRanges: [{min: 1, max: 2}, {min: 3, max: 0x10000}]}",
     "routeTableRanges: 65536 route tables in all; at most 65535 are allowed"),
    ("{routeTableRanges: [{min: 7, max: 7}]}", "{routeTableRange: {min: 1, max: 2}, routeTableRanges: []}",
     "routeTableRange: cannot be used with routeTableRanges; leave it out"),
]  # fmt: skip


@pytest.mark.parametrize(("good", "bad", "refusal"), ROWS, ids=[f"{row[0]} {row[1]}" for row in ROWS])
def test_a_field_of_another_concern(good: str, bad: str, refusal: str) -> None:
    assert accepted(document("FelixConfiguration", good)).felix_configurations[0].written == frozenset()
    ((where, message),) = faults(document("FelixConfiguration", bad))
    assert f"{where}: {message}" == f"spec.{refusal}"
