"""Where the enforcer pins, locks and keeps state: it refuses what other users can change, and follows no link of
theirs.

Another user creates the links, on a BPF file system that everybody can write to: the kernel's default.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enforcer.datastore.lastgood import LastGood
from enforcer.enforcement.apply import Enforcer
from enforcer.kernel.lock import namespace_lock
from enforcer.model.errors import HostError
from enforcer.model.vocabulary import Mode
from enforcer.policy.load import load_text
from enforcer.system import directories
from enforcer.system.directories import UntrustedDirectoryError
from tests.kernel.conftest import NetnsPair
from tests.kernel.enforcer_support import ALLOWED, DENIED, NODE, documents, run, traffic

pytestmark = pytest.mark.needs_root

NOBODY = 65534
_libc = ctypes.CDLL(None, use_errno=True)


def as_nobody(act: Callable[[], object]) -> None:
    """Actions of another user, in a separate process."""
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            act()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory of root that other users can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def bpffs(public: Path) -> Iterator[Path]:
    """A BPF file system, mounted without options."""
    path = public / "bpf"
    path.mkdir()
    assert _libc.mount(b"bpf", os.fsencode(path), b"bpf", 0, None) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o1777
    yield path
    assert _libc.umount2(os.fsencode(path), 2) == 0


@pytest.fixture
def precious(public: Path) -> Path:
    """Root's files, the targets of the links."""
    folder = public / "precious"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "file").write_text("kept")
    (folder / "prog").write_text("kept")
    return folder


def planted_below(root: Path, precious: Path, where: str) -> None:
    """A link below the pin root, at a path that a pass removes or renames."""
    link = root / where
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(precious)


PLACES = [
    "v2",
    "v2/interfaces",
    "v2/interfaces/eth0",
    "v2/interfaces/eth0/next",
    "v2/interfaces/gone0",
    "v2/tables/1/next",
]


def is_whole(precious: Path) -> bool:
    return (precious / "below" / "file").read_text() == (precious / "prog").read_text() == "kept"


def others_directory(root: Path, precious: Path, where: str) -> None:
    as_nobody(lambda: planted_below(root, precious, where))


def once_writable(root: Path, precious: Path, where: str) -> None:
    """The pin root now belongs to root and is closed, but everybody could write to it when the link was created."""
    root.mkdir()
    root.chmod(0o777)
    as_nobody(lambda: planted_below(root, precious, where))
    root.chmod(0o700)


def still_writable(root: Path, precious: Path, where: str) -> None:
    once_writable(root, precious, where)
    root.chmod(0o777)


@pytest.mark.parametrize("plant", [others_directory, once_writable, still_writable])
@pytest.mark.parametrize("where", PLACES)
def test_a_planted_link_deletes_nothing_and_raw_enforces(
    netns_pair: NetnsPair, bpffs: Path, precious: Path, where: str, plant: Callable[[Path, Path, str], None]
) -> None:
    root = bpffs / "enforcer"
    plant(root, precious, where)
    with netns_pair.host():
        enforcer = Enforcer(NODE, pin_root=root)
        applied = enforcer.apply(load_text(documents()))
        assert is_whole(precious)
        (plan,) = applied.plan.interfaces
        assert plan.mode is None
        assert str(root) in dict(plan.mode_reasons)[Mode.NATIVE]
        assert any(str(root) in warning for warning in applied.warnings)
        with pytest.raises(UntrustedDirectoryError, match=str(root)):
            enforcer.detach()
    with traffic(netns_pair) as wire:
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]
    assert is_whole(precious)


def test_a_pin_root_that_is_anothers_link_is_not_followed(netns_pair: NetnsPair, bpffs: Path, precious: Path) -> None:
    root = bpffs / "enforcer"
    as_nobody(lambda: root.symlink_to(precious))
    with netns_pair.host():
        Enforcer(NODE, pin_root=root).apply(load_text(documents()))
    assert is_whole(precious)
    assert root.is_symlink()


def test_pins_are_the_users_own_on_a_file_system_open_to_all(netns_pair: NetnsPair, bpffs: Path) -> None:
    """With umask 0, as in some containers."""
    root = bpffs / "enforcer"
    before = os.umask(0)
    try:
        with netns_pair.host():
            enforcer = Enforcer(NODE, pin_root=root)
            (plan,) = enforcer.apply(load_text(documents())).plan.interfaces
            assert plan.mode is not None
            modes = {stat.S_IMODE(path.lstat().st_mode) for path in (root, *root.rglob("*")) if path.is_dir()}
            assert modes == {0o700}
            enforcer.detach()
    finally:
        os.umask(before)
    assert not root.exists()


def test_the_command_says_which_directory_and_what_would_be_right(
    netns_pair: NetnsPair, bpffs: Path, tmp_path: Path
) -> None:
    root, file = bpffs / "enforcer", tmp_path / "dos.yaml"
    as_nobody(lambda: root.mkdir(mode=0o755))
    file.write_text(documents())
    words = ["--pin-root", str(root)]
    sentence = f"{root}: owned by nobody, mode 0755: others can change its content; it must be owned by root"
    done = run(netns_pair, ["apply", "-f", str(file), "--node", NODE, "--mode", "native", *words])
    assert done.returncode == 3
    assert sentence in done.stderr
    done = run(netns_pair, ["apply", "-f", str(file), "--node", NODE, *words])
    assert done.returncode == 0
    assert f"not native: rejected when attaching: {sentence}" in done.stdout
    done = run(netns_pair, ["status", *words])
    assert done.returncode == 3
    assert done.stderr.startswith(f"error: {sentence}")


# -- state and lock ---------------------------------------------------------------------------------------------------


def others_own(path: Path, elsewhere: Path) -> None:
    as_nobody(path.mkdir)


def others_link(path: Path, elsewhere: Path) -> None:
    as_nobody(lambda: path.symlink_to(elsewhere))


def open_to_all(path: Path, elsewhere: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def below_one_that_is_open(path: Path, elsewhere: Path) -> None:
    path.parent.chmod(0o777)  # without the sticky bit: others can replace what is in it
    path.mkdir()


def open_to_all_with_the_sticky_bit(path: Path, elsewhere: Path) -> None:
    path.mkdir()
    path.chmod(0o1777)


SHAPES = [others_own, others_link, open_to_all, below_one_that_is_open, open_to_all_with_the_sticky_bit]


@pytest.fixture
def shared(public: Path) -> Path:
    """A directory with the mode of /tmp."""
    path = public / "shared"
    path.mkdir()
    path.chmod(0o1777)
    return path


@pytest.mark.parametrize("shape", SHAPES)
def test_state_is_not_kept_where_others_can_write(
    shared: Path, precious: Path, shape: Callable[[Path, Path], None]
) -> None:
    shape(shared / "state", precious)
    file = shared.parent / "dos.yaml"
    file.write_text(documents())
    kept = LastGood(shared / "state", [file])
    with pytest.raises(HostError, match=str(shared)):
        kept.save([(str(file), documents())])
    assert sorted(path.name for path in precious.iterdir()) == ["below", "prog"]


@pytest.mark.parametrize("shape", SHAPES)
def test_state_that_others_can_write_is_not_read(
    shared: Path, precious: Path, shape: Callable[[Path, Path], None]
) -> None:
    file = shared.parent / "dos.yaml"
    file.write_text(documents())
    good = shared.parent / "good"
    LastGood(good, [file]).save([(str(file), file.read_text())])
    assert LastGood(good, [file]).read().host_endpoints
    shape(shared / "state", precious)
    (name,) = (path.name for path in good.iterdir())
    target = precious if (shared / "state").is_symlink() else shared / "state"
    (target / name).write_bytes((good / name).read_bytes())
    assert not LastGood(shared / "state", [file]).read().host_endpoints


@pytest.mark.parametrize("shape", SHAPES)
def test_no_lock_is_made_where_others_can_write(
    shared: Path, precious: Path, shape: Callable[[Path, Path], None]
) -> None:
    shape(shared / "lock", precious)
    with namespace_lock(shared / "lock"):
        assert not list(shared.glob("lock/*.lock"))
        with open("/proc/thread-self/ns/net") as namespace, pytest.raises(BlockingIOError):
            fcntl.flock(namespace, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert sorted(path.name for path in precious.iterdir()) == ["below", "prog"]


def test_a_directory_of_ones_own_below_a_sticky_one_will_do(shared: Path) -> None:
    with namespace_lock(shared / "lock"):
        assert stat.S_IMODE((shared / "lock").stat().st_mode) & 0o022 == 0
    directories.make(shared / "state")
    assert stat.S_IMODE((shared / "state").stat().st_mode) == 0o700


def test_a_parent_that_another_process_removes_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, make, removals = tmp_path / "enforcer", os.mkdir, 5

    def removed_first(name: str, mode: int, *, dir_fd: int) -> None:
        nonlocal removals
        if name == "pins" and removals:
            removals -= 1
            parent.rmdir()
        make(name, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", removed_first)
    directories.make(parent / "pins")
    assert (parent / "pins").is_dir()
    assert not removals


def test_a_link_of_roots_is_followed(shared: Path, precious: Path) -> None:
    """/var/run is such a link."""
    (shared / "link").symlink_to(precious)
    (shared / "relative").symlink_to("../precious/./below")
    assert directories.is_there(shared / "link" / "below")
    assert directories.is_there(shared / "relative")
    assert not directories.is_there(shared / "link" / "missing")


def test_links_in_a_circle_are_an_error(shared: Path) -> None:
    (shared / "a").symlink_to("b")
    (shared / "b").symlink_to("a")
    with pytest.raises(HostError, match="ELOOP"):
        directories.make(shared / "a")


def test_a_file_is_no_directory(shared: Path) -> None:
    (shared / "file").write_text("")
    with pytest.raises(HostError, match="not a directory"):
        directories.make(shared / "file")


def test_a_requested_state_directory_has_to_be_safe(netns_pair: NetnsPair, shared: Path) -> None:
    file = shared.parent / "dos.yaml"
    file.write_text(documents())
    open_to_all(shared / "state", shared)
    done = run(netns_pair, ["run", "-f", str(file), "--node", NODE, "--state-dir", str(shared / "state")])
    assert done.returncode == 3
    assert done.stderr == (
        f"error: {shared / 'state'}: owned by root, mode 0777: others can change its content; it must be owned by "
        f"root and writable by nobody else (0755 or 0700)\n"
    )


@pytest.mark.parametrize(
    ("name", "says"),
    [
        pytest.param("elsewhere/pins", "not on a BPF file system", id="another file system"),
        pytest.param("file", "not a directory", id="a file"),
        pytest.param("file/pins", "not a directory", id="below a file"),
    ],
)
def test_raw_enforces_where_pins_cannot_be(netns_pair: NetnsPair, tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "file").write_text("")
    with netns_pair.host():
        (plan,) = Enforcer(NODE, pin_root=tmp_path / name).apply(load_text(documents())).plan.interfaces
        assert plan.mode is None
        assert f"{tmp_path}" in plan.mode_reasons[1][1]
        assert says in plan.mode_reasons[1][1]
    with traffic(netns_pair) as wire:
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
