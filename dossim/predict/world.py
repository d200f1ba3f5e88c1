"""The host and the plan of its interface as the engine takes them (``engine/predict.h``). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from dossim.engine.follower import Way
from dossim.engine.predictor import DEVICE, NETDEV, NOT_EARLY, XDP, Predictor, World, reasons
from dossim.model.addresses import LEAST_MTU6, anycasts, broadcasts, joined, own
from dossim.model.host import Host
from dossim.packet.fields import UDP
from dossim.predict.compiled import halves, rows_of
from dossim.predict.prediction import STAGE_CODE
from enforcer.model.nets import IPNetwork, Nets
from enforcer.model.vocabulary import Backend, Direction, Mode, Stage
from enforcer.planning.plan import InterfacePlan


def predictor_of(plan: InterfacePlan, host: Host, ways: Sequence[Way] = ()) -> Predictor:
    """The engine for a host and the plan of its outside interface. ``ways``: those that it will follow packets by."""
    stage = plan.early if plan.early_entries else None
    early = NOT_EARLY
    if stage is not None:
        early = NETDEV if stage is Stage.NETDEV_INGRESS else DEVICE if plan.mode is Mode.OFFLOAD else XDP
    return Predictor(
        World(
            rules=rows_of(plan.table, Direction.INGRESS),
            held=len(plan.early_entries),
            early=early,
            early_stage=0 if stage is None else STAGE_CODE[stage],
            skips_authentication=plan.raw_backend is not Backend.NFTABLES,
            forward=host.forward,
            rp_filter=host.rp_filter,
            has4=any(address.version == 4 for address in host.addresses),
            mtu=host.mtu,
            own=Nets.of(own(host)),
            broadcasts=Nets.of(broadcasts(host)),
            anycasts=Nets.of(anycasts(host)),
            joined=Nets.of(joined(host)),
            routed=Nets.of(host.routes),
            inside=_routes(host.routes),
            outside=_routes(address.network for address in host.addresses),
            udp_ports=[item.port for item in host.listen if item.protocol == UDP],
        ),
        [rules for way in ways for rules in way.rules],
    )


def reasons_of(host: Host) -> tuple[str, ...]:
    """The engine's reasons, by code, as results print them for this host."""
    about = partial(str.format, interface=host.interface, inside=host.inside, mtu=host.mtu)
    return tuple(about(text, mtu6=max(host.mtu, LEAST_MTU6)) for text in reasons())


def _routes(networks: Iterable[IPNetwork]) -> list[tuple[tuple[int, int], tuple[int, int], int, int]]:
    return [(halves(net.network_address), halves(net.netmask), net.version, net.prefixlen) for net in networks]
