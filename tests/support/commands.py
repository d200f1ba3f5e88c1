"""Starts ``enforcer`` without a new interpreter: as a child of ``tests.support.fork_server``, one for all tests.

For tests of what a command does. A test of its imports, or of what an interpreter inherits, starts one of its own.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import IO

from tests.support.fork_server import Request

ROOT = Path(__file__).parents[2]
HERE = Path("/proc/thread-self/ns/net")


class Process:
    """A command that runs: what these tests use of :class:`subprocess.Popen`."""

    def __init__(self, words: Sequence[str], answers: socket.socket, stderr: IO[str] | None) -> None:
        answers.settimeout(60)  # a dead server's end of the requests is still open in the test processes
        data, descriptors, _, _ = socket.recv_fds(answers, 4, 1)
        assert descriptors, "the fork server has ended"
        (self.pid,) = struct.unpack("=i", data)
        (self._pidfd,) = descriptors
        self._answers = answers
        self.args, self.stderr = words, stderr
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, or -N after signal N. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            self._answers.settimeout(timeout)
            try:
                data = self._answers.recv(4)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(list(self.args), timeout or 0) from None
            assert data, "the fork server has ended"
            self.returncode = os.waitstatus_to_exitcode(*struct.unpack("=i", data))
            self._answers.close()
            os.close(self._pidfd)
        return self.returncode

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Nothing happens if it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(
    words: Sequence[str],
    *,
    namespace: Path = HERE,
    stdout: int | IO[str] | None = None,
    stderr: int | IO[str] | None = None,
    env: Mapping[str, str] | None = None,
) -> Process:
    """``enforcer`` with these arguments, in a network namespace. ``stdout`` and ``stderr`` are as of
    :class:`subprocess.Popen`, but only the latter may be a pipe.
    """
    request = Request("enforcer.cli", tuple(words), dict(os.environ if env is None else env), os.getcwd())
    _start_server()
    with ExitStack() as stack:

        def opened(given: int | IO[str] | None, otherwise: int) -> int:
            if given == subprocess.DEVNULL:
                return stack.enter_context(open(os.devnull, "w")).fileno()
            if given is None:
                return otherwise
            return given if isinstance(given, int) else given.fileno()

        reader: IO[str] | None = None
        if stderr == subprocess.PIPE:
            ends = os.pipe()
            reader, stderr = os.fdopen(ends[0]), stack.enter_context(open(ends[1], "w"))
        net = stack.enter_context(open(namespace)).fileno()
        mine, answers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.enter_context(answers)
        descriptors = [0, opened(stdout, 1), opened(stderr, 2), net, answers.fileno()]
        socket.send_fds(_OURS, [json.dumps(vars(request)).encode()], descriptors)
    return Process(["enforcer", *words], mine, reader)


def run(
    words: Sequence[str], *, namespace: Path = HERE, timeout: float = 60.0, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Start it, wait for its end, and read what it wrote. Killed after the timeout, in seconds."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = start(words, namespace=namespace, stdout=out, stderr=err, env=env)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
            process.wait()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(process.args, code, out.read(), err.read())


# Made before the test processes are forked: all have them. The server ends when no process has this end any more.
_OURS, _SERVERS = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
_STARTED = os.memfd_create("started")  # empty until one of them has started the server


@cache
def _start_server() -> None:
    fcntl.lockf(_STARTED, fcntl.LOCK_EX)  # of this process, where flock(2) would be of all that share the file
    if not os.fstat(_STARTED).st_size:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fork_server", str(_SERVERS.fileno())],
            pass_fds=[_SERVERS.fileno()],
            cwd=ROOT,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # else numpy starts threads
        )
        atexit.register(_end, process)
        os.truncate(_STARTED, 1)
    fcntl.lockf(_STARTED, fcntl.LOCK_UN)


def _end(process: subprocess.Popen[bytes]) -> None:
    _OURS.close()
    process.wait()
