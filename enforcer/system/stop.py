"""A flag that ends waiting, also for threads that wait for descriptors."""

from __future__ import annotations

import os
import threading


class Stop(threading.Event):
    """An event whose ``fileno`` is readable once it is set: what waits for it need not look at intervals."""

    _fd = -1

    def __init__(self) -> None:
        """Raises OSError without a descriptor."""
        super().__init__()
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._fd

    def set(self) -> None:
        super().set()
        os.eventfd_write(self._fd, 1)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
