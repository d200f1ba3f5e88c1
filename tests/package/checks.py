"""The Debian package in a fresh system: installed, used, upgraded under a flood, removed, purged. Each release has a
module with these tests, so that they run one after the other, beside those of the other release.
"""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from enforcer import __version__
from enforcer.enforcement.apply import Enforcer
from tests.kernel.conftest import NODE, NetnsPair
from tests.kernel.enforcer_support import ALLOWED, DEADLINE_S, DENIED, Traffic, deny_list
from tests.package.conftest import BUILT, MEASURED, Installed
from tests.package.machine import Machine, booted
from tests.package.service import namespace, service, write_policy
from tools.package.base import Tree
from tools.package.deb import build_deb, build_of
from tools.package.releases import RELEASES, Release

pytestmark = pytest.mark.needs_root

NEXT = "99.0"
PLAIN = {**os.environ, "LANG": "C.UTF-8", "MANWIDTH": "120"}
STAYS = "The policy STAYS IN THE KERNEL"


def test_lintian_finds_nothing_but_what_is_overridden(package: Path) -> None:
    words = ["lintian", "--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0", str(package)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_fresh_installation_starts_nothing_and_says_what_to_do(installed: Installed) -> None:
    assert "put the policy below /etc/enforcer" in installed.said
    assert "'systemctl enable --now enforcer'" in installed.said
    tree = installed.tree
    assert not list((tree.path / "etc/systemd/system").rglob("enforcer*")), "enabled without a policy"
    assert list((tree.path / "etc/enforcer").iterdir()) == []
    assert tree.must("enforcer", "--version") == f"enforcer, version {__version__}\n"
    assert tree.must("enforcer", "feed", "--help").startswith("Usage: enforcer feed ")
    examples = "/usr/share/doc/enforcer/examples/policy.yaml"
    plan = tree.must("enforcer", "apply", "-f", examples, "--node", NODE, "--dry-run")
    assert "gnp/dos-mitigation" in plan


def test_the_packages_inside_are_used_and_no_others(tree: Tree, release: Release) -> None:
    (tree.path / "usr/lib/python3/dist-packages/click.py").write_text("raise SystemExit('the one of the system')\n")
    (tree.path / "root/yaml.py").write_text("raise SystemExit('the one of the working directory')\n")
    script = "import click, grpc, numpy, prometheus_client, re2, sys, yaml; print(sys.version_info[:2], sys.prefix)"
    said = tree.must("sh", "-c", f"cd /root && /usr/lib/enforcer/bin/python3 -I -c '{script}'")
    assert said == f"({release.python.replace('.', ', ')}) /usr/lib/enforcer\n"
    said = tree.must("sh", "-c", "cd /root && PYTHONPATH=/root enforcer --version")
    assert said == f"enforcer, version {__version__}\n"


def test_nothing_that_the_package_needs_is_missing(installed: Installed) -> None:
    """Each shared object finds all that it is linked with, and each of dpkg's sums is right."""
    script = r"find /usr/lib/enforcer -name '*.so*' -exec ldd {} + 2>&1 | grep 'not found' || true"
    assert installed.tree.must("sh", "-c", script) == ""
    assert installed.tree.must("dpkg", "--verify", "enforcer") == ""


def test_from_apt_install_to_the_first_dropped_packet(
    installed: Installed,
    tree: Tree,
    network: NetnsPair,
    wire: Traffic,
    release: Release,
    record_property: Callable[[str, object], None],
) -> None:
    assert wire.arrivals(DENIED, ALLOWED) == [DENIED, ALLOWED]
    begin = time.monotonic()
    write_policy(tree)
    with service(tree, network):
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]
        took_s = installed.took_s + time.monotonic() - begin
        assert "XDP native" in tree.must("enforcer", "status", network=namespace(network))
    said = f"{release.name}: installed after {installed.took_s:.1f} s, the first packet dropped after {took_s:.1f} s"
    record_property(MEASURED, said)


def test_an_upgrade_under_a_flood_lets_nothing_through(
    tree: Tree, network: NetnsPair, wire: Traffic, release: Release, wheel: Path
) -> None:
    """Under systemd: the service in its sandbox, restarted by the upgrade, stopped by the removal."""
    newer = build_deb(build_of(release, NEXT), wheel, tree.path / "root", compress="none")
    tree.install("systemd")
    write_policy(tree, deny_list("203.0.113.0/24"))
    with booted(tree, network) as machine:
        machine.must("systemctl", "enable", "--now", "enforcer")
        machine.must("unshare", "--net", "enforcer", "detach")  # removes the directory of all pins if it is empty
        write_policy(tree)
        until_dropped(DENIED, machine, wire)
        assert "eth0: enforced at driver" in until_shown(machine), "its sandbox keeps it from pinning"
        before = machine.main_process()
        with wire.flood(DENIED, every_s=0.0002):
            said = machine.must("apt-get", "install", "-y", "-q", "--no-install-recommends", f"/root/{newer.name}")
            assert "put the policy below" not in said
            assert wire.arrivals(ALLOWED) == [ALLOWED]
            assert wire.sent > 1000
        assert wire.arrivals(ALLOWED) == [ALLOWED]
        assert machine.is_active()
        assert machine.main_process() not in (before, 0)
        assert machine.must("enforcer", "--version") == f"enforcer, version {NEXT}\n"
        journal = machine.must("journalctl", "--boot", "--unit=enforcer", "--no-pager").splitlines()
        assert not [line for line in journal if "level=error" in line]
        warnings = [line for line in journal if "level=warning" in line]
        assert all("has no HostEndpoint" in line for line in warnings), "but before there was one"
        a_feed_is_synced(tree, machine, wire)

        machine.must("apt-get", "remove", "-y", "-q", "enforcer")
        assert not machine.is_active()
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]
        machine.must("apt-get", "purge", "-y", "-q", "enforcer")
        assert wire.arrivals(DENIED, ALLOWED) == [DENIED, ALLOWED]
        assert machine.run("ls", "/sys/fs/bpf/enforcer/service").returncode, "left behind"
        assert "enforcer" not in machine.must("systemctl", "list-unit-files", "--no-pager")


def a_feed_is_synced(tree: Tree, machine: Machine, wire: Traffic) -> None:
    """By its own service, and the agent takes it up."""
    (tree.path / "etc/enforcer/listed").write_text("192.0.2.0/24\n")
    feeds = "feeds: [{name: drop, source: listed, labels: {deny: all}}]\n"
    (tree.path / "etc/enforcer/feeds.yaml").write_text(feeds)
    machine.must("systemctl", "start", "enforcer-feed.service")
    until_dropped("192.0.2.7", machine, wire)


def until_shown(machine: Machine) -> str:
    """``enforcer status``, once the pass has ended that has dropped already."""
    deadline = time.monotonic() + DEADLINE_S
    while "eth0: " not in (said := machine.must("enforcer", "status")):
        assert time.monotonic() < deadline, said
    return said


def until_dropped(source: str, machine: Machine, wire: Traffic) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while wire.arrivals(source, ALLOWED) != [ALLOWED]:
        assert time.monotonic() < deadline, machine.must("journalctl", "--boot", "--unit=enforcer*", "--no-pager")


def test_a_removal_keeps_the_policy_in_the_kernel_and_a_purge_takes_it_out(
    tree: Tree, network: NetnsPair, wire: Traffic
) -> None:
    write_policy(tree)
    with service(tree, network):
        pass
    within = namespace(network)
    said = tree.must("apt-get", "remove", "-y", "-q", "enforcer", network=within)
    assert STAYS in said
    assert "'apt purge enforcer' (dpkg --purge) removes it" in said
    assert not (tree.path / "usr/lib/enforcer").exists()
    assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]

    done = tree.run("dpkg", "--purge", "enforcer", network=within)
    said = done.stdout
    assert "enforcer: your policy in /etc/enforcer stays" in done.stderr
    assert "enforcer: removing the policy from the kernel" in said
    assert "eth0: detached" in said
    assert wire.arrivals(DENIED, ALLOWED) == [DENIED, ALLOWED]
    with network.host():
        assert Enforcer(NODE).status() == ()
    left = [path for name in ("enforcer", "usr/bin/enforcer") for path in tree.path.rglob(name)]
    assert left == [tree.path / "etc/enforcer"], "the policy is the user's"


def test_a_purge_without_policy_leaves_nothing(tree: Tree, network: NetnsPair) -> None:
    done = tree.run("dpkg", "--purge", "enforcer", network=namespace(network))
    assert done.returncode == 0
    assert "stays" not in done.stderr
    assert [path for name in ("enforcer", "usr/bin/enforcer") for path in tree.path.rglob(name)] == []


def test_a_purge_that_cannot_detach_says_what_stays_and_how_to_remove_it(
    tree: Tree, network: NetnsPair, wire: Traffic
) -> None:
    write_policy(tree)
    with service(tree, network):
        done = tree.run("dpkg", "--purge", "enforcer", network=namespace(network))
        assert done.returncode == 0
        assert "WARNING: the policy could not be removed from the kernel" in done.stderr
        assert re.search(r"agent .*(runs|running)", done.stderr), done.stderr
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]


def test_what_was_removed_can_be_installed_again(tree: Tree, network: NetnsPair, wire: Traffic) -> None:
    write_policy(tree)
    tree.must("dpkg", "--remove", "enforcer")
    assert (tree.path / "var/lib/enforcer/detach").is_dir()
    tree.install("/root/enforcer.deb")
    assert not (tree.path / "var/lib/enforcer/detach").exists()
    with service(tree, network):
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]


def test_the_package_of_another_release_is_refused(release: Release, tree: Tree) -> None:
    """Its Python is another one, and apt says so before anything is changed."""
    (other,) = (BUILT / build_of(each).file_name for each in RELEASES if each != release)
    (tree.path / "root/other.deb").write_bytes(other.read_bytes())
    done = tree.run("apt-get", "install", "-y", "-q", "/root/other.deb")
    assert done.returncode
    assert re.search(r"enforcer : Depends: python3 \((<<?|>=) 3\.\d+\)", done.stdout), done.stdout
    assert tree.must("enforcer", "--version") == f"enforcer, version {__version__}\n"


def test_bash_completes_commands_and_options(installed: Installed) -> None:
    script = """
        . /usr/share/bash-completion/completions/enforcer
        COMP_CWORD=2
        COMP_WORDS=(enforcer feed s); _enforcer_completion enforcer s feed; echo "${COMPREPLY[@]}"
        COMPREPLY=()
        COMP_WORDS=(enforcer run --raw); _enforcer_completion enforcer --raw run; echo "${COMPREPLY[@]}"
    """
    assert installed.tree.must("bash", "-c", script) == "sync\n--raw-backend\n"


@pytest.mark.parametrize(
    "words", [["mandoc", "-Tlint", "-W", "warning"], ["man", "--warnings", "--local-file"]], ids=lambda words: words[0]
)
def test_the_man_pages_are_without_fault(installed: Installed, words: list[str], tmp_path: Path) -> None:
    pages = []
    for packed in sorted((installed.tree.path / "usr/share/man/man8").glob("enforcer*")):
        pages.append(tmp_path / packed.stem)
        pages[-1].write_bytes(gzip.decompress(packed.read_bytes()))
    assert len(pages) >= 17
    done = subprocess.run([*words, *map(str, pages)], capture_output=True, text=True, check=False, env=PLAIN)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    if words[0] == "man":
        assert re.search(r"enforcer run -f /etc/enforcer --tracked enforce$", done.stdout, re.MULTILINE)
        assert "--emergency-dir DIRECTORY" in done.stdout


@pytest.mark.parametrize("script", ["postinst", "prerm", "postrm"])
def test_a_maintainer_script_is_without_fault(installed: Installed, script: str) -> None:
    path = installed.tree.path / f"var/lib/dpkg/info/enforcer.{script}"
    done = subprocess.run(["shellcheck", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
