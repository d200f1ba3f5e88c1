"""The part of a policy that can be enforced when some of it cannot and there is no earlier version to keep."""

from __future__ import annotations

from collections.abc import Collection

from enforcer.enforcement.apply import Enforcer
from enforcer.policy.resources import Resources


def enforceable_rest(
    enforcer: Enforcer, failed: Resources, *, without: frozenset[str] | None
) -> tuple[Resources, dict[str, str]] | None:
    """The resources without the policies that cannot be enforced, and those policies by name with the reason. None when
    enforcing the rest would remove enforced policy, or nothing is left.

    ``without``: the policies already missing from what is enforced; None when nothing is known to be enforced.
    """
    rest, refused = enforcer.enforceable(failed)
    if not refused or not any(item.do_not_track for item in rest.policies):
        return None
    if without is None:
        return None if _are_in_kernel(enforcer, refused) else (rest, refused)
    return (rest, refused) if refused.keys() <= without else None


def _are_in_kernel(enforcer: Enforcer, policies: Collection[str]) -> bool:
    """Whether any of these policies is enforced from an earlier run."""
    names = {entry.partition(" ")[0] for entry in enforcer.entries()}
    return not names.isdisjoint(f"gnp/{name}" for name in policies)
