"""The packets that one Scapy packet with networks, ranges and lists in its fields describes.

In Scapy's order, but counted before any is built, and built in place, because Scapy copies every layer several times
for each packet.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Any

from scapy.base_classes import Gen, SetGen
from scapy.packet import NoPayload, Packet

Dimension = tuple[int, str, Any]  # the layer's number, its field, and the values of the field in order


def count(packet: Packet) -> int:
    """The number of packets described."""
    return prod(_length(values) for _, _, values in _dimensions(packet))


def expanded(packet: Packet) -> Iterator[Packet]:
    """Each of the packets. It is the same object with other values each time, so build it at once."""
    dimensions = _dimensions(packet)
    if not all(_length(values) for _, _, values in dimensions):
        return
    first = next(iter(packet))
    layers = list(layers_of(first))
    for chosen in product(*(values for _, _, values in dimensions)):
        for (number, name, _), value in zip(dimensions, chosen, strict=True):
            layers[number].fields[name] = value
        yield first


def _dimensions(packet: Packet) -> list[Dimension]:
    """The fields with several values, the one that changes slowest first."""
    return [
        (number, name, values)
        for number, layer in enumerate(layers_of(packet))
        if not layer.explicit and layer.raw_packet_cache is None
        for name, value in reversed(layer.fields.items())
        if (values := _values(layer, name, value)) is not None
    ]


def _values(layer: Packet, name: str, value: Any) -> Any:
    """The values of a field that has several, else None. A list is one value if the field itself is a list."""
    if isinstance(value, Gen):
        return value
    several = isinstance(value, (list, tuple)) and not layer.get_field(name).islist
    return SetGen(value) if several else None


def _length(values: Any) -> int:
    """The number of values. Raises TypeError for a generator whose length is unknown."""
    if isinstance(values, Packet):
        return count(values)
    if isinstance(values, SetGen):
        return sum(_length(item) if isinstance(item, (Gen, range)) else 1 for item in values.values)
    return int(values.stop - values.start + 1) if hasattr(values, "mask") else len(values)


def layers_of(packet: Packet) -> Iterator[Packet]:
    """The layers from the outside in, without those in fields."""
    layer = packet
    while not isinstance(layer, NoPayload):
        yield layer
        layer = layer.payload


def every_layer(packet: Packet) -> Iterator[Packet]:
    """The layers, and those of packets in fields."""
    for layer in layers_of(packet):
        yield layer
        for value in layer.fields.values():
            for item in value if isinstance(value, list) else (value,):
                if isinstance(item, Packet):
                    yield from every_layer(item)
