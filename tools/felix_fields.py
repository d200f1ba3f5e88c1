#!/usr/bin/env python3
"""Write enforcer/policy/felix_fields.json: every field of Calico's FelixConfiguration, with its type.

The source is Calico's custom resource definition, ``api/config/crd/projectcalico.org_felixconfigurations.yaml`` of its
repository, as a path or a URL:

    tools/felix_fields.py --calico v3.32.0 projectcalico.org_felixconfigurations.yaml
"""

from __future__ import annotations

import argparse
import json
import urllib.request
from pathlib import Path
from typing import Any

import yaml

OUTPUT = Path(__file__).parent.parent / "enforcer" / "policy" / "felix_fields.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="the CustomResourceDefinition: a path or a URL")
    parser.add_argument("--calico", required=True, metavar="VERSION", help="the version of Calico it is of")
    parser.add_argument("-o", "--output", type=Path, default=OUTPUT)
    given = parser.parse_args()
    fields = fields_of(yaml.safe_load(read(given.source)))
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(kind)}" for name, kind in sorted(fields.items()))
    text = f'{{\n"calico": {json.dumps(given.calico)},\n"fields": {{\n{lines}\n}}\n}}\n'
    given.output.write_text(text, encoding="utf-8")
    print(f"{given.output}: {len(fields)} fields of Calico {given.calico}")


def read(source: str) -> str:
    if "://" not in source:
        return Path(source).read_text(encoding="utf-8")
    with urllib.request.urlopen(source, timeout=60) as answer:
        return str(answer.read().decode("utf-8"))


def fields_of(definition: dict[str, Any]) -> dict[str, str]:
    """Name and type of each field of the spec, of the newest version served."""
    if (
        definition.get("kind") != "CustomResourceDefinition"
        or definition["spec"]["names"]["kind"] != "FelixConfiguration"
    ):
        raise SystemExit("not the CustomResourceDefinition of FelixConfiguration")
    schema = definition["spec"]["versions"][-1]["schema"]["openAPIV3Schema"]
    return {name: type_of(field) for name, field in schema["properties"]["spec"]["properties"].items()}


def type_of(field: dict[str, Any]) -> str:
    """``boolean``, ``integer``, ``number``, ``string``, ``array``, ``object`` or ``int-or-string``."""
    return "int-or-string" if field.get("x-kubernetes-int-or-string") else str(field["type"])


if __name__ == "__main__":
    main()
