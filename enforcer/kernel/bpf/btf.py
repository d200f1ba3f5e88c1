"""Enums of the running kernel, from its BTF through libbpf: numbers that change between kernels are not hard-coded."""

from __future__ import annotations

import ctypes
from functools import cache

from enforcer.kernel.bpf.libbpf import libbpf
from enforcer.model.errors import UnsupportedKernelError

_BTF_KIND_ENUM = 6
_KIND_SHIFT, _KIND_MASK, _VLEN_MASK = 24, 0x1F, 0xFFFF


class _BtfType(ctypes.Structure):
    """``struct btf_type`` (include/uapi/linux/btf.h)."""

    _fields_ = (("name_off", ctypes.c_uint32), ("info", ctypes.c_uint32), ("size_or_type", ctypes.c_uint32))


class _BtfEnum(ctypes.Structure):
    _fields_ = (("name_off", ctypes.c_uint32), ("value", ctypes.c_int32))


@cache
def enum_values(name: str) -> dict[str, int]:
    """``{enumerator: number}`` of an enum. UnsupportedKernelError when the kernel has no BTF or no such enum."""
    lib = libbpf()
    btf = lib.btf__load_vmlinux_btf()
    if not btf:
        raise UnsupportedKernelError("this kernel has no BTF (/sys/kernel/btf/vmlinux); it needs CONFIG_DEBUG_INFO_BTF")
    try:
        found = lib.btf__find_by_name_kind(btf, name.encode(), _BTF_KIND_ENUM)
        if found < 0:
            raise UnsupportedKernelError(f"this kernel has no enum {name} (skb drop reasons came with Linux 5.17)")
        address = lib.btf__type_by_id(btf, found)
        kind = _BtfType.from_address(address)
        assert kind.info >> _KIND_SHIFT & _KIND_MASK == _BTF_KIND_ENUM
        members = (_BtfEnum * (kind.info & _VLEN_MASK)).from_address(address + ctypes.sizeof(_BtfType))
        return {lib.btf__name_by_offset(btf, item.name_off).decode(): item.value for item in members}
    finally:
        lib.btf__free(btf)
