"""What the kernel's connection tracking says of each packet: NEW, ESTABLISHED, RELATED, INVALID or UNTRACKED, and why.

For callers::

    table = Conntrack(host, Settings())          # host: who listens; settings: the sysctls
    verdict = table.observe(ip, time_ns)         # at PREROUTING -200, in the order of arrival
    verdict.states                               # frozenset of CtState; verdict.state where it is one
    describe(verdict)                            # a sentence
    table.delivered(verdict)                     # or passed(verdict), or nothing

- ``ip`` is the packet as raw has it: trimmed to its own length, reassembled (``Whole.datagram``, once for all its
  parts, at the time of the last). ``time_ns`` never goes back; only differences count.
- ``observe(..., untracked=True)`` where raw has marked the packet so.
- An entry exists only after the last hook: ``delivered`` when LOCAL_IN is passed and the transport takes the packet,
  which makes the host answer; ``passed`` when it is forwarded, or when the transport then drops it. Of a packet that
  is dropped before that, say nothing. Before the next ``observe``.
- Several states: what the host's initial sequence number (ISN) decides, which nobody knows beforehand. ``coin`` has the
  reason. Where policy then treats the states differently, ``states=`` says for which of them the packet was delivered.
  It is one coin for each flow: later verdicts of the flow follow from the worlds that are left. An outcome that needs
  one particular ISN of the 2^32, give or take a window, is left out.
- ``observe`` raises CutError where the capture cut what decides. That flow is then open: its later verdicts have every
  state that its protocol may have.

Not modelled: a full table, clashes between CPUs, NAT, helpers and expectations, zones, SYN cookies, what applications
answer. A verdict near a timeout depends on when the packet is sent again.

:mod:`~dossim.pipeline.conntrack.table` is the way in; ``lookup`` one packet in one world; ``tcp``, ``udp``, ``icmp``,
``gre``, ``sctp``, ``generic`` the trackers; ``answers`` and ``embryo`` the host's side. Source: ``net/netfilter/`` of
Linux 6.18; ``tests/kernel/test_conntrack_states.py`` compares with the running kernel.
"""
