"""YAML output without anything that a terminal or CI system interprets, because its text may be untrusted."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import yaml

from enforcer.model.printable import printable, printable_lines

_YAML_COMMAND = re.compile(r"#(?=#[A-Za-z]*\[)")  # see printable


class _YamlDumper(yaml.SafeDumper):
    """PyYAML treats bidirectional control characters as printable; in double quotes they can be escaped."""


def _represent_text(dumper: _YamlDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if printable(text) == text else '"')


_YamlDumper.add_representer(str, _represent_text)


def as_yaml(data: Any) -> str:
    """A YAML document from JSON types."""
    # Our enums are str enums: JSON turns them into plain strings, and YAML must do the same.
    plain = json.loads(json.dumps(data))
    text = str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
    if printable_lines(text) == text:
        return text
    escaped = yaml.dump(plain, Dumper=_YamlDumper, sort_keys=False, allow_unicode=False, width=sys.maxsize)
    return _YAML_COMMAND.sub(r"\\x23", escaped)
