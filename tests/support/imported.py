"""Which installed packages a command imports, in a separate process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

_SCRIPT = """
import json, os, site, sys
from {module} import main
try:
    main(sys.argv[1:])
finally:
    places = tuple(site.getsitepackages())
    files = {{name: getattr(module, "__file__", None) or "" for name, module in list(sys.modules.items())}}
    found = {{name.partition(".")[0] for name, file in files.items() if file.startswith(places)}}
    os.write(2, b"\\nIMPORTED " + json.dumps(sorted(found)).encode() + b"\\n")
"""


def packages_imported(module: str, words: Sequence[str], *, through: Sequence[str] = ()) -> set[str]:
    """The third-party packages of ``main(words)`` of a module, which must end with 0; ``through`` starts it."""
    script = _SCRIPT.format(module=module)
    done = subprocess.run(
        [*through, sys.executable, "-c", script, *words], capture_output=True, text=True, check=True, timeout=120
    )
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("IMPORTED "))
    found: set[str] = set(json.loads(line.removeprefix("IMPORTED ")))
    return {name for name in found if not name.startswith("_")}
