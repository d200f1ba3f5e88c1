"""enforcer.system.memory"""

import subprocess
import sys

ARENAS = """
import ctypes, threading
from enforcer.system.memory import one_arena
assert one_arena()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
barrier = threading.Barrier(8)
def allocate():
    barrier.wait()  # all at once: each would get an arena of its own
    [libc.malloc(4096) for _ in range(100)]
    barrier.wait()
threads = [threading.Thread(target=allocate) for _ in range(8)]
[each.start() for each in threads]
[each.join() for each in threads]
libc.malloc_stats()
"""


def test_threads_share_one_arena() -> None:
    """In a process of its own: the setting cannot be taken back."""
    ran = subprocess.run([sys.executable, "-c", ARENAS], check=True, capture_output=True, text=True)
    assert ran.stderr.count("Arena ") == 1
