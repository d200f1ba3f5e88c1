#!/usr/bin/env python3
"""Write the constants and structures that C and Python share as Python modules, from the headers of bpf/include.

The result is committed, so that planning and prediction need neither clang nor an object, in a checkout and in a wheel;
tests/unit/house/test_abi.py compares it with the headers. The compiler computes the numbers: each name becomes a
constant of a translation unit that clang evaluates.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
INCLUDE = ROOT / "bpf" / "include"
WRITTEN = {
    "enforcer/model/abi.py": ("abi.h", "offload.h"),
    "dossim/observe/abi.py": ("journey.h",),
}
"""Python file: the headers it is made from."""

# The integer types of the headers in numpy's notation: "=" is the machine's byte order.
_INTEGERS = {"__u8": "u1", "__u16": "=u2", "__u32": "=u4", "__u64": "=u8", "__be16": ">u2", "__be32": ">u4"}
_WIDTHS = {name: int(dtype[-1]) for name, dtype in _INTEGERS.items()}
_LINE = 120


@dataclass(frozen=True)
class Field:
    """``length`` is the C expression in the brackets, "" if there are none."""

    type: str
    name: str
    length: str


@dataclass(frozen=True)
class Header:
    """What a header declares, as written."""

    constants: tuple[str, ...]
    structs: dict[str, tuple[Field, ...]]

    @classmethod
    def read(cls, path: Path) -> Header:
        text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
        macros = re.findall(r"^#define (\w+)[ \t]+\S", text, re.MULTILINE)
        enums = re.findall(r"^enum\s*\w*\s*\{(.*?)\}", text, re.MULTILINE | re.DOTALL)
        members = [name for body in enums for name in re.findall(r"^\s*(\w+)\s*(?:=[^,]*)?,", body, re.MULTILINE)]
        structs = {
            name: tuple(_fields(name, body))
            for name, body in re.findall(r"^struct (\w+) \{(.*?)^\};", text, re.MULTILINE | re.DOTALL)
        }
        return cls((*macros, *members), structs)


def _fields(struct: str, body: str) -> Iterator[Field]:
    for line in filter(None, map(str.strip, body.splitlines())):
        found = re.fullmatch(r"((?:struct )?\w+) (\w+)(?:\[(.+)\])?;", line)
        if not found:
            raise SystemExit(f"struct {struct}: cannot read '{line}'")
        yield Field(found[1], found[2], found[3] or "")


def evaluated(header: Path, expressions: list[str]) -> dict[str, int]:
    """The values that the compiler computes for C expressions over the declarations of a header."""
    numbered = [f"const unsigned long long value_{at} = ({item});" for at, item in enumerate(expressions)]
    unit = "\n".join([f'#include "{header}"', *numbered])
    words = ["clang", "-x", "c", "-S", "-emit-llvm", "-o", "-", "-"]
    done = subprocess.run(words, input=unit, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{header}: clang refuses it:\n{done.stderr}")
    values = dict(re.findall(r"^@value_(\d+) = .*constant i64 (-?\d+)", done.stdout, re.MULTILINE))
    return {item: int(values[str(at)]) for at, item in enumerate(expressions)}


def module(names: tuple[str, ...]) -> str:
    """The Python module for these headers."""
    where = " and ".join(f"bpf/include/{name}" for name in names)
    parts = [
        f'"""{where} in Python, written by tools/abi.py: do not edit.\n\n'
        "A structure is what numpy.dtype takes; NAME_BYTES is its size, also of those that hold other structures.\n"
        '"""\n\nfrom __future__ import annotations\n\nfrom typing import Any\n'
    ]
    for name in names:
        path = INCLUDE / name
        header = Header.read(path)
        sizes = [f"sizeof(struct {struct})" for struct in header.structs]
        lengths = [field.length for fields in header.structs.values() for field in fields if field.length]
        values = evaluated(path, [*header.constants, *sizes, *dict.fromkeys(lengths)])
        parts += [f"\n# {name}\n", *(f"{constant} = {_number(values[constant])}\n" for constant in header.constants)]
        for struct, fields in header.structs.items():
            size = values[f"sizeof(struct {struct})"]
            if f"{struct.upper()}_BYTES" not in header.constants:
                parts.append(f"{struct.upper()}_BYTES = {size}\n")
            if all(field.type in _INTEGERS for field in fields):
                parts.append(_layout(struct, fields, values, size))
    return "".join(parts)


def _layout(struct: str, fields: tuple[Field, ...], values: dict[str, int], size: int) -> str:
    """The fields, which must fill the structure."""
    counts = [values[field.length] if field.length else 1 for field in fields]
    if sum(_WIDTHS[field.type] * count for field, count in zip(fields, counts, strict=True)) != size:
        raise SystemExit(f"struct {struct} has padding that it does not name")
    items = [
        f'("{field.name}", "{_INTEGERS[field.type]}"' + (f", ({count},))" if field.length else ")")
        for field, count in zip(fields, counts, strict=True)
    ]
    begin = f"{struct.upper()}: list[Any] = ["
    line = f"{begin}{', '.join(items)}]\n"
    return line if len(line) <= _LINE + 1 else f"{begin}\n" + "".join(f"    {item},\n" for item in items) + "]\n"


def _number(value: int) -> str:
    return str(value) if value < 1 << 20 else f"0x{value:X}"


def main() -> None:
    for path, headers in WRITTEN.items():
        (ROOT / path).write_text(module(headers))
        print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
