"""Runs enforcer.service of a system without systemd: what its unit says, read from the unit that is installed."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kernel.conftest import NODE, NetnsPair
from tests.kernel.enforcer_support import DEADLINE_S, Agent, documents, waiting
from tests.kernel.sandbox import settings
from tools.package.base import Tree, environment_of

UNIT = "usr/lib/systemd/system/enforcer.service"


def namespace(pair: NetnsPair) -> Path:
    return Path("/run/netns") / pair.host_name


def write_policy(tree: Tree, *parts: str) -> None:
    """As the message of the package says; the host's name is another one here."""
    (tree.path / "etc/enforcer/policy.yaml").write_text(documents(*parts))
    (tree.path / "etc/default/enforcer").write_text(f'ENFORCER_OPTIONS="--node {NODE}"\n')


@contextmanager
def service(tree: Tree, pair: NetnsPair) -> Iterator[Agent]:
    """The service, once it has said that it is ready; stopped afterwards as systemd does, if it still runs."""
    unit = settings(tree.path / UNIT)
    assert unit["Type"] == ["notify"]
    for name, mode in (("run/enforcer", 0o755), ("var/lib/enforcer", 0o700)):
        (tree.path / name).mkdir(mode=mode, exist_ok=True)
    for before in unit["ExecStartPre"]:
        tree.must(*shlex.split(before.lstrip("-+")), network=namespace(pair))
    variables = environment_file(tree.path / unit["EnvironmentFile"][0].removeprefix("-/"))
    words = [each for word in shlex.split(unit["ExecStart"][0]) for each in expanded(word, variables)]
    kept = unit["CapabilityBoundingSet"][0].lower().replace("cap_", "+").split()
    within = ["setpriv", "--no-new-privs", f"--bounding-set=-all,{','.join(kept)}", "--inh-caps=-all", *words]
    environment = environment_of(
        **variables, NOTIFY_SOCKET="/run/notify", STATE_DIRECTORY="/var/lib/enforcer", PYTHONFAULTHANDLER="1"
    )
    with notifications(tree.path / "run") as ready:
        process = subprocess.Popen(
            tree.command(*within, network=namespace(pair)), stderr=subprocess.PIPE, text=True, env=environment
        )
        with waiting(process) as running:
            wait_until_ready(ready, running)
            yield running
            if process.poll() is None:
                running.end(signal.SIGTERM)
    for after in unit["ExecStopPost"]:
        tree.run(*shlex.split(after.lstrip("-+")), network=namespace(pair))


def environment_file(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {name: "".join(shlex.split(value)) for name, _, value in (line.partition("=") for line in lines)}


def expanded(word: str, variables: dict[str, str]) -> list[str]:
    """systemd.service(5): ``$NAME`` as a word of its own is split, and is nothing if it is not set."""
    return variables.get(word[1:], "").split() if word.startswith("$") else [word]


@contextmanager
def notifications(folder: Path) -> Iterator[socket.socket]:
    """The socket ``notify`` in a folder, whose path may be longer than an address can be."""
    (folder / "notify").unlink(missing_ok=True)
    opened = os.open(folder, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(f"/proc/self/fd/{opened}/notify")
            ready.settimeout(DEADLINE_S)
            yield ready
    finally:
        os.close(opened)


def wait_until_ready(ready: socket.socket, running: Agent) -> None:
    while True:
        try:
            said = ready.recv(4096).decode().splitlines()
        except TimeoutError:
            running.end(signal.SIGABRT)
            raise AssertionError(f"never ready:\n{''.join(running.lines)}") from None
        if "READY=1" in said:
            return
