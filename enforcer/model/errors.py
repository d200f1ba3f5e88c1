"""All errors of the project, grouped by who must act.

::

    EnforcerError
    ├─ UsageError              2  the command line
    ├─ PolicyError             2  the author of a resource; carries every finding of the document
    ├─ UnsupportedRuleError    2  a rule a backend cannot express
    ├─ HostError               3  this host lacks something
    │  ├─ PrivilegeError
    │  ├─ UnsupportedKernelError
    │  ├─ AgentRunsError          another agent has this network namespace
    │  ├─ StoreError              the datastore does not answer, or permit it (``datastore/writer.py``)
    │  └─ KernelError             the kernel refused; ``log`` keeps its whole answer
    ├─ GuardError, RefusedError, ConflictError  1  an emergency act that is not written
    └─ InternalError           4  our own bug

Messages have the form *where: what is wrong, what was found; what is expected*. ``exit_code`` is the command's exit
code. ``dossim.model.errors`` adds what can be wrong with captures and scenarios.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass

from enforcer.model.printable import printable, printable_lines


@dataclass(frozen=True, order=True)
class Position:
    """A place in a file. ``line`` and ``column`` count from 1; 0 means the file as a whole."""

    path: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if not self.line:
            return self.path
        return f"{self.path}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Finding:
    """One thing wrong with a document: where, which field (``spec.ingress[0].action``), and the sentence."""

    position: Position
    field: str
    message: str
    context: str = ""  # the source line with a caret below, where that helps

    def __str__(self) -> str:
        field = f"{self.field}: " if self.field else ""
        text = printable(f"{self.position}: {field}{self.message}")
        return f"{text}\n{printable_lines(self.context)}" if self.context else text


@dataclass(frozen=True)
class Note(Finding):
    """Accepted input that deserves mention. ``kind`` classifies it for programs."""

    kind: str = ""


class EnforcerError(Exception):
    """Root of the tree."""

    exit_code = 4


class UsageError(EnforcerError):
    """The command line is invalid."""

    exit_code = 2


class PolicyError(EnforcerError):
    """Documents that Calico would not accept. ``findings`` has all problems, in file order."""

    exit_code = 2

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("\n".join(str(finding) for finding in self.findings))


class UnsupportedRuleError(EnforcerError):
    """Valid rules that no backend of this host can express; never approximated."""

    exit_code = 2


class HostError(EnforcerError):
    """This host lacks something: a privilege, a kernel feature, a package."""

    exit_code = 3


class PrivilegeError(HostError):
    pass


class UnsupportedKernelError(HostError):
    pass


class AgentRunsError(HostError):
    pass


class KernelError(HostError):
    """The kernel rejected an operation. ``errno`` is the error number, ``log`` its whole output (verifier log)."""

    def __init__(self, message: str, *, number: int = 0, log: str = "") -> None:
        self.errno = number
        self.log = log
        if number:
            message = f"{message}: {errno.errorcode.get(number, number)} ({os.strerror(number)})"
        super().__init__(message)


# The process or the host has run out of a resource: this says nothing about what the kernel or an interface supports.
RAN_OUT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN, errno.EINTR)


def ran_out(error: BaseException) -> bool:
    """Whether the kernel rejected the operation for a reason that may be temporary."""
    return isinstance(error, KernelError) and error.errno in RAN_OUT


class InternalError(EnforcerError):
    """An inconsistency inside the project: a bug that should be reported."""

    exit_code = 4
