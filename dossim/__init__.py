"""Predicts where a host drops each packet of a capture, and proves it against the kernel.

Packages, in the order a packet passes through them::

    packet/     what the wire carries: one packet (parse), many (columns), captures
    pipeline/   what the kernel does with it: stages, graph, explain (the reference)
    predict/    the same for all packets at once, from the compiled RuleTable (engine/, in C)
    lab/        two namespaces and a veth pair
    replay/     frames onto the wire, numbered
    observe/    kernel events -> one observation per packet
    verify/     predicted == observed?
    scenario/   scenario files       report/   terminal, JSON, JUnit, HTML
"""

from enforcer import __version__ as __version__
