"""Resources as text for the tests of this package: the smallest valid document of a kind, with a given spec."""

from __future__ import annotations

import textwrap

import pytest

from enforcer.model.errors import Finding, PolicyError
from enforcer.policy.load import load_text
from enforcer.policy.resources import GlobalNetworkPolicy, Resources, Rule

HOW_TO = """\
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata:
  name: production-host
  labels:
    apply-dos-mitigation: "true"
spec:
  interfaceName: eth0
  node: jasper
  expectedIPs: ["10.10.10.10"]
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata:
  name: dos-mitigation
  labels:
    dos-deny-list: 'true'
spec:
  nets:
    - "203.0.113.0/24"
    - "2001:db8::/32"
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata:
  name: dos-mitigation
spec:
  selector: apply-dos-mitigation == 'true'
  doNotTrack: true
  applyOnForward: true
  types:
    - Ingress
  ingress:
    - action: Deny
      source:
        selector: dos-deny-list == 'true'
"""


def document(kind: str, spec: str, metadata: str = "{name: x}", version: str = "projectcalico.org/v3") -> str:
    """One document; ``spec`` begins in line 5, column 3."""
    body = textwrap.indent(textwrap.dedent(spec).strip("\n"), "  ")
    return f"apiVersion: {version}\nkind: {kind}\nmetadata: {metadata}\nspec:\n{body}\n"


def policy_text(rule: str, direction: str = "ingress") -> str:
    """A policy of one rule in flow style; the rule begins in line 6, column 5."""
    return document("GlobalNetworkPolicy", f"{direction}:\n- {rule}")


def policy(rule: str, direction: str = "ingress") -> GlobalNetworkPolicy:
    return load_text(policy_text(rule, direction)).policies[0]


def rule(text: str, direction: str = "ingress") -> Rule:
    found = policy(text, direction)
    return (found.ingress or found.egress)[0]


def findings(text: str) -> tuple[Finding, ...]:
    with pytest.raises(PolicyError) as caught:
        load_text(text, "x.yaml")
    return caught.value.findings


def faults(text: str) -> list[tuple[str, str]]:
    """Field and message of every finding."""
    return [(finding.field, finding.message) for finding in findings(text)]


def accepted(text: str) -> Resources:
    return load_text(text, "x.yaml")
