"""libbpf through ctypes: the functions that are used, their types, and the log they write. No logic."""

from __future__ import annotations

import ctypes
import os
from functools import cache

from enforcer.model.errors import HostError, KernelError

_VOID = ctypes.c_void_p
_TEXT = ctypes.c_char_p
_INT = ctypes.c_int
_U32 = ctypes.c_uint32
_SIZE = ctypes.c_size_t

_SIGNATURES: dict[str, tuple[list[type], type | None]] = {
    "bpf_object__open_file": ([_TEXT, _VOID], _VOID),
    "bpf_object__load": ([_VOID], _INT),
    "bpf_object__close": ([_VOID], None),
    "bpf_object__find_program_by_name": ([_VOID, _TEXT], _VOID),
    "bpf_object__find_map_by_name": ([_VOID, _TEXT], _VOID),
    "bpf_program__set_type": ([_VOID, _INT], _INT),
    "bpf_program__set_expected_attach_type": ([_VOID, _INT], _INT),
    "bpf_program__set_flags": ([_VOID, _U32], _INT),
    "bpf_program__set_ifindex": ([_VOID, _U32], None),
    "bpf_program__fd": ([_VOID], _INT),
    "bpf_program__attach": ([_VOID], _VOID),
    "bpf_link__fd": ([_VOID], _INT),
    "bpf_link__destroy": ([_VOID], _INT),
    "bpf_map__fd": ([_VOID], _INT),
    "bpf_map__set_max_entries": ([_VOID, _U32], _INT),
    "bpf_map__initial_value": ([_VOID, ctypes.POINTER(_SIZE)], _VOID),
    "bpf_map__reuse_fd": ([_VOID, _INT], _INT),
    "bpf_map__set_ifindex": ([_VOID, _U32], _INT),
    "bpf_object__next_map": ([_VOID, _VOID], _VOID),
    "bpf_map_create": ([_INT, _TEXT, _U32, _U32, _U32, _VOID], _INT),
    "bpf_prog_load": ([_INT, _TEXT, _TEXT, _VOID, _SIZE, _VOID], _INT),
    "bpf_obj_pin": ([_INT, _TEXT], _INT),
    "bpf_obj_get": ([_TEXT], _INT),
    "bpf_map_lookup_elem": ([_INT, _VOID, _VOID], _INT),
    "bpf_map_update_elem": ([_INT, _VOID, _VOID, ctypes.c_uint64], _INT),
    "bpf_map_delete_elem": ([_INT, _VOID], _INT),
    "bpf_map_get_next_key": ([_INT, _VOID, _VOID], _INT),
    "bpf_map_update_batch": ([_INT, _VOID, _VOID, ctypes.POINTER(_U32), _VOID], _INT),
    "bpf_map_delete_batch": ([_INT, _VOID, ctypes.POINTER(_U32), _VOID], _INT),
    "bpf_map_lookup_batch": ([_INT, _VOID, _VOID, _VOID, _VOID, ctypes.POINTER(_U32), _VOID], _INT),
    "bpf_obj_get_info_by_fd": ([_INT, _VOID, ctypes.POINTER(_U32)], _INT),
    "bpf_prog_get_fd_by_id": ([_U32], _INT),
    "bpf_link_create": ([_INT, _INT, _INT, _VOID], _INT),
    "bpf_link_update": ([_INT, _INT, _VOID], _INT),
    "bpf_link_detach": ([_INT], _INT),
    "bpf_prog_test_run_opts": ([_INT, _VOID], _INT),
    "libbpf_num_possible_cpus": ([], _INT),
    "btf__load_vmlinux_btf": ([], _VOID),
    "btf__free": ([_VOID], None),
    "btf__find_by_name_kind": ([_VOID, _TEXT, _U32], ctypes.c_int32),
    "btf__type_by_id": ([_VOID, _U32], _VOID),
    "btf__name_by_offset": ([_VOID, _U32], _TEXT),
    "bpf_object__btf": ([_VOID], _VOID),
}

KERNEL_BTF = "/sys/kernel/btf/vmlinux"


class OpenOptions(ctypes.Structure):
    """struct bpf_object_open_opts of libbpf 1.0; later versions only append to it."""

    _fields_ = (
        ("sz", _SIZE),
        ("object_name", _TEXT),
        ("relaxed_maps", ctypes.c_bool),
        ("pin_root_path", _TEXT),
        ("unused", _U32),
        ("kconfig", _TEXT),
        ("btf_custom_path", _TEXT),
    )

    @classmethod
    def of_this_kernel(cls) -> OpenOptions:
        """Options to search structures only in the kernel's own BTF. For one that is missing there (for example without
        VLANs), libbpf would search the BTF of all modules, which needs CAP_SYS_ADMIN; before 1.2 it fails without it.
        """
        path = os.fsencode(KERNEL_BTF) if os.path.exists(KERNEL_BTF) else None
        return cls(sz=ctypes.sizeof(cls), btf_custom_path=path)


class LinkCreateOptions(ctypes.Structure):
    """The beginning of struct bpf_link_create_opts."""

    _fields_ = (("sz", _SIZE), ("flags", _U32))


_PRINT = ctypes.CFUNCTYPE(_INT, _INT, _TEXT, _VOID)
_LEVEL_DEBUG = 2
_LOG_LINES = 4000

log_lines: list[str] = []
"""The last messages of libbpf (warnings and information); readers clear it."""


@cache
def libbpf() -> ctypes.CDLL:
    """The library with typed functions. Raises HostError with the name of the package if it is missing."""
    try:
        lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise HostError("libbpf.so.1 cannot be loaded; install the package libbpf1 (libbpf 1.0 or newer)") from error
    for name, (arguments, result) in _SIGNATURES.items():
        function = getattr(lib, name)
        function.argtypes = arguments
        function.restype = result
    lib.libbpf_set_print.argtypes = [_PRINT]
    lib.libbpf_set_print(_PRINTER)
    return lib


def check(result: int, what: str) -> None:
    """Raises KernelError if the result of a function is a negative error number."""
    if result < 0:
        raise KernelError(what, number=-result if result != -1 else ctypes.get_errno(), log="\n".join(log_lines))


_libc = ctypes.CDLL(None, use_errno=True)


def _keep(level: int, template: bytes, arguments: int) -> int:
    """Record libbpf's messages for an error that may follow, instead of printing them."""
    if level < _LEVEL_DEBUG:
        buffer = ctypes.create_string_buffer(1 << 20)
        _libc.vsnprintf(buffer, len(buffer), template, ctypes.c_void_p(arguments))
        log_lines.extend(buffer.value.decode(errors="replace").splitlines())
        del log_lines[:-_LOG_LINES]
    return 0


_PRINTER = _PRINT(_keep)  # libbpf keeps the pointer, so it must outlive every call
