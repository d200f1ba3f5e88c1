"""The import rules of ARCHITECTURE.md, and which modules stay pure."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

import pytest

from dossim.model.errors import SIMULATOR

ROOT = Path(__file__).parents[3]

# For each package of the enforcer, those that it may import; itself always.
LAYERS = {
    "model": [],
    "system": ["model"],
    "lists": ["model"],
    "policy": ["model", "system", "lists"],
    "planning": ["model", "policy"],
    "kernel": ["model", "system"],
    "datastore": ["model", "system", "policy"],
    "emergency": ["model", "policy", "datastore"],
    "feeds": ["model", "system", "lists", "policy", "datastore"],
    "export": ["model", "policy", "emergency"],
    "backends": ["model", "system", "policy", "planning", "kernel"],
    "enforcement": ["model", "system", "policy", "planning", "kernel", "backends"],
    "agent": ["model", "system", "policy", "planning", "kernel", "datastore", "emergency", "backends", "enforcement"],
    "monitor": [
        *("model", "system", "policy", "planning", "kernel", "datastore", "emergency", "backends", "enforcement"),
        "agent",
    ],
    "cli": [
        *("model", "system", "policy", "planning", "kernel", "datastore", "emergency", "backends", "enforcement"),
        *("agent", "monitor", "lists", "feeds", "export"),
    ],
}

# For each package, the project's own packages that it must not import.
FORBIDDEN = {
    "enforcer": ["dossim"],
    # Backends do not import each other; what they share is in netfilter/.
    "enforcer/backends/nftables": ["enforcer.backends.iptables", "enforcer.backends.xdp"],
    "enforcer/backends/iptables": ["enforcer.backends.nftables", "enforcer.backends.xdp"],
    "enforcer/backends/xdp": [
        "enforcer.backends.iptables",
        "enforcer.backends.nftables",
        "enforcer.backends.netfilter",
    ],
    "enforcer/backends/netfilter": [f"enforcer.backends.{name}" for name in ("iptables", "nftables", "xdp")],
    "dossim/model": ["dossim.packet", "dossim.pipeline", "dossim.predict", "dossim.drill", "dossim.cli"],
    # The engine computes; what it is given and what the result means is decided elsewhere.
    "dossim/engine": [
        *("dossim.packet", "dossim.pipeline", "dossim.predict", "dossim.lab", "dossim.drill", "dossim.cli"),
        *("enforcer.policy", "enforcer.planning", "enforcer.backends", "enforcer.enforcement"),
    ],
    "dossim/packet": ["dossim.pipeline", "dossim.predict", "dossim.lab", "dossim.replay", "dossim.observe"],
    # The reference never sees the compiled table, so that a bug in the compiler cannot hide.
    "dossim/pipeline": ["dossim.predict", "dossim.lab", "dossim.observe", "enforcer.policy.compile"],
    # Predict shares explain's model of the kernel for odd packets, never its evaluation of the policy.
    "dossim/predict": [
        *(f"dossim.pipeline.{name}" for name in ("explain", "policy", "matching", "selection", "governing", "graph")),
        *(f"dossim.pipeline.{name}" for name in ("applicable", "tracked", "tracked_chain", "tracked_hooks", "hooks")),
        *("dossim.lab", "dossim.replay", "dossim.observe"),
    ],
    "dossim/cluster": ["dossim.lab", "dossim.replay", "dossim.observe", "dossim.report", "dossim.cli"],
    "dossim/suggest": ["dossim.report", "dossim.lab", "dossim.replay", "dossim.observe", "dossim.cli"],
    "dossim/exhaustion": ["dossim.pipeline", "dossim.lab", "dossim.replay", "dossim.observe", "dossim.drill"],
    # The observer knows nothing of policy, enforcer and prediction.
    "dossim/observe": [
        *("dossim.predict", "dossim.pipeline"),
        *("enforcer.policy", "enforcer.planning", "enforcer.backends", "enforcer.enforcement"),
    ],
    "dossim/lab": ["dossim.predict", "dossim.pipeline", "dossim.observe", "dossim.replay"],
    "dossim/verify": ["dossim.lab", "dossim.replay", "dossim.report", "dossim.cli"],
}

# The enforcement packages know only the seam of the backends.
SEAM = ["enforcer.backends.base", "enforcer.backends.registry"]

# Third-party packages that only the simulator may import.
NOT_ON_A_HOST = SIMULATOR | {"pytest", "hypothesis"}

# No clock, no I/O, no kernel: the same result on every machine.
PURE = [
    *(f"enforcer/emergency/{name}.py" for name in ("act", "allow", "beside", "deny", "effect", "expiry", "merge")),
    *(f"enforcer/emergency/{name}.py" for name in ("listing", "protection", "times")),
    *(f"enforcer/feeds/{name}.py" for name in ("canonical", "chunks", "crowdsec", "guards", "judge", "metrics")),
    *(f"enforcer/feeds/{name}.py" for name in ("objects", "private")),
    *("enforcer/export", "enforcer/lists/entry.py", "enforcer/lists/parse.py"),
    "enforcer/backends/netfilter",
    "enforcer/planning",
    "enforcer/policy/compile.py",
    "enforcer/policy/labels.py",
    "enforcer/policy/members.py",
    "enforcer/policy/selector.py",
    "dossim/drill/totals.py",
    *(f"dossim/cluster/{name}.py" for name in ("addresses", "alone", "chain", "decide", "ends", "gather", "split")),
    "dossim/exhaustion",
    "dossim/lint",
    "dossim/predict",
    "dossim/pipeline",
    "dossim/suggest",
]
IMPURE = {"os", "socket", "subprocess", "time", "ctypes", "pyroute2", "iptc", "threading", "fcntl", "mmap"}


def modules(where: str) -> Iterator[Path]:
    path = ROOT / where
    yield from [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))


@cache
def statements(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """The imports of a file, wherever they stand. A statement is in no expression, so none of these is searched."""
    found: list[ast.Import | ast.ImportFrom] = []
    left: list[ast.AST] = [ast.parse(path.read_text())]
    while left:
        node = left.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append(node)
        for name in ("body", "orelse", "handlers", "finalbody", "cases"):
            inside = getattr(node, name, [])
            left += inside if isinstance(inside, list) else []  # else that of a lambda or a conditional expression
    return found


def imports(path: Path) -> set[str]:
    """Every module name that a file imports, ``from a import b`` counting as both a and a.b."""
    found: set[str] = set()
    for node in statements(path):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_import_in_one_direction(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name in imports(path)
        for other in FORBIDDEN[package]
        if within(name, other)
    ]
    assert not wrong


def test_the_enforcer_needs_nothing_of_the_simulator() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules("enforcer")
        for name in imports(path)
        if name.partition(".")[0] in NOT_ON_A_HOST
    ]
    assert not wrong


@pytest.mark.parametrize("package", LAYERS)
def test_the_layers_of_the_enforcer(package: str) -> None:
    allowed = [f"enforcer.{name}" for name in (package, *LAYERS[package])]
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(f"enforcer/{package}")
        for name in imports(path)
        if within(name, "enforcer") and name != "enforcer" and not any(within(name, each) for each in allowed)
    ]
    assert not wrong


@pytest.mark.parametrize("package", ["enforcement", "agent", "monitor", "cli"])
def test_who_enforces_knows_nothing_of_the_inside_of_a_backend(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(f"enforcer/{package}")
        for name in imports(path)
        if within(name, "enforcer.backends") and not any(within(name, each) for each in SEAM)
    ]
    assert not wrong


def test_every_package_of_the_enforcer_has_its_layer() -> None:
    folders = {path.parent.name for path in (ROOT / "enforcer").glob("*/__init__.py")}
    assert folders == LAYERS.keys()
    assert [path.name for path in (ROOT / "enforcer").glob("*.py")] == ["__init__.py"]


def test_no_modules_import_each_other() -> None:
    """Including imports inside functions and for types only: a cycle is one module in two files."""
    names = {name_of(path): path for top in ("enforcer", "dossim") for path in modules(top)}
    left = {name: needed(path, names.keys()) - {name} for name, path in names.items()}
    while free := {name for name, others in left.items() if not others & left.keys()}:
        left = {name: others for name, others in left.items() if name not in free}
    assert not left


def needed(path: Path, known: Collection[str]) -> set[str]:
    """The modules a file imports; ``from package import module`` is the module alone."""
    found: set[str] = set()
    for node in statements(path):
        if isinstance(node, ast.ImportFrom) and node.module:
            each = [f"{node.module}.{alias.name}" for alias in node.names]
            found.update(name if name in known else node.module for name in each)
    return found & set(known)


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("package", ["enforcer", "dossim"])
def test_modules_have_what_they_show(package: str) -> None:
    """No names that are defined on access (module ``__getattr__``)."""
    assert not [str(path) for path in modules(package) if "def __getattr__(name" in path.read_text()]


@pytest.mark.parametrize("where", PURE)
def test_pure_modules_touch_neither_clock_nor_kernel(where: str) -> None:
    found = list(modules(where))
    assert found, f"{where} is gone: name its successor here"
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in found
        for name in imports(path)
        if name.partition(".")[0] in IMPURE
    ]
    assert not wrong


def test_files_stay_small_enough_to_read() -> None:
    sizes = {path: len(path.read_text().splitlines()) for top in ("enforcer", "dossim") for path in modules(top)}
    sizes |= {path: len(path.read_text().splitlines()) for path in ROOT.glob("engine/*.[ch]")}
    assert not [f"{path.relative_to(ROOT)}: {lines} lines" for path, lines in sizes.items() if lines > 500]
