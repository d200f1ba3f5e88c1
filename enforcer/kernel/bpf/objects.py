"""BPF objects, programs and links as Python values, through libbpf: handles of what the kernel holds.

Every object owns its file descriptors and closes them once; a pin or an attached link outlives the process. Failures
are KernelError; a program the verifier refuses keeps the whole log in ``.log`` and shows the line that matters.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from enforcer.kernel.bpf.libbpf import OpenOptions, check, libbpf, log_lines
from enforcer.kernel.bpf.maps import Map
from enforcer.kernel.bpf.pins import open_pinned, pin
from enforcer.model.errors import KernelError
from enforcer.model.vocabulary import Mode

BPF_LINK_CREATE = 28
BPF_XDP = 37
BPF_NETFILTER = 45
BPF_F_XDP_HAS_FRAGS = 1 << 5

XDP_FLAGS = {Mode.GENERIC: 1 << 1, Mode.NATIVE: 1 << 2, Mode.OFFLOAD: 1 << 3}  # linux/if_link.h

_SYS_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
_libc = ctypes.CDLL(None, use_errno=True)


class BpfObject:
    """A compiled object: opened, adjusted, loaded, then its programs and maps are used. A context manager."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise KernelError(f"{path}: no such BPF object; build it with 'make -C bpf' (needs clang)")
        self._path = path
        self._lib = libbpf()
        log_lines.clear()
        self._object: int | None = self._lib.bpf_object__open_file(
            os.fsencode(path), ctypes.byref(OpenOptions.of_this_kernel())
        )
        if not self._object:
            raise KernelError(f"open {path.name}", number=ctypes.get_errno(), log="\n".join(log_lines))

    def __enter__(self) -> BpfObject:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all descriptors; what is pinned or attached by a link stays."""
        if self._object:
            self._lib.bpf_object__close(self._object)
            self._object = None

    def set_const(self, name: str, value: int) -> None:
        """Set a ``const volatile`` before loading; its size comes from the object's symbol table."""
        offset, size = self._constant(name)
        length = ctypes.c_size_t()
        data = self._lib.bpf_map__initial_value(self._find_map(".rodata"), ctypes.byref(length))
        assert data
        assert offset + size <= length.value
        ctypes.memmove(data + offset, value.to_bytes(size, "little"), size)

    def resize_map(self, name: str, max_entries: int) -> None:
        """Give a map another size before loading."""
        check(self._lib.bpf_map__set_max_entries(self._find_map(name), max_entries), f"resize map {name}")

    def reuse_map(self, name: str, fd: int) -> None:
        """Use an existing map (a pinned one) instead of creating it."""
        check(self._lib.bpf_map__reuse_fd(self._find_map(name), fd), f"reuse map {name}")

    def set_program_type(self, name: str, program_type: int, attach_type: int) -> None:
        """For sections that this libbpf does not know (netfilter before 1.3)."""
        program = self._find_program(name)
        check(self._lib.bpf_program__set_type(program, program_type), f"set type of {name}")
        check(self._lib.bpf_program__set_expected_attach_type(program, attach_type), f"set attach type of {name}")

    def set_program_flags(self, name: str, flags: int) -> None:
        """Load with these flags. (Those that libbpf takes from a section's name it does not give up again.)"""
        check(self._lib.bpf_program__set_flags(self._find_program(name), flags), f"set flags of {name}")

    def bind_to_device(self, name: str, ifindex: int) -> None:
        """Load a program, and all maps of the object, for the hardware of one interface."""
        self._lib.bpf_program__set_ifindex(self._find_program(name), ifindex)
        at = self._lib.bpf_object__next_map(self._object, None)
        while at:
            check(self._lib.bpf_map__set_ifindex(at, ifindex), "bind a map to the device")
            at = self._lib.bpf_object__next_map(self._object, at)

    def load(self) -> None:
        """Create the maps and load the programs. KernelError with the verifier's reason when one is refused."""
        log_lines.clear()
        result = self._lib.bpf_object__load(self._object)
        if result:
            log = "\n".join(log_lines)
            raise KernelError(f"load {self._path.name}: {_what_matters(log)}", number=-result, log=log)

    def program(self, name: str) -> Program:
        pointer = self._find_program(name)
        return Program(name, pointer, int(self._lib.bpf_program__fd(pointer)))

    def map(self, name: str) -> Map:
        """A map of the loaded object, with a descriptor of its own."""
        return Map(os.dup(self._lib.bpf_map__fd(self._find_map(name))))

    def _find_program(self, name: str) -> int:
        found = self._lib.bpf_object__find_program_by_name(self._object, name.encode())
        assert found, f"{self._path.name} has no program {name}"
        return int(found)

    def _find_map(self, name: str) -> int:
        """The map of that name, or of the variable of that name (bpf/include/toolchain.h: VARIABLE_MAP)."""
        names = (name.encode(), f".bss.{name}".encode())
        found = next(filter(None, (self._lib.bpf_object__find_map_by_name(self._object, item) for item in names)), 0)
        assert found, f"{self._path.name} has no map {name}"
        return int(found)

    def _constant(self, name: str) -> tuple[int, int]:
        from enforcer.kernel.bpf.elf import symbol

        return symbol(self._path.read_bytes(), name)


@dataclass(frozen=True)
class Program:
    """A loaded program; its descriptor belongs to the object it came from."""

    name: str
    _pointer: int
    fd: int

    def attach_trace(self) -> Link:
        """Attach a tracing program to the place its section names."""
        lib = libbpf()
        pointer = lib.bpf_program__attach(self._pointer)
        if not pointer:
            raise KernelError(f"attach {self.name}", number=ctypes.get_errno(), log="\n".join(log_lines))
        fd = os.dup(lib.bpf_link__fd(pointer))
        lib.bpf_link__destroy(pointer)
        return Link(fd)


@dataclass(frozen=True)
class LinkInfo:
    """``ifindex`` is 0 when the link's interface is gone, and for links that are not XDP."""

    id: int
    type: int
    prog_id: int
    ifindex: int


class Link:
    """An attachment. It lives while a descriptor is open or it is pinned; a Link that is dropped closes its own."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> Link:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @classmethod
    def open_pinned(cls, path: Path) -> Link:
        return cls(open_pinned(path))

    def pin(self, path: Path) -> None:
        pin(self.fd, path)

    def close(self) -> None:
        """Close the descriptor; without a pin this detaches."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        self.close()

    def info(self) -> LinkInfo:
        """``struct bpf_link_info``: type, id and program id, then for XDP the interface."""
        raw = info_by_fd(self.fd, 64)
        kind, number, prog_id = struct.unpack_from("=III", raw)
        (ifindex,) = struct.unpack_from("=I", raw, 16)
        return LinkInfo(number, kind, prog_id, ifindex)

    def update(self, program_fd: int) -> None:
        """Swap the program behind the link atomically."""
        check(libbpf().bpf_link_update(self.fd, program_fd, None), "update link")

    def detach(self) -> None:
        """Detach now, pinned or not."""
        check(libbpf().bpf_link_detach(self.fd), "detach link")


def attach_xdp(program_fd: int, ifindex: int, mode: Mode) -> Link:
    """Attach through a BPF link (Linux 5.9), which no other tool replaces. KernelError says what the kernel said."""
    request = struct.pack("=IIII", program_fd, ifindex, BPF_XDP, XDP_FLAGS[mode])
    return Link(_link_create(request, f"attach XDP in {mode} mode"))


def attach_netfilter(program_fd: int, *, family: int, hook: int, priority: int, flags: int = 0) -> Link:
    """Attach a netfilter program in the current network namespace (Linux 6.4)."""
    request = struct.pack("=IIIIIIiI", program_fd, 0, BPF_NETFILTER, 0, family, hook, priority, flags)
    return Link(_link_create(request, f"netfilter link at hook {hook}, priority {priority}"))


class _TestRunOpts(ctypes.Structure):
    """``struct bpf_test_run_opts`` (libbpf's bpf.h)."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_void_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


def test_run(
    program_fd: int,
    frame: bytes,
    repeat: int = 1,  # noqa: PT028 - not a test
    *,
    ifindex: int = 0,  # noqa: PT028
) -> tuple[int, bytes, int]:
    """Run an XDP program on one frame: ``(return value, frame afterwards, ns per run)``.

    With the index of an interface, as if it had received the frame in its first queue.
    """
    data_in = ctypes.create_string_buffer(frame, len(frame))
    data_out = ctypes.create_string_buffer(len(frame) + 256)
    opts = _TestRunOpts(
        sz=ctypes.sizeof(_TestRunOpts),
        data_in=ctypes.addressof(data_in),
        data_out=ctypes.addressof(data_out),
        data_size_in=len(frame),
        data_size_out=len(data_out),
        repeat=repeat,
    )
    if ifindex:  # struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
        context = struct.pack("=6I", 0, len(frame), 0, ifindex, 0, 0)
        ctx_in = ctypes.create_string_buffer(context, len(context))
        opts.ctx_in, opts.ctx_size_in = ctypes.addressof(ctx_in), len(context)
    check(libbpf().bpf_prog_test_run_opts(program_fd, ctypes.byref(opts)), "test run")
    return opts.retval, data_out.raw[: opts.data_size_out], opts.duration


@dataclass(frozen=True)
class ProgramInfo:
    id: int
    name: str
    map_ids: tuple[int, ...] = ()


def program_info(fd: int) -> ProgramInfo:
    """Id and name of a program (``struct bpf_prog_info``)."""
    raw = info_by_fd(fd, 128)
    (number,) = struct.unpack_from("=I", raw, 4)
    return ProgramInfo(number, raw[64:80].rstrip(b"\0").decode())


def program_name(program_id: int) -> str | None:
    """The name of a loaded program, "" when it is gone; None without CAP_SYS_ADMIN, which naming it needs."""
    fd = libbpf().bpf_prog_get_fd_by_id(program_id)
    if fd < 0:
        return None if fd == -errno.EPERM else ""
    try:
        return program_info(fd).name
    finally:
        os.close(fd)


def program_words(program_id: int) -> str:
    """A program by its id and name, as far as it has one that may be read."""
    name = program_name(program_id)
    return f"id {program_id} ({'its name needs CAP_SYS_ADMIN' if name is None else name or 'no name'})"


def info_by_fd(fd: int, size: int) -> bytes:
    """The info structure of a program, map or link, as far as this kernel fills it in."""
    buffer = ctypes.create_string_buffer(size)
    length = ctypes.c_uint32(size)
    check(libbpf().bpf_obj_get_info_by_fd(fd, buffer, ctypes.byref(length)), "read info")
    return buffer.raw


def _link_create(request: bytes, what: str) -> int:
    attributes = ctypes.create_string_buffer(request.ljust(64, b"\0"), 64)
    number = _SYS_BPF.get(platform.machine())
    if number is None:
        raise KernelError(f"{what}: the number of bpf(2) on {platform.machine()} is not known here")
    fd = _libc.syscall(number, BPF_LINK_CREATE, attributes, len(attributes))
    if fd < 0:
        raise KernelError(what, number=ctypes.get_errno())
    return int(fd)


def _what_matters(log: str) -> str:
    """The verifier's reason, which is the last line of its own log; without such a log, libbpf's first complaint."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    if not lines:
        return "no reason given"
    said = _verifier_lines(lines) or [lines[0].removeprefix("libbpf: ")]
    more = f" ({len(lines) - 1} lines omitted; .log has all)" if len(lines) > 1 else ""
    return f"{said[-1]}{more}"


def _verifier_lines(lines: list[str]) -> list[str]:
    """What stands between libbpf's two marks, without the statistics."""
    begin = next((at for at, line in enumerate(lines) if line.endswith("BEGIN PROG LOAD LOG --")), len(lines))
    end = next((at for at, line in enumerate(lines) if line.startswith("-- END PROG LOAD LOG")), len(lines))
    return [line for line in lines[begin + 1 : end] if not line.startswith("processed ")]
