"""The XDP data path beside its peers, in one run: ``./run bench --only xdp`` or ``python -m bench.xdp [--quick]``.

``cidrs`` makes lists and the sources that hit or miss them; ``wire`` the namespaces and veth pairs; ``generator`` sends live
frames through them; ``contenders`` are what receives; ``rounds`` lets them take turns and says what the figures are;
``experiments`` puts these together; ``goals``, ``report`` and ``plot`` show the outcome.
"""
