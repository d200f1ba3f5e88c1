"""Runs the container of a DaemonSet as a container runtime does on a node, without one: its image's root file system
read-only, its volumes, environment and capabilities, no new privileges, the host's network.

Not done: seccomp's default profile, which allows bpf(2) to who has CAP_BPF; AppArmor; cgroups.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kernel.conftest import NetnsPair
from tests.kernel.enforcer_support import Agent, waiting
from tests.package.service import namespace
from tools.package.base import Tree, environment_of

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
# $0: the root. Then pairs of a source on the host and its place in the root, "--", the command.
MOUNTS = """
set -e
mount --bind "$0" "$0"
mount -t proc proc "$0/proc"
mount -o bind,ro "$0/proc/sys" "$0/proc/sys"
mount -t sysfs -o ro sysfs "$0/sys"
mount --rbind /dev "$0/dev"
while [ "$1" != -- ]; do
    mount --bind "$1" "$0$2"
    shift 2
done
shift
mount -o remount,bind,ro "$0"
exec chroot "$0" "$@"
"""


@dataclass(frozen=True)
class Node:
    """What a pod finds on a node: ``disk``, a directory in which host paths are, but for the BPF file system;
    ``variables`` and ``secrets`` of the cluster (a secret's name: a directory); ``account``, of the service account.
    """

    name: str
    disk: Path
    variables: Mapping[str, str]
    secrets: Mapping[str, Path]
    account: Path | None = None


@contextmanager
def pod(
    image: Tree, entry: Sequence[str], objects: Sequence[dict[str, Any]], node: Node, pair: NetnsPair
) -> Iterator[Agent]:
    """The only container of the only DaemonSet among the objects; killed afterwards if it still runs."""
    (daemonset,) = (item for item in objects if item["kind"] == "DaemonSet")
    spec = daemonset["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["hostNetwork"] is True
    variables = {**node.variables, **_environment(container, objects, node)}
    words = [*entry, *(re.sub(r"\$\((\w+)\)", lambda name: variables[name[1]], word) for word in container["args"])]
    command = [*_privileges(container["securityContext"]), *words]
    mounts = list(_mounts(spec, container, node, image))
    for source, target in mounts:
        place = image.path / target.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)  # a runtime makes what the image lacks
        place.mkdir(exist_ok=True) if Path(source).is_dir() else place.touch()
    pairs = [word for mount in mounts for word in mount]
    enter = ["nsenter", f"--net={namespace(pair)}", "unshare", "--mount", "sh", "-c", MOUNTS, str(image.path)]
    process = subprocess.Popen(
        [*enter, *pairs, "--", *command],
        stderr=subprocess.PIPE,
        text=True,
        env=environment_of(PYTHONFAULTHANDLER="1", **variables),
    )
    with waiting(process) as running:
        yield running


def _environment(container: dict[str, Any], objects: Sequence[dict[str, Any]], node: Node) -> dict[str, str]:
    found: dict[str, str] = {}
    maps = {item["metadata"]["name"]: item["data"] for item in objects if item["kind"] == "ConfigMap"}
    for source in container.get("envFrom", []):
        reference = source["configMapRef"]
        if reference["name"] in maps or not reference.get("optional"):
            found |= maps[reference["name"]]
    for item in container["env"]:
        if "value" not in item:
            assert item["valueFrom"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}
        found[item["name"]] = item.get("value", node.name)
    return found


def _privileges(context: dict[str, Any]) -> list[str]:
    assert context["privileged"] is False
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"]["drop"] == ["ALL"]
    kept = ",".join(f"+{name.lower()}" for name in context["capabilities"]["add"])
    return ["setpriv", "--no-new-privs", f"--bounding-set=-all,{kept}", "--inh-caps=-all"]


def _mounts(spec: dict[str, Any], container: dict[str, Any], node: Node, image: Tree) -> Iterator[tuple[str, str]]:
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for mount in container["volumeMounts"]:
        assert "mountPropagation" not in mount, "needs a privileged container"
        volume = volumes[mount["name"]]
        yield _source(volume, node), mount["mountPath"]
    if spec["automountServiceAccountToken"]:
        assert node.account is not None
        target = image.path / "run" / ACCOUNT.removeprefix("/var/run/")  # /var/run is a link to /run
        yield str(node.account), f"/{target.relative_to(image.path)}"


def _source(volume: dict[str, Any], node: Node) -> str:
    if "secret" in volume:
        return str(node.secrets[volume["secret"]["secretName"]])
    path, kind = volume["hostPath"]["path"], volume["hostPath"]["type"]
    if kind == "Directory":  # it must exist: the host's own
        return str(path)
    place = node.disk / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    if kind == "FileOrCreate":
        place.touch()
    else:
        assert kind == "DirectoryOrCreate"
        place.mkdir(mode=0o755, exist_ok=True)
    return str(place)
