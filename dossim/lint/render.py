"""Findings as data: our own JSON, and SARIF 2.1.0 for code hosts and editors. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from dossim.lint.finding import RULES, Finding
from enforcer.model.errors import Position

SCHEMA = "dossim/lint/v1"
SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

Json = dict[str, Any]


def as_json(findings: Sequence[Finding]) -> Json:
    return {"schema": SCHEMA, "findings": [_finding(item) for item in findings]}


def _finding(item: Finding) -> Json:
    related = [{**_place(other.position), "message": other.message} for other in item.related]
    place = _place(item.position)
    return {"rule": str(item.rule), "level": str(item.level), **place, "message": item.message, "related": related}


def _place(position: Position) -> Json:
    return {"path": position.path, "line": position.line, "column": position.column}


def as_sarif(findings: Sequence[Finding], version: str) -> Json:
    """One run; relative paths stay relative, so that a code host finds them in the repository."""
    index = {rule.id: number for number, rule in enumerate(RULES)}
    rules = [
        {
            "id": str(rule.id),
            "shortDescription": {"text": rule.summary},
            "help": {"text": rule.remedy},
            "defaultConfiguration": {"level": str(rule.level)},
        }
        for rule in RULES
    ]
    results = [_result(item, index[item.rule]) for item in findings]
    tool = {"driver": {"name": "dossim lint", "version": version, "rules": rules}}
    return {
        "$schema": SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": tool, "columnKind": "unicodeCodePoints", "results": results}],
    }


def _result(item: Finding, rule_index: int) -> Json:
    result: Json = {
        "ruleId": str(item.rule),
        "ruleIndex": rule_index,
        "level": str(item.level),
        "message": {"text": item.message},
        "locations": [_location(item.position)],
    }
    if item.related:
        result["relatedLocations"] = [
            {"id": number, **_location(other.position), "message": {"text": other.message}}
            for number, other in enumerate(item.related, 1)
        ]
    return result


def _location(position: Position) -> Json:
    physical: Json = {"artifactLocation": {"uri": _uri(position.path)}}
    if position.line:  # 0 stands for the file as a whole, and SARIF counts from 1
        physical["region"] = {"startLine": position.line, "startColumn": max(position.column, 1)}
    return {"physicalLocation": physical}


def _uri(path: str) -> str:
    pure = PurePath(path)
    return pure.as_uri() if pure.is_absolute() else quote(pure.as_posix())
