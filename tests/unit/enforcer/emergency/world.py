"""A policy for the tests of emergency acts."""

from __future__ import annotations

from ipaddress import ip_network

from enforcer.emergency.act import Act, Deed, act_of, acts_of, object_of
from enforcer.model.nets import IPNetwork
from enforcer.policy.load import load_documents, load_text
from enforcer.policy.resources import GlobalNetworkSet, Resources

NOW = 1_800_000_000
HOUR = 3600
V3 = "apiVersion: projectcalico.org/v3"
ENDPOINT = f"""
{V3}
kind: HostEndpoint
metadata: {{name: jasper-eth0, labels: {{role: edge}}}}
spec: {{node: jasper, interfaceName: eth0, expectedIPs: [192.0.2.1]}}
---"""
BOTS = f"""
{V3}
kind: GlobalNetworkSet
metadata: {{name: bots, labels: {{deny: all}}}}
spec: {{nets: [203.0.113.0/24]}}
---"""
DENY = "{action: Deny, source: {selector: \"deny == 'all'\"}}"


def policy(*rules: str, name: str = "dos", more: str = "") -> str:
    return f"""
{V3}
kind: GlobalNetworkPolicy
metadata: {{name: {name}}}
spec:
  selector: role == 'edge'
  doNotTrack: true
  applyOnForward: true
  types: [Ingress]
  {more}
  ingress: [{", ".join(rules or (DENY,))}]
---"""


def resources(*parts: str) -> Resources:
    return load_text("\n".join(parts or (ENDPOINT, BOTS, policy())))


def nets(*texts: str) -> tuple[IPNetwork, ...]:
    return tuple(ip_network(text) for text in texts)


def deed(*, at_s: int = NOW, by: str = "alice@adm", reason: str = "flood", hours: float | None = 4) -> Deed:
    return Deed(at_s, by, reason, None if hours is None else int(at_s + hours * HOUR))


def act(*cidrs: str, beside: str = "bots", **of_deed: object) -> Act:
    # For mypy: of several types
    made = acts_of(nets(*cidrs), beside=beside, labels={"deny": "all"}, deed=deed(**of_deed))  # type: ignore[arg-type]
    (only,) = made
    return only


def stored(*acts: Act) -> tuple[GlobalNetworkSet, ...]:
    """The acts as they are read from a datastore."""
    return load_documents([object_of(each) for each in acts]).global_network_sets


def with_acts(base: Resources, *acts: Act) -> Resources:
    return Resources(**{**vars(base), "global_network_sets": (*base.global_network_sets, *stored(*acts))})


def read_again(made: Act) -> Act:
    (item,) = stored(made)
    return act_of(item)
