"""The garbage collector while a command starts, when the agent has started, and at the end of a process."""

from __future__ import annotations

import subprocess
import sys

_SCRIPT = """
import atexit, gc
from enforcer.system import startup

usual = gc.get_threshold()
atexit.register(lambda: print("frozen at the end:", gc.get_freeze_count() > 1000))
startup.prepare()
startup.prepare()
print("rare:", gc.get_threshold()[0] > 10 * usual[0], "enabled:", gc.isenabled(), "frozen:", gc.get_freeze_count())
startup.settle()
print("as usual:", gc.get_threshold() == usual, "frozen:", gc.get_freeze_count() > 1000)
gc.unfreeze()
"""


def test_what_is_collected_when() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == [
        "rare: True enabled: True frozen: 0",
        "as usual: True frozen: True",
        "frozen at the end: True",
    ]
