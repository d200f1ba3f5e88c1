"""``dossim lint``: parts of a valid policy without effect, with an unexpected effect, or enforced late. Pure."""

from __future__ import annotations

from dossim.lint.finding import RULES, Finding, Level, Related, Rule, RuleId
from dossim.lint.render import as_json, as_sarif
from dossim.lint.run import lint

__all__ = ["RULES", "Finding", "Level", "Related", "Rule", "RuleId", "as_json", "as_sarif", "lint"]
