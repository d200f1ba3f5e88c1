"""``fork_client.py FD MODULE [WORD]...``: runs a module as a command in a child of the fork server that serves the
socket, and ends as it does. For shells; it imports little, and nothing of the project.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys


def main() -> None:
    number, module, *words = sys.argv[1:]
    request = {"module": module, "words": words, "environment": dict(os.environ), "directory": os.getcwd()}
    mine, answers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with socket.socket(fileno=int(number)) as control, open("/proc/self/ns/net") as net, answers:
        socket.send_fds(control, [json.dumps(request).encode()], [0, 1, 2, net.fileno(), answers.fileno()])
    mine.recv(4)  # the child's number
    (status,) = struct.unpack("=i", mine.recv(4))
    code = os.waitstatus_to_exitcode(status)
    sys.exit(128 - code if code < 0 else code)  # of a signal, as a shell says it


if __name__ == "__main__":
    main()
