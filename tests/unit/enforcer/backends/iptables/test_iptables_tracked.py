"""Tracked policy in mangle and filter, as iptables-save prints it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from enforcer.backends.iptables.render import render
from enforcer.backends.iptables.rules import Rule, TableId, TableName, save_line
from enforcer.backends.iptables.settings import IptablesSettings
from enforcer.model.errors import UnsupportedRuleError
from enforcer.model.vocabulary import Backend
from enforcer.planning.plan import Plan, TrackedPlan
from enforcer.policy.compile import compile_tracked
from enforcer.policy.load import load_text
from enforcer.policy.tracked import Hook, TrackedTable

POLICY = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: h, labels: {role: server}}
spec: {node: jasper, interfaceName: eth0, profiles: [open]}
---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: open}
spec: {egress: [{action: Allow}]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: normal}
spec:
  selector: role == 'server'
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [80]}}
  - {action: Pass, protocol: UDP}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: dnat}
spec:
  selector: role == 'server'
  preDNAT: true
  applyOnForward: true
  ingress: [{action: Allow, protocol: TCP, destination: {ports: [32010]}}, {action: Deny, protocol: TCP}]
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {failsafeInboundHostPorts: [{protocol: tcp, port: 22}], failsafeOutboundHostPorts: []}
"""

FILTER = """
-A enf-deny -j MARK --set-xmark 0x20000/0x20000
-A enf-deny -j DROP
-A enf-int-eth0/default -p tcp -m multiport --dports 80 -m comment --comment "gnp/normal ingress[0]" -j ACCEPT
-A enf-int-eth0/default -p udp -m comment --comment "gnp/normal ingress[1]" -j RETURN
-A enf-int-eth0/default -m comment --comment "tier/default ingress default" -g enf-deny
-A enf-in-eth0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A enf-in-eth0 -m conntrack --ctstate INVALID -m comment --comment "conntrack INVALID ingress" -g enf-deny
-A enf-in-eth0 -p tcp -m multiport --dports 22 -j ACCEPT
-A enf-in-eth0 -j enf-int-eth0/default
-A enf-in-eth0 -j enf-inp-eth0/open
-A enf-in-eth0 -m comment --comment "no profile ingress" -g enf-deny
-A enf-outp-eth0/open -m comment --comment "profile/open egress[0]" -j ACCEPT
-A enf-out-eth0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A enf-out-eth0 -m conntrack --ctstate INVALID -m comment --comment "conntrack INVALID egress" -g enf-deny
-A enf-out-eth0 -j enf-outp-eth0/open
-A enf-out-eth0 -m comment --comment "no profile egress" -g enf-deny
-A enf-fwi-eth0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A enf-fwi-eth0 -m conntrack --ctstate INVALID -m comment --comment "conntrack INVALID ingress" -g enf-deny
-A enf-fwi-eth0 -j MARK --set-xmark 0x0/0x10000
-A enf-fwo-eth0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A enf-fwo-eth0 -m conntrack --ctstate INVALID -m comment --comment "conntrack INVALID egress" -g enf-deny
-A enf-fwo-eth0 -j MARK --set-xmark 0x0/0x10000
-A enf-INPUT -m mark --mark 0x10000/0x10000 -j ACCEPT
-A enf-INPUT -j MARK --set-xmark 0x0/0x10000
-A enf-INPUT -i eth0 -g enf-in-eth0
-A enf-OUTPUT -j MARK --set-xmark 0x0/0x10000
-A enf-OUTPUT -o eth0 -g enf-out-eth0
-A enf-FORWARD -i eth0 -m mark --mark 0x0/0x10000 -j enf-fwi-eth0
-A enf-FORWARD -o eth0 -j enf-fwo-eth0
"""

MANGLE = """
-A enf-deny -j MARK --set-xmark 0x20000/0x20000
-A enf-deny -j DROP
-A enf-mark-accept -j MARK --set-xmark 0x10000/0x10000
-A enf-mark-accept -j ACCEPT
-A enf-dnt-eth0/default -p tcp -m multiport --dports 32010 -m comment --comment "gnp/dnat ingress[0]" -g enf-mark-accept
-A enf-dnt-eth0/default -p tcp -m comment --comment "gnp/dnat ingress[1]" -g enf-deny
-A enf-dn-eth0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A enf-dn-eth0 -m conntrack --ctstate INVALID -m comment --comment "conntrack INVALID ingress" -g enf-deny
-A enf-dn-eth0 -p tcp -m multiport --dports 22 -j ACCEPT
-A enf-dn-eth0 -j enf-dnt-eth0/default
-A enf-PREROUTING -j MARK --set-xmark 0x0/0x10000
-A enf-PREROUTING -i eth0 -g enf-dn-eth0
"""


def tracked() -> TrackedTable:
    table = compile_tracked(load_text(POLICY), node="jasper", interface="eth0")
    assert table is not None
    return table


def lines(
    name: TableName,
    settings: IptablesSettings | None = None,
    version: int = 4,
    table: TrackedTable | None = None,
) -> list[str]:
    plan = Plan("jasper", (), tracked=(TrackedPlan(table or tracked(), Backend.IPTABLES, enforced=True),))
    chains = render(plan, settings or IptablesSettings()).chains[TableId(version, name)]
    rules = ((chain.name, rule) for chain in chains for rule in chain.rules)
    return [save_line(name, rule, version) for name, rule in rules if isinstance(rule, Rule)]


@pytest.mark.parametrize(("name", "expected"), [(TableName.FILTER, FILTER), (TableName.MANGLE, MANGLE)])
def test_the_chains(name: TableName, expected: str) -> None:
    assert lines(name) == expected.strip().splitlines()


def test_what_is_not_enforced_is_not_rendered() -> None:
    plan = Plan("jasper", (), tracked=(TrackedPlan(tracked(), Backend.IPTABLES, enforced=False),))
    assert render(plan, IptablesSettings()).chains == {}


def test_neighbour_discovery_is_accepted_as_long_as_it_is_untracked() -> None:
    found = lines(TableName.FILTER, version=6)
    assert "-A enf-discovery -p ipv6-icmp -m icmp6 --icmpv6-type 135 -j ACCEPT" in found
    for base in ("enf-INPUT", "enf-OUTPUT"):
        assert f"-A {base} -m conntrack --ctstate UNTRACKED -j enf-discovery" in found


def test_a_mark_that_cannot_be_ours_is_cleared_before_forward_policy() -> None:
    """Here preDNAT policy may have set it, which then spares a packet the first chain."""
    table = tracked()
    without = replace(table, chains=tuple(chain for chain in table.chains if chain.hook is not Hook.PRE_DNAT))
    clear = "-A enf-FORWARD -j MARK --set-xmark 0x0/0x10000"
    assert clear in lines(TableName.FILTER, table=without)
    assert clear not in lines(TableName.FILTER)


def test_where_an_allow_is_not_final_it_leads_back_to_the_hosts_rules() -> None:
    """iptablesFilterAllowAction and iptablesMangleAllowAction: Return."""
    settings = IptablesSettings(accepting=frozenset())
    text = "\n".join(lines(TableName.FILTER, settings))
    assert '-m comment --comment "gnp/normal ingress[0]" -g enf-mark' in text
    assert "-A enf-in-eth0 -j enf-int-eth0/default\n-A enf-in-eth0 -m mark --mark 0x10000/0x10000 -j RETURN" in text
    assert "-A enf-in-eth0 -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN" in text
    assert "-A enf-in-eth0 -p tcp -m multiport --dports 22 -j ACCEPT" in text  # a failsafe is final all the same
    assert "-A enf-INPUT -m mark --mark 0x10000/0x10000 -j RETURN" in text
    assert "-g enf-mark\n" in "\n".join(lines(TableName.MANGLE, settings))


def test_a_mask_of_one_bit_has_none_for_a_deny() -> None:
    with pytest.raises(UnsupportedRuleError, match="tracked policy: it needs two bits of the mark mask, which is 0x10"):
        lines(TableName.FILTER, IptablesSettings(mark_mask=0x10))
