"""BTF through libbpf: enums of the running kernel, because their numbers change between kernels; and the offsets of the
variables of an object.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

from enforcer.kernel.bpf.libbpf import libbpf
from enforcer.model.errors import InternalError, UnsupportedKernelError

_BTF_KIND_ENUM, _BTF_KIND_DATASEC = 6, 15
_VLEN_MASK = 0xFFFF


class _BtfType(ctypes.Structure):
    """``struct btf_type`` (include/uapi/linux/btf.h)."""

    _fields_ = (("name_off", ctypes.c_uint32), ("info", ctypes.c_uint32), ("size_or_type", ctypes.c_uint32))


class _BtfEnum(ctypes.Structure):
    _fields_ = (("name_off", ctypes.c_uint32), ("value", ctypes.c_int32))


class _BtfVarSecinfo(ctypes.Structure):
    _fields_ = (("type", ctypes.c_uint32), ("offset", ctypes.c_uint32), ("size", ctypes.c_uint32))


@cache
def enum_values(name: str) -> dict[str, int]:
    """``{enumerator: number}`` of an enum. Raises UnsupportedKernelError if the kernel has no BTF or no such enum."""
    lib = libbpf()
    btf = lib.btf__load_vmlinux_btf()
    if not btf:
        raise UnsupportedKernelError("this kernel has no BTF (/sys/kernel/btf/vmlinux); it needs CONFIG_DEBUG_INFO_BTF")
    try:
        found = _members(btf, name, _BTF_KIND_ENUM, _BtfEnum)
        if found is None:
            raise UnsupportedKernelError(f"this kernel has no enum {name} (skb drop reasons came with Linux 5.17)")
        return {lib.btf__name_by_offset(btf, item.name_off).decode(): item.value for item in found}
    finally:
        lib.btf__free(btf)


def variable(btf: int, section: str, name: str) -> tuple[int, int]:
    """``(offset in its section, size)`` in bytes of a global variable of an open object. Raises InternalError if it
    does not exist.
    """
    lib = libbpf()
    for item in _members(btf, section, _BTF_KIND_DATASEC, _BtfVarSecinfo) or ():
        described = _BtfType.from_address(lib.btf__type_by_id(btf, item.type))
        if lib.btf__name_by_offset(btf, described.name_off) == name.encode():
            return item.offset, item.size
    raise InternalError(f"the BPF object has no variable {name} in {section}")


def _members(btf: int, name: str, kind: int, member: type[Any]) -> Any:
    """The array of members after struct btf_type, for the type of this name and kind; None if there is none."""
    lib = libbpf()
    found = lib.btf__find_by_name_kind(btf, name.encode(), kind)
    if found < 0:
        return None
    address = lib.btf__type_by_id(btf, found)
    count = _BtfType.from_address(address).info & _VLEN_MASK
    return (member * count).from_address(address + ctypes.sizeof(_BtfType))
