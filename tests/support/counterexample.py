"""Counter-examples as files: cases that a witness once got wrong, checked again with all witnesses.

``NAME.yaml`` holds a document ``{about, host}``, and after it the resources; ``NAME.pcap`` the frames. A failing test
writes one; minimised, it stays in the folder as a regression test for the fix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any, TypeVar

import yaml
from hypothesis import note

from dossim.model.host import Host, Listener
from dossim.packet.capture import Capture, read_capture
from enforcer.policy.load import load_documents
from enforcer.policy.resources import Resources
from tests.support.dump import as_text, documents

FOLDER = Path(__file__).parents[1] / "counterexamples"

T = TypeVar("T")


@dataclass(frozen=True)
class CounterExample:
    """``about`` describes in one sentence what was wrong."""

    about: str
    policy: Resources
    host: Host
    frames: tuple[bytes, ...]

    def write(self, name: str, folder: Path = FOLDER) -> Path:
        """Writes both files, replacing earlier ones of the name."""
        folder.mkdir(exist_ok=True)
        head = {"about": self.about, "host": _host_document(self.host)}
        path = folder / f"{name}.yaml"
        path.write_text(as_text([head, *documents(self.policy)]))
        Capture.from_frames(self.frames).write(path.with_suffix(".pcap"))
        return path


def read(path: Path) -> CounterExample:
    head, *docs = yaml.safe_load_all(path.read_text())
    capture = read_capture(path.with_suffix(".pcap"))
    frames = tuple(capture.frame(number) for number in range(len(capture)))
    return CounterExample(head["about"], load_documents(docs, str(path)), _host(head["host"]), frames)


@contextmanager
def kept(name: str, policy: Resources, host: Host, frames: Sequence[bytes]) -> Iterator[None]:
    """If an assertion fails inside the block, writes the example to files and notes their path."""
    try:
        yield
    except AssertionError as failure:
        path = CounterExample(str(failure).partition("\n")[0], policy, host, tuple(frames)).write(name)
        note(f"kept as {path.relative_to(FOLDER.parent.parent)}, replayed by tests/kernel/test_counterexamples.py")
        raise


def smallest(example: CounterExample, fails: Callable[[CounterExample], bool]) -> CounterExample:
    """The example without everything that can be removed, one thing after another, while it still fails."""
    found = True
    while found:
        found = False
        for smaller in _smaller(example):
            if fails(smaller):
                example, found = smaller, True
                break
    return example


def _smaller(example: CounterExample) -> Iterator[CounterExample]:
    for frames in _shorter(example.frames):
        yield replace(example, frames=frames)
    policy = example.policy
    for kind in ("policies", "global_network_sets", "network_sets", "tiers", "profiles", "felix_configurations"):
        for items in _shorter(getattr(policy, kind)):
            yield replace(example, policy=replace(policy, **{kind: items}))
    for at, item in enumerate(policy.policies):
        for direction in ("ingress", "egress"):
            for rules in _shorter(getattr(item, direction)):
                items = (*policy.policies[:at], replace(item, **{direction: rules}), *policy.policies[at + 1 :])
                yield replace(example, policy=replace(policy, policies=items))


def _shorter(items: tuple[T, ...]) -> Iterator[tuple[T, ...]]:
    """Remove halves, quarters and so on, then single items: a few tries reduce a hundred frames to one."""
    width = len(items)
    while width > 1:
        width = (width + 1) // 2
        for at in range(0, len(items), width):
            yield items[:at] + items[at + width :]
    if len(items) == 1:
        yield ()


def _host_document(host: Host) -> dict[str, Any]:
    return {
        "node": host.node,
        "interface": host.interface,
        "addresses": [str(address) for address in host.addresses],
        "forward": host.forward,
        "routes": [str(net) for net in host.routes],
        "listen": [[listener.protocol, listener.port] for listener in host.listen],
        "rp_filter": host.rp_filter,
        "mtu": host.mtu,
    }


def _host(said: dict[str, Any]) -> Host:
    return Host(
        **{
            **said,
            "addresses": tuple(map(ip_interface, said["addresses"])),
            "routes": tuple(map(ip_network, said["routes"])),
            "listen": tuple(Listener(*pair) for pair in said["listen"]),
        }
    )
