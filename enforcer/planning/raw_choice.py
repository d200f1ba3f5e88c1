"""Selects the raw backend of a plan. Pure.

Both backends enforce the same policy. By default our rules go where the host's own rules are, as Felix's do. With equal
numbers legacy iptables is used, because an Allow is more effective there: the packet also bypasses the host's own
firewall, if that is in legacy tables too (docs/nftables.md).
"""

from __future__ import annotations

from enforcer.model.choices import RawChoice
from enforcer.model.errors import UnsupportedKernelError
from enforcer.model.facts import HostFacts, HostRules
from enforcer.model.vocabulary import Answer, Backend, Stage
from enforcer.policy.resources import FelixConfiguration


def asked_for(felix: FelixConfiguration, choice: RawChoice) -> tuple[Backend | None, str]:
    """The backend requested by name, and by what; None if there is no such request."""
    if choice is not RawChoice.AUTO:
        return Backend(choice.value), f"raw backend '{choice}' was requested"
    if felix.nftables_mode == "Enabled":
        return Backend.NFTABLES, "nftablesMode: Enabled"
    if felix.iptables_backend.lower() == "nft":
        return Backend.NFTABLES, "iptablesBackend: NFT"
    if felix.nftables_mode == "Disabled":
        return Backend.IPTABLES, "nftablesMode: Disabled"
    if felix.iptables_backend.lower() == "legacy":
        return Backend.IPTABLES, "iptablesBackend: Legacy"
    return None, ""


def raw_backend(facts: HostFacts, felix: FelixConfiguration, choice: RawChoice) -> tuple[Backend, str]:
    """The backend and why. A probe that cannot tell does not exclude a backend, nor does a missing probe of iptables.

    Raises UnsupportedKernelError when the host answers NO for the requested backend, or for both.
    """
    wanted, why = asked_for(felix, choice)
    if wanted is not None:
        if refused := _refusal(facts, wanted):
            raise UnsupportedKernelError(f"{wanted} is not possible on this host ({why}): {refused}")
        return wanted, why
    refused = _refusal(facts, Backend.IPTABLES)
    where, why = detected(facts.rules)
    if where is Backend.NFTABLES:
        if not (no_nft := _refusal(facts, Backend.NFTABLES)):
            return Backend.NFTABLES, why
        why = f"{why}, which cannot be used: {no_nft}"
    if not refused:
        return Backend.IPTABLES, why
    other = _refusal(facts, Backend.NFTABLES) if Backend.NFTABLES in facts.backends else "not probed"
    if other:
        raise UnsupportedKernelError(
            f"this host has no backend for the raw table: iptables: {refused}; nftables: {other}"
        )
    return Backend.NFTABLES, f"this host has no legacy tables: {refused}"


def detected(rules: HostRules) -> tuple[Backend, str]:
    """Where the host's own rules are, and the evidence (Felix's ``DetectBackend``)."""
    if rules.kubernetes is Backend.NFTABLES:
        return Backend.NFTABLES, "Kubernetes uses nf_tables on this host"
    if rules.kubernetes is Backend.IPTABLES:
        return Backend.IPTABLES, "Kubernetes uses the legacy tables on this host"
    if rules.nft > rules.legacy:
        beside = f"; legacy tables have {rules.legacy}" if rules.legacy else ""
        return Backend.NFTABLES, f"this host has its own rules in nf_tables ({rules.nft}{beside})"
    return Backend.IPTABLES, "this host has the legacy tables"


def require_netdev(facts: HostFacts) -> None:
    """Raises UnsupportedKernelError without nf_tables, which netdev ingress requires whatever the raw backend is."""
    if refused := _refusal(facts, Backend.NFTABLES) or _refusal(facts, Backend.NETDEV):
        raise UnsupportedKernelError(
            f"{Stage.NETDEV_INGRESS} was requested and is not possible on this host: {refused}; "
            "without --netdev-ingress raw drops everything"
        )


def _refusal(facts: HostFacts, backend: Backend) -> str:
    probe = facts.backends.get(backend)
    return (probe.reason or "no") if probe is not None and probe.answer is Answer.NO else ""
