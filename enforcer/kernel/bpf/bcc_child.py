"""Compiles a BPF program with bcc, in an interpreter that has bcc. Run as a script; it imports nothing of this package.

Reads a JSON job from standard input: ``source``, the ``program`` (a function in it), ``flags`` for the compiler. Writes
the instructions as hex, the maps they use, and ``relocations``: (number of an instruction, name of a map). The maps
that bcc creates disappear with this process; the loader of the instructions inserts the descriptors of others.
"""

from __future__ import annotations

import ctypes
import json
import struct
import sys
from typing import Any

_INSTRUCTION = struct.Struct("=BBhi")  # struct bpf_insn: opcode, registers (destination, source), offset, immediate
_LOAD_64 = 0x18  # BPF_LD | BPF_IMM | BPF_DW
_PSEUDO_MAP_FD = 1


def main() -> None:
    from bcc import BPF
    from bcc.libbcc import lib

    job = json.load(sys.stdin)
    compiled = BPF(src_file=job["source"], cflags=job["flags"])
    code = compiled.dump_func(job["program"])
    maps = _maps(lib, compiled.module)
    json.dump({"code": code.hex(), "maps": list(maps.values()), "relocations": _relocations(code, maps)}, sys.stdout)


def _maps(lib: Any, module: Any) -> dict[int, dict[str, Any]]:
    """Each map that the source declares, by its descriptor in this process."""
    lib.bpf_table_name.restype = ctypes.c_char_p
    lib.bpf_table_name.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return {
        lib.bpf_table_fd_id(module, number): {
            "name": lib.bpf_table_name(module, number).decode(),
            "kind": lib.bpf_table_type_id(module, number),
            "key_size": lib.bpf_table_key_size_id(module, number),
            "value_size": lib.bpf_table_leaf_size_id(module, number),
            "max_entries": lib.bpf_table_max_entries_id(module, number),
            "flags": lib.bpf_table_flags_id(module, number),
        }
        for number in range(lib.bpf_num_tables(module))
    }


def _relocations(code: bytes, maps: dict[int, dict[str, Any]]) -> list[tuple[int, str]]:
    return [
        (number, maps[immediate]["name"])
        for number, (opcode, registers, _, immediate) in enumerate(_INSTRUCTION.iter_unpack(code))
        if opcode == _LOAD_64 and registers >> 4 == _PSEUDO_MAP_FD
    ]


if __name__ == "__main__":
    main()
