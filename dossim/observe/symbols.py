"""Names for what the kernel reports as numbers: code addresses (kallsyms) and drop reasons (BTF).

Both differ between kernels and boots, so nothing is hard-coded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from enforcer.kernel.bpf.btf import enum_values
from enforcer.model.errors import UnsupportedKernelError

KALLSYMS = Path("/proc/kallsyms")


def resolve(addresses: Iterable[int]) -> dict[int, str]:
    """The function each address lies in. Raises UnsupportedKernelError when kallsyms hides addresses."""
    functions = _functions()
    return {address: functions.name_of(address) for address in addresses}


@dataclass(frozen=True)
class _Functions:
    """All functions of the kernel. ``starts``: their first addresses, in order; ``names``: where the name of each
    begins in ``text``, which is what kallsyms shows. There are more than a hundred thousand, of which few are asked
    for.
    """

    text: bytes
    starts: npt.NDArray[np.uint64]
    names: npt.NDArray[np.int64]

    def name_of(self, address: int) -> str:
        at = int(np.searchsorted(self.starts, np.uint64(address), side="right")) - 1
        if at < 0:
            return hex(address)
        name = self.text[self.names[at] : self.text.index(b"\n", self.names[at])]
        return name.split()[0].decode()  # after it may be the module's


@cache
def _functions() -> _Functions:
    """A line of kallsyms: an address of as many digits as in every line, a letter for the type, and a name."""
    text = KALLSYMS.read_bytes()
    characters = np.frombuffer(text, np.uint8)
    digits = text.find(b" ")
    if digits < 0:
        raise UnsupportedKernelError("/proc/kallsyms is empty, so kernel locations cannot be named")
    lines = np.concatenate([[0], np.flatnonzero(characters == ord("\n"))[:-1] + 1])
    lines = lines[np.isin(characters[lines + digits + 1], list(b"tTwW"))]
    starts = np.zeros(len(lines), np.uint64)
    for digit in range(digits):
        of_digit = characters[lines + digit]
        starts = starts << np.uint64(4) | (of_digit - np.where(of_digit >= ord("a"), ord("a") - 10, ord("0"))).astype(
            np.uint64
        )
    if not starts.any():
        raise UnsupportedKernelError(
            "/proc/kallsyms shows no addresses, so kernel locations cannot be named; set kernel.kptr_restrict to 0 or 1"
        )
    order = np.argsort(starts, kind="stable")
    return _Functions(text, starts[order], lines[order] + digits + 3)


@cache
def drop_reasons() -> dict[int, str]:
    """``{number: name}`` without the SKB_DROP_REASON_ prefix, of the running kernel."""
    return {
        number: name.removeprefix("SKB_DROP_REASON_").removeprefix("SKB_")
        for name, number in enum_values("skb_drop_reason").items()
    }
