"""The labels that selectors are evaluated on, and the effective selectors of policies and rules, as in Calico.

HostEndpoints and NetworkSets inherit labels from profiles (``felix/labelindex``): their own labels win, then those of
the first profile that has the label. A NetworkSet has one profile, that of its namespace, ``kns.<namespace>``, with the
namespace's labels under the prefix ``pcns.``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from enforcer.policy.resources import EntityRule, GlobalNetworkPolicy, HostEndpoint, NetworkSet, Profile
from enforcer.policy.selector import conjunction, parse

NAMESPACE_LABEL = "projectcalico.org/namespace"
SERVICE_ACCOUNT_LABEL = "projectcalico.org/serviceaccount"
NAMESPACE_PREFIX, SERVICE_ACCOUNT_PREFIX = "pcns.", "pcsa."
NAMESPACE_PROFILE = "kns."

Profiles = Mapping[str, Profile]


def endpoint_labels(endpoint: HostEndpoint, profiles: Profiles) -> Mapping[str, str]:
    """A HostEndpoint's labels, including those of its profiles."""
    return _inheriting(endpoint.labels, endpoint.profiles, profiles)


def network_set_labels(item: NetworkSet, profiles: Profiles) -> Mapping[str, str]:
    """A NetworkSet's labels, including its namespace's name (``networksetprocessor.go``) and its profile's labels."""
    own = {**item.labels, NAMESPACE_LABEL: item.namespace}
    return _inheriting(own, [f"{NAMESPACE_PROFILE}{item.namespace}"], profiles)


def _inheriting(own: Mapping[str, str], names: Iterable[str], profiles: Profiles) -> Mapping[str, str]:
    found = dict(own)
    for name in names:
        if name in profiles:
            found = {**profiles[name].labels_to_apply, **found}
    return found


def policy_selector(policy: GlobalNetworkPolicy) -> str:
    """One selector for the endpoints a policy applies to (``globalnetworkpolicyprocessor.go``).

    Labels of namespaces and service accounts are labels of an endpoint with a prefix. A HostEndpoint has them only from
    a profile, so such a selector matches it mostly through operators that accept missing labels.
    """
    text = policy.selector.strip()
    for own, prefix, everything in (
        (policy.namespace_selector, NAMESPACE_PREFIX, f"has({NAMESPACE_LABEL})"),
        (policy.service_account_selector, SERVICE_ACCOUNT_PREFIX, f"has({SERVICE_ACCOUNT_LABEL})"),
    ):
        if own.strip():
            scope = parse(own).with_prefix(prefix).canonical
            text = f"({text}) && {scope}" if text else scope
            text = text.replace("all()", everything)  # in the policy's own selector too, as Calico does
    return text


def rule_selectors(entity: EntityRule) -> tuple[str, str]:
    """The selector whose addresses match, and the one whose addresses do not match; "" if there is none.

    A notSelector together with another selector narrows that one (``felix/calc/rule_scanner.go``). Alone it is a
    negated match: every address matches except the selected ones, including addresses unknown to Calico.
    """
    scope = _namespaces(entity.namespace_selector)
    selector, negative = entity.selector.strip(), entity.not_selector.strip()
    positive = f"({scope}) && ({selector})" if scope and selector else scope or selector
    if positive and negative:
        return conjunction(positive, negative), ""
    return positive, negative


def _namespaces(text: str) -> str:
    """The selector on labels for a rule's namespaceSelector (``updateprocessors/rules.go``): all() means in any
    namespace, global() in none.
    """
    if not text.strip():
        return ""
    prefixed = parse(text).with_prefix(NAMESPACE_PREFIX).canonical
    return prefixed.replace("all()", f"has({NAMESPACE_LABEL})").replace("global()", f"!has({NAMESPACE_LABEL})")
