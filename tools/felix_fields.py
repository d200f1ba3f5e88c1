#!/usr/bin/env python3
"""Write enforcer/policy/felix_fields.json: every field of Calico's FelixConfiguration, with its allowed values.

The sources are two files of Calico's repository: the custom resource definition, and the Go type, whose ``validate``
tags contain what the definition lacks. Each is a path or a URL:

    tools/felix_fields.py --calico v3.32.0 api/config/crd/projectcalico.org_felixconfigurations.yaml \\
        api/pkg/apis/projectcalico/v3/felixconfig.go
"""

from __future__ import annotations

import argparse
import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import yaml

OUTPUT = Path(__file__).parent.parent / "enforcer" / "policy" / "felix_fields.json"

KEPT = ("type", "enum", "pattern", "minimum", "maximum", "maxLength", "maxItems", "required")
BOUNDS = {"gte": ("minimum", 0), "gt": ("minimum", 1), "lte": ("maximum", 0), "lt": ("maximum", -1)}
# Go validators of a whole list, as validators of its items; of a mapping, as validators of its keys.
OF_ITEMS = {"ifaceFilterSlice": "ifaceFilter", "cidrs": "cidr"}
OF_KEYS = {"bpfLogFilters": "interface"}
READ = ("interface", "ifaceFilter", "keyValueList", "prometheusHost", "regexp")  # written by name, in ``is``
NOTHING = ("omitempty", "dive", "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("definition", help="the CustomResourceDefinition: a path or a URL")
    parser.add_argument("types", help="felixconfig.go: a path or a URL")
    parser.add_argument("--calico", required=True, metavar="VERSION", help="the version of Calico they are of")
    parser.add_argument("-o", "--output", type=Path, default=OUTPUT)
    given = parser.parse_args()
    fields = fields_of(yaml.safe_load(read(given.definition)))
    tag(fields, read(given.types))
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(field)}" for name, field in sorted(fields.items()))
    text = f'{{\n"calico": {json.dumps(given.calico)},\n"fields": {{\n{lines}\n}}\n}}\n'
    given.output.write_text(text, encoding="utf-8")
    print(f"{given.output}: {len(fields)} fields of Calico {given.calico}")


def read(source: str) -> str:
    if "://" not in source:
        return Path(source).read_text(encoding="utf-8")
    with urllib.request.urlopen(source, timeout=60) as answer:
        return str(answer.read().decode("utf-8"))


def fields_of(definition: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Name and schema of each field of the spec, of the newest version served."""
    if (
        definition.get("kind") != "CustomResourceDefinition"
        or definition["spec"]["names"]["kind"] != "FelixConfiguration"
    ):
        raise SystemExit("not the CustomResourceDefinition of FelixConfiguration")
    schema = definition["spec"]["versions"][-1]["schema"]["openAPIV3Schema"]
    return {name: schema_of(field) for name, field in schema["properties"]["spec"]["properties"].items()}


def schema_of(field: dict[str, Any]) -> dict[str, Any]:
    """The schema of a value, without descriptions. ``type`` may also be ``int-or-string``."""
    kept = {key: field[key] for key in KEPT if key in field}
    if field.get("x-kubernetes-int-or-string"):
        kept["type"] = "int-or-string"
    if "properties" in field:
        kept["properties"] = {name: schema_of(inner) for name, inner in field["properties"].items()}
    for key in ("items", "additionalProperties"):
        if key in field:
            kept[key] = schema_of(field[key])
    return kept


def tag(fields: dict[str, dict[str, Any]], types: str) -> None:
    """Add what the ``validate`` tags of FelixConfigurationSpec require. A non-pointer empty string is omitted."""
    body = types[types.index("type FelixConfigurationSpec struct {") :].partition("\n}\n")[0]
    written = r'^\t\w+ +(\S+) +`json:"(\w+)[^`]*?(?:validate:"([^"]*)"[^`]*)?`'
    for kind, name, tags in re.findall(written, body, re.MULTILINE):
        field = fields[name]
        if kind == "*metav1.Duration" and "pattern" not in field:
            field["is"] = "duration"
        for item in tags.split(","):
            key, _, value = item.partition("=")
            if key == "oneof":
                field.setdefault("enum", value.split() + ([] if kind.startswith("*") else [""]))
            elif key in BOUNDS:
                bound, more = BOUNDS[key]
                field[bound] = int(value) + more
            elif key in OF_ITEMS:
                field["items"]["is"] = OF_ITEMS[key]
            elif key in OF_KEYS:
                field["keys"] = OF_KEYS[key]
            elif key in READ:
                field["is"] = key
            elif key not in NOTHING:
                raise SystemExit(f"{name}: the tag {item!r} is not known here")


if __name__ == "__main__":
    main()
