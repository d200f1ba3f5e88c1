"""Where a global variable of a BPF object lies: the little of ELF that setting a constant needs."""

from __future__ import annotations

import struct

from enforcer.model.errors import InternalError

_SHT_SYMTAB = 2


def symbol(image: bytes, name: str) -> tuple[int, int]:
    """``(offset in its section, size)`` of a symbol of a 64-bit little-endian ELF file; InternalError without one."""
    section_offset, section_size, count = _section_headers(image)
    for index in range(count):
        header = struct.unpack_from("<IIQQQQIIQQ", image, section_offset + index * section_size)
        if header[1] == _SHT_SYMTAB:
            strings = struct.unpack_from("<IIQQQQIIQQ", image, section_offset + header[6] * section_size)
            found = _find(image, header[4], header[5], strings[4], name.encode())
            if found:
                return found
    raise InternalError(f"the BPF object has no symbol {name}")


def _section_headers(image: bytes) -> tuple[int, int, int]:
    (offset,) = struct.unpack_from("<Q", image, 40)
    size, count = struct.unpack_from("<HH", image, 58)
    return offset, size, count


def _find(image: bytes, table: int, length: int, strings: int, name: bytes) -> tuple[int, int] | None:
    for at in range(table, table + length, 24):
        name_offset, _, _, _, value, size = struct.unpack_from("<IBBHQQ", image, at)
        start = strings + name_offset
        if image[start : image.index(b"\0", start)] == name:
            return value, size
    return None
