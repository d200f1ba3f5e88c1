"""Runs a command under the sandbox settings of a systemd unit (capabilities, system calls, mounts, sockets), without
systemd.

``python sandbox.py UNIT [WRITABLE]... -- COMMAND``. ``WRITABLE`` are the directories that systemd would create for it.
Implemented: CapabilityBoundingSet, NoNewPrivileges, SystemCallFilter, MemoryDenyWriteExecute, RestrictAddressFamilies,
RestrictNamespaces, ProtectSystem=strict with ReadWritePaths, ProtectProc=invisible, PrivateMounts, UMask.
"""

from __future__ import annotations

import ctypes
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "packaging" / "enforcer.service"

_libc = ctypes.CDLL(None, use_errno=True)

_CLONE_NEWNS = 0x20000
_MS_REC, _MS_BIND, _MS_SLAVE = 0x4000, 0x1000, 0x80000
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _RDONLY = 442, -100, 0x8000, 1
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_FILTER = 24, 38, 22, 2
_LAST_CAPABILITY = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}

# struct seccomp_data: nr, arch, instruction pointer, args (linux/seccomp.h); classic BPF (linux/bpf_common.h)
_NUMBER, _ARGUMENT = 0, 16
_LOAD, _EQUAL, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x45, 0x54, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 1  # EPERM
_WRITE_EXECUTE, _EXECUTE = 0x2 | 0x4, 0x4


def as_unit(*writable: Path, unit: Path = UNIT) -> list[str]:
    """The command prefix that runs a command under the unit's sandbox."""
    lock = Path("/run/enforcer")  # RuntimeDirectory=
    lock.mkdir(exist_ok=True)
    Path("/run/xtables.lock").touch(0o600)  # ExecStartPre=
    pins = [Path("/sys/fs/bpf")] if unit == UNIT else []  # those of tests are not below the service's directory
    writable = (lock, *pins, *writable)
    return [sys.executable, str(ROOT / "tests/kernel/sandbox.py"), str(unit), *map(str, writable), "--"]


def settings(unit: Path) -> dict[str, list[str]]:
    """Each setting of the unit, with its values in order."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if match := re.fullmatch(r"(\w+)=(.*)", line):
            found.setdefault(match[1], []).append(match[2])
    return found


def allowed_calls(filters: Sequence[str]) -> set[str]:
    """The system calls that SystemCallFilter= allows, after all its lines (systemd.exec(5))."""
    groups = _groups()
    allowed = set(_expanded("@default", groups))
    for line in filters:
        names = {call for item in line.removeprefix("~").split() for call in _expanded(item, groups)}
        allowed = allowed - names if line.startswith("~") else allowed | names
    return allowed


def _groups() -> dict[str, list[str]]:
    text = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True).stdout
    groups: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("@"):
            groups[name := line.split()[0]] = []
        elif line.startswith("    ") and not line.lstrip().startswith("#"):
            groups[name].append(line.strip())
    return groups


def _expanded(item: str, groups: dict[str, list[str]]) -> Iterator[str]:
    if not item.startswith("@"):
        yield item
    else:
        for member in groups[item]:
            yield from _expanded(member, groups)


def _numbers() -> dict[str, int]:
    """The system call numbers of this machine, from its C headers."""
    script = "#include <sys/syscall.h>\n"
    text = subprocess.run(["cc", "-E", "-dM", "-"], input=script, capture_output=True, text=True, check=True).stdout
    return {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)$", text, re.MULTILINE)}


def seccomp(calls: set[str], families: Sequence[str]) -> bytes:
    """The filter as classic BPF. It also denies writable and executable memory, and sockets of other families."""
    numbers = _numbers()

    def argument(at: int) -> tuple[int, int, int, int]:
        return (_LOAD, 0, 0, _ARGUMENT + 8 * at)

    code = [(_LOAD, 0, 0, _NUMBER)]
    code += [(_EQUAL, 0, 5, numbers["mmap"]), argument(2), (_AND, 0, 0, _WRITE_EXECUTE)]
    code += [(_EQUAL, 0, 1, _WRITE_EXECUTE), (_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    code += [(_EQUAL, 0, 4, numbers["mprotect"]), argument(2)]
    code += [(_ANY_BIT, 0, 1, _EXECUTE), (_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    wanted = [int(getattr(socket, name)) for name in families]
    code += [(_EQUAL, 0, 2 * len(wanted) + 2, numbers["socket"]), argument(0)]
    code += [step for family in wanted for step in ((_EQUAL, 0, 1, family), (_RETURN, 0, 0, _ALLOW))]
    code += [(_RETURN, 0, 0, _REFUSE)]
    for name in sorted(calls & numbers.keys()):
        code += [(_EQUAL, 0, 1, numbers[name]), (_RETURN, 0, 0, _ALLOW)]
    code += [(_RETURN, 0, 0, _REFUSE)]
    return b"".join(struct.pack("=HBBI", *step) for step in code)


def _check(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def _mounts(writable: Sequence[str]) -> None:
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    _check(_libc.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None), "make / a slave")
    _check(_libc.mount(b"proc", b"/proc", b"proc", 0, b"hidepid=invisible"), "mount /proc")
    for path in map(os.fsencode, writable):
        _check(_libc.mount(path, path, None, _MS_BIND | _MS_REC, None), f"bind {path!r}")
    _set_attributes(b"/", struct.pack("=QQQQ", _RDONLY, 0, 0, 0))
    for path in map(os.fsencode, writable):
        _set_attributes(path, struct.pack("=QQQQ", 0, _RDONLY, 0, 0))


def _set_attributes(path: bytes, attributes: bytes) -> None:
    _check(
        _libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, path, _AT_RECURSIVE, attributes, len(attributes)), f"mount {path!r}"
    )


def _that_exist(paths: Sequence[str]) -> Iterator[str]:
    """Without those with ``-`` before them that do not exist, as systemd takes them."""
    for path in paths:
        if not path.startswith("-") or Path(path[1:]).exists():
            yield path.removeprefix("-")


def main() -> None:
    unit, *rest = sys.argv[1:]
    writable, command = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
    said = settings(Path(unit))
    filters = seccomp(
        allowed_calls(said["SystemCallFilter"]) - {"unshare", "setns"}, said["RestrictAddressFamilies"][0].split()
    )
    _mounts([*_that_exist(said["ReadWritePaths"][0].split()), *writable])
    kept = {_CAPABILITIES[name] for name in said["CapabilityBoundingSet"][0].split()}
    for number in set(range(_LAST_CAPABILITY + 1)) - kept:
        _check(_libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0), "drop a capability")
    os.umask(int(said["UMask"][0], 8))
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "set no_new_privs")
    code = ctypes.create_string_buffer(filters, len(filters))
    program = struct.pack("=HxxxxxxQ", len(filters) // 8, ctypes.addressof(code))
    _check(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_FILTER, program, 0, 0), "set the filter")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
