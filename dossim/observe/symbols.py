"""Names for what the kernel reports as numbers: code addresses (kallsyms) and drop reasons (BTF).

Both differ between kernels and boots, so nothing is hard-coded.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from enforcer.kernel.bpf.btf import enum_values
from enforcer.model.errors import UnsupportedKernelError

KALLSYMS = Path("/proc/kallsyms")


def resolve(addresses: Iterable[int]) -> dict[int, str]:
    """The function each address lies in. Raises UnsupportedKernelError when kallsyms hides addresses."""
    starts, names = _table()
    found = {}
    for address in addresses:
        at = bisect_right(starts, address) - 1
        found[address] = names[at] if at >= 0 else hex(address)
    return found


@cache
def _table() -> tuple[list[int], list[str]]:
    starts, names = [], []
    with KALLSYMS.open() as lines:
        for line in lines:
            address, kind, name = line.split(maxsplit=2)
            if kind in "tTwW":
                starts.append(int(address, 16))
                names.append(name.split()[0])
    if not any(starts):
        raise UnsupportedKernelError(
            "/proc/kallsyms shows no addresses, so kernel locations cannot be named; set kernel.kptr_restrict to 0 or 1"
        )
    order = sorted(range(len(starts)), key=starts.__getitem__)
    return [starts[i] for i in order], [names[i] for i in order]


@cache
def drop_reasons() -> dict[int, str]:
    """``{number: name}`` without the SKB_DROP_REASON_ prefix, of the running kernel."""
    return {
        number: name.removeprefix("SKB_DROP_REASON_").removeprefix("SKB_")
        for name, number in enum_values("skb_drop_reason").items()
    }
