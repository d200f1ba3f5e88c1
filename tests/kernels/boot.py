"""Other kernels: ``./run kernels [RELEASE]...`` boots Debian's in QEMU and runs the tests of the XDP programs there.

Each guest mounts this machine's root directory read-only, with an overlay in memory, so that the same Python, objects
and tests run on another kernel. Without KVM the guest is emulated, which takes minutes.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from packages import Release, unpacked

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
CACHE = PROJECT / ".kernels"
TESTS = (
    "tests/kernel/test_verifier.py",
    "tests/bpf/test_xdp_untracked.py",
    "tests/bpf/test_xdp_transport.py",
    "tests/kernel/test_bond.py",
    "tests/kernel/test_host_shapes.py",
    "tests/kernel/test_libiptc.py",
)
# Modules that the guest needs to mount its root, and that the tests need.
MODULES = ("fs/9p", "fs/netfs", "fs/fscache", "fs/overlayfs", "net", "lib", "crypto", "drivers/virtio",
           "drivers/net/veth.ko*", "drivers/net/dummy.ko*", "drivers/net/bonding",
           "drivers/net/macvlan.ko*", "drivers/net/ipvlan", "drivers/net/tun.ko*")  # fmt: skip
LIMIT_S = 1500
PASSED = "guest: passed"


RELEASES = {
    item.name: item
    for item in (
        Release("5.10", "debian-security", "bullseye-security", r"linux-image-5\.10\.0-\d+-amd64"),
        Release("6.1", "debian-security", "bookworm-security", r"linux-image-6\.1\.0-\d+-amd64"),
        Release("6.12", "debian", "trixie", r"linux-image-6\.12\.[\d.]+(\+deb13)?-amd64"),
    )
}


def initramfs(folder: Path) -> Path:
    """The initramfs: busybox, the kernel's modules, and init.sh."""
    root, target = folder / "initramfs", folder / "initramfs.cpio"
    shutil.rmtree(root, ignore_errors=True)
    for name in ("bin", "sbin", "proc", "sys", "dev", "host", "layer", "root"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    modules = next(path for path in (folder / "lib/modules", folder / "usr/lib/modules") if path.is_dir())
    (version,) = (item.name for item in modules.iterdir())
    for name in MODULES:
        for item in (modules / version / "kernel").glob(name):
            target_item = root / "lib/modules" / item.relative_to(modules)
            target_item.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if item.is_dir() else shutil.copy)(item, target_item)
    subprocess.run(["/bin/busybox", "depmod", "-b", root, version], check=True)
    for applet in ("sh", "mount", "mkdir", "chroot", "poweroff", "echo", "cat", "sleep"):
        (root / "bin" / applet).symlink_to("busybox")
    for applet in ("modprobe", "insmod"):
        (root / "sbin" / applet).symlink_to("../bin/busybox")
    shutil.copy(HERE / "init.sh", root / "init")
    (root / "init").chmod(0o755)
    with target.open("wb") as output:
        names = subprocess.run(["find", "."], cwd=root, check=True, capture_output=True).stdout
        subprocess.run(["/bin/busybox", "cpio", "-o", "-H", "newc"], cwd=root, input=names, stdout=output, check=True)
    shutil.rmtree(root)
    return target


def boot(folder: Path, python: str, tests: list[str], *, kvm: bool) -> bool:
    """Whether the tests passed in the guest."""
    (kernel,) = (folder / "boot").glob("vmlinuz-*")
    todo = folder / "todo"
    todo.write_text(
        f"cd {PROJECT} && {python} -m pytest -q -rs --color=no --tb=short -p no:cacheprovider {' '.join(tests)}\n"
    )
    words = ["qemu-system-x86_64", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"]
    words += [
        "-machine",
        "q35",
        "-accel",
        "kvm" if kvm else "tcg",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        "3G",
        "-kernel",
        str(kernel),
    ]
    words += ["-initrd", str(initramfs(folder)), "-append", f"console=ttyS0 panic=-1 todo={todo}"]
    words += ["-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"]
    passed = False
    print(f"  {kernel.name}", flush=True)
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, errors="replace"
    ) as guest:
        assert guest.stdout
        limit = threading.Timer(LIMIT_S, guest.kill)
        limit.start()
        try:
            for line in guest.stdout:
                print(f"  {line}", end="", flush=True)
                passed |= PASSED in line
        finally:
            limit.cancel()
            guest.kill()
    return passed


def main() -> None:
    parser = argparse.ArgumentParser(prog="run kernels", description=__doc__)
    parser.add_argument("releases", nargs="*", choices=[*RELEASES, []], metavar="RELEASE", help=", ".join(RELEASES))
    parser.add_argument("--tests", nargs="+", default=list(TESTS), help="what pytest is to run there")
    parser.add_argument("--kvm", action="store_true", help="do not emulate: for machines that have KVM")
    given = parser.parse_args()
    failed = []
    for name in given.releases or list(RELEASES):
        print(f"== Linux {name}", flush=True)
        if not boot(unpacked(RELEASES[name], CACHE), sys.executable, given.tests, kvm=given.kvm):
            failed.append(name)
    if failed:
        raise SystemExit(f"failed on Linux {', '.join(failed)}")


if __name__ == "__main__":
    main()
