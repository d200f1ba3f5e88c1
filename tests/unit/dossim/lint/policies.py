"""Small policies for lint, as text: positions are part of what is tested."""

from __future__ import annotations

from collections.abc import Sequence

from dossim.lint import Finding, RuleId, lint
from enforcer.model.facts import HostFacts
from enforcer.policy.load import load_text

HEAD = "---\napiVersion: projectcalico.org/v3\nkind: "

ENDPOINT = f"""{HEAD}HostEndpoint
metadata: {{name: edge, labels: {{role: edge}}}}
spec: {{interfaceName: eth0, node: jasper, expectedIPs: ["10.10.10.10", "fd00::10"]}}
"""
NO_FAILSAFES = f"""{HEAD}FelixConfiguration
metadata: {{name: default}}
spec: {{failsafeInboundHostPorts: [], failsafeOutboundHostPorts: []}}
"""


def net_set(name: str, label: str, *nets: str) -> str:
    listed = "".join(f"\n    - {net}" for net in nets) or " []"
    return f"{HEAD}GlobalNetworkSet\nmetadata: {{name: {name}, labels: {{list: {label}}}}}\nspec:\n  nets:{listed}\n"


def policy(
    *rules: str,
    name: str = "p",
    order: int = 10,
    tier: str = "default",
    selector: str = "role == 'edge'",
    untracked: bool = True,
    direction: str = "ingress",
) -> str:
    fields = ["doNotTrack: true", "applyOnForward: true"] if untracked else []
    fields += [f"order: {order}", f"tier: {tier}", f'selector: "{selector}"', f"{direction}:"]
    fields += [f"  - {{{rule}}}" for rule in rules]
    spec = "".join(f"  {line}\n" for line in fields)
    return f"{HEAD}GlobalNetworkPolicy\nmetadata: {{name: {name}}}\nspec:\n{spec}"


def findings(*texts: str, facts: HostFacts | None = None, node: str | None = None) -> list[Finding]:
    text = "".join(texts)
    return lint(load_text(text, "p.yaml"), facts=facts, node=node, read_text=lambda path: text)


def of_rule(found: Sequence[Finding], rule: RuleId) -> list[Finding]:
    return [item for item in found if item.rule is rule]


def messages(found: Sequence[Finding], rule: RuleId) -> list[str]:
    return [item.message for item in of_rule(found, rule)]
