"""What a command imports, in a separate process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_SCRIPT = """
import json, os, site, sys
from {module} import main
try:
    main(sys.argv[1:])
finally:
    places = tuple(site.getsitepackages())
    files = {{name: getattr(module, "__file__", None) or "" for name, module in list(sys.modules.items())}}
    found = {{
        "packages": sorted({{name.partition(".")[0] for name, file in files.items() if file.startswith(places)}}),
        "modules": sorted(files),
        "threads": len(os.listdir("/proc/self/task")),
    }}
    os.write(2, b"\\nIMPORTED " + json.dumps(found).encode() + b"\\n")
"""


@dataclass(frozen=True)
class Imported:
    """``packages``: of third parties; ``modules``: all, with those of the standard library; ``threads``: of the process
    when the command has ended.
    """

    packages: frozenset[str]
    modules: frozenset[str]
    threads: int


def imported(
    module: str, words: Sequence[str], *, through: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> Imported:
    """By ``main(words)`` of a module, which must end with 0; ``through`` starts it."""
    script = _SCRIPT.format(module=module)
    command = [*through, sys.executable, "-c", script, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=env)
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("IMPORTED "))
    found = json.loads(line.removeprefix("IMPORTED "))
    packages = frozenset(name for name in found["packages"] if not name.startswith("_"))
    return Imported(packages, frozenset(found["modules"]), found["threads"])


def packages_imported(module: str, words: Sequence[str], *, through: Sequence[str] = ()) -> frozenset[str]:
    return imported(module, words, through=through).packages
