"""Runs modules as commands, in children of one process that has imported them before: a start costs no imports.

``python -m tests.support.fork_server FD [MODULE]...``: the descriptor is a socket of ``tests.support.commands`` or
``fork_client.py``, whose requests it serves. It imports all of ``enforcer``, and the modules. When the socket closes,
it kills what still runs, and ends. It kills a child when the socket of its answers closes: who asked for it has ended.
A child has the arguments, environment, directory, standard streams and network namespace of its request, and nothing
else: no other descriptor, thread or signal handler is there before the module runs as ``__main__``. It ends as an
interpreter does. Its imports are not those of a fresh interpreter: what tests these starts one.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import enforcer

MOST = 1 << 20  # bytes of a request
NOT_BEFORE_FORK = ("enforcer.datastore.etcd",)  # grpcio has threads
_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Request:
    """With it come descriptors: standard input, output and error, the network namespace, and a socket for answers."""

    module: str
    words: Sequence[str]
    environment: dict[str, str]
    directory: str


def _import_all(*others: str) -> None:
    for found in pkgutil.walk_packages(enforcer.__path__, "enforcer."):
        if found.name.startswith(NOT_BEFORE_FORK) or found.name.endswith("__main__"):
            continue
        importlib.import_module(found.name)
    for name in others:
        importlib.import_module(name)
    assert "grpc" not in sys.modules
    assert len(os.listdir("/proc/self/task")) == 1, "fork(2) copies one thread"


def serve(control: socket.socket) -> Request | None:
    """Answers requests with a pidfd and the child's pid, and when it ends with its status of wait(2).

    Returns a request in the child that is to fulfil it, and None when the socket has closed.
    """
    children: dict[int, tuple[int, socket.socket]] = {}  # by pidfd
    askers: dict[int, int] = {}  # pidfds, by the descriptor of the answers
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if (pidfd := askers.get(ready)) is not None:
                poll.unregister(ready)  # it stays hung up
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                continue
            if ready in children:
                poll.unregister(ready)
                pid, answers = children.pop(ready)
                del askers[answers.fileno()]
                with suppress(KeyError):  # hung up
                    poll.unregister(answers)
                os.close(ready)
                with answers:
                    _answer(answers, os.waitpid(pid, 0)[1])
                continue
            data, descriptors, _, _ = socket.recv_fds(control, MOST, 5)
            if not data:
                for pidfd in children:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                return None
            pid = os.fork()
            if not pid:
                for each in (control, *(answers for _, answers in children.values())):
                    each.close()
                _take(*descriptors[:4])
                return Request(**json.loads(data))
            for descriptor in descriptors[:4]:
                os.close(descriptor)
            pidfd, answers = os.pidfd_open(pid), socket.socket(fileno=descriptors[4])
            _answer(answers, pid, pidfd)
            children[pidfd], askers[answers.fileno()] = (pid, answers), pidfd
            poll.register(pidfd, select.POLLIN)
            poll.register(answers, 0)  # to be told that it is hung up


def _answer(answers: socket.socket, number: int, *descriptors: int) -> None:
    with suppress(BrokenPipeError):  # nobody waits for it
        socket.send_fds(answers, [struct.pack("=i", number)], descriptors)


def _take(stdin: int, stdout: int, stderr: int, namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
    for number, descriptor in enumerate((stdin, stdout, stderr)):
        os.dup2(descriptor, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))


def run(request: Request) -> None:
    """The module as ``__main__``, with all that a fresh interpreter would have of the request."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request.environment)
    if "PYTHONFAULTHANDLER" in request.environment:
        faulthandler.enable()
    os.chdir(request.directory)
    for name, number, mode, buffering in (("stdin", 0, "r", -1), ("stdout", 1, "w", -1), ("stderr", 2, "w", 1)):
        before = getattr(sys, name)  # knows whether another file was a terminal, and where its end was
        # For ruff: kept open
        stream = open(number, mode, buffering, encoding=before.encoding, errors=before.errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.argv = [sys.argv[0], *request.words]
    runpy.run_module(request.module, run_name="__main__", alter_sys=True)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the tests end first, and with them the socket
    _import_all(*sys.argv[2:])
    gc.collect()
    gc.freeze()  # the garbage collector of a child would copy every page
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        run(request)


if __name__ == "__main__":
    main()
