"""What of a policy is enforced where some of its policies cannot be, and there is no earlier one to stay."""

from __future__ import annotations

from collections.abc import Collection

from enforcer.enforcement.apply import Enforcer
from enforcer.policy.resources import Resources


def rest_of(
    enforcer: Enforcer, failed: Resources, *, without: frozenset[str] | None
) -> tuple[Resources, dict[str, str]] | None:
    """The resources without the policies that cannot be enforced, and these by name, with the reason. None where to
    enforce that would take something away, or nothing would be left.

    ``without``: the policies that what is enforced now is without already; None where nothing is that is known of.
    """
    rest, refused = enforcer.enforceable(failed)
    if not refused or not any(item.do_not_track for item in rest.policies):
        return None
    if without is None:
        return None if _are_in_kernel(enforcer, refused) else (rest, refused)
    return (rest, refused) if refused.keys() <= without else None


def _are_in_kernel(enforcer: Enforcer, policies: Collection[str]) -> bool:
    """Whether any of these is enforced, as it was when it could be."""
    names = {entry.partition(" ")[0] for item in enforcer.status() for entry in item.entries}
    return not names.isdisjoint(f"gnp/{name}" for name in policies)
