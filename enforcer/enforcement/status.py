"""The enforcer's state in the kernel, for each interface: mode, stage, set sizes, counters.

Read only from pins, chains and sets, so it does not matter which process created them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from enforcer.backends.base import EntryCount, Fill, Holding
from enforcer.backends.registry import Backends
from enforcer.kernel.rtnetlink import interfaces
from enforcer.model.vocabulary import MODE_OF_STAGE, STAGE_OF_MODE, Backend, Mode, Stage


@dataclass(frozen=True)
class InterfaceStatus:
    """``mode`` None: no XDP. ``counts`` has an entry once for each stage, earlier stages first.
    ``raw_backend`` None: nothing in raw. ``netdev``: nf_tables drops at netdev ingress.

    ``present``: an interface of that name exists; without one, the rules of raw and netdev ingress, which match by
    name, have no effect. ``attached_to``: the present name of the interface with the XDP program. ``tracked``: the
    stages after conntrack where policy is enforced.
    """

    interface: str
    mode: Mode | None
    counts: tuple[EntryCount, ...]
    fills: tuple[Fill, ...]
    raw_backend: Backend | None = None
    netdev: bool = False
    present: bool = True
    attached_to: str = ""
    tracked: tuple[Stage, ...] = ()

    @property
    def stage(self) -> Stage | None:
        """The earliest enforcing stage; None if there is no such interface."""
        if self.mode:
            return STAGE_OF_MODE[self.mode]
        if not self.present:
            return None
        if self.netdev or self.raw_backend or not self.tracked:
            return Stage.NETDEV_INGRESS if self.netdev else Stage.RAW
        return self.tracked[0]

    @property
    def entries(self) -> tuple[str, ...]:
        """The enforced entries, each once."""
        return tuple(dict.fromkeys(count.entry for count in self.counts))


def read_status(backends: Backends) -> tuple[InterfaceStatus, ...]:
    """The status of every interface with state of the enforcer, by name."""
    held, counts = backends.status(), backends.counters()
    present = {item.name for item in interfaces()}
    names = sorted({name for _, found in held for name in found})
    return tuple(_status(name, held, counts, present=name in present) for name in names)


def _status(
    name: str,
    held: Sequence[tuple[Backend, Mapping[str, Holding]]],
    counts: Sequence[EntryCount],
    *,
    present: bool,
) -> InterfaceStatus:
    found = {backend: holdings[name] for backend, holdings in held if name in holdings}
    stages = [stage for item in found.values() for stage in item.stages]
    tracked = tuple(dict.fromkeys(stage for item in found.values() for stage in item.tracked))
    return InterfaceStatus(
        name,
        mode=next((MODE_OF_STAGE[stage] for stage in stages if stage in MODE_OF_STAGE), None),
        counts=tuple(count for count in counts if count.interface == name and count.stage in stages),
        fills=tuple(fill for item in found.values() for fill in item.fills),
        raw_backend=next((backend for backend, item in found.items() if item.stage is Stage.RAW), None),
        netdev=Stage.NETDEV_INGRESS in stages,
        present=present,
        attached_to=next((item.attached_to for item in found.values() if item.attached_to), ""),
        tracked=tracked,
    )
