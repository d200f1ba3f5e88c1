"""What of a valid policy does nothing, does other than it says, or is not done early: ``dossim lint``. Pure."""

from __future__ import annotations

from dossim.lint.finding import RULES, Finding, Level, Related, Rule, RuleId
from dossim.lint.render import as_json, as_sarif
from dossim.lint.run import lint

__all__ = ["RULES", "Finding", "Level", "Related", "Rule", "RuleId", "as_json", "as_sarif", "lint"]
