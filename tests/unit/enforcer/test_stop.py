"""enforcer.system.stop"""

import select

from enforcer.system.stop import Stop


def test_it_is_readable_once_it_is_set() -> None:
    stop = Stop()
    poll = select.poll()
    poll.register(stop, select.POLLIN)
    assert not poll.poll(0)
    stop.set()
    stop.set()
    assert poll.poll(0)
    assert stop.is_set()
