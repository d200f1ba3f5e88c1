"""A list of everything that is followed, of one revision, read in pages."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from enforcer.datastore.etcd.client import Client, Header, KeyValue, Page, Span

_PAGE_FIRST, _PAGE_MOST, _PAGE_BYTES = 10, 500, 1 << 20


class Listing:
    """``found``: what was read so far. ``header``: of the first reply, whose revision the whole list has; None before.

    After an error, :meth:`read` goes on with the page that is missing, also over another connection: where thousands of
    agents list at once, and pages are late, each page that arrives is progress.
    """

    def __init__(self, spans: Sequence[Span]) -> None:
        self.header: Header | None = None
        self.found: list[KeyValue] = []
        self._rest = deque(spans)
        self._limit = _PAGE_FIRST

    def read(self, client: Client) -> Header:
        """Read what is missing. Raises EtcdError; OUT_OF_RANGE: the revision is gone, and the list with it.

        The first reply is that of a majority, so that no member that is behind is taken for a restored backup.
        """
        header = self.header
        while self._rest:
            span = self._rest[0]
            revision = header.revision if header else 0
            page = client.range(span, limit=self._limit, revision=revision, serializable=header is not None)
            header = self.header = header or page.header
            self.found += page.items
            if page.more:
                self._rest[0] = Span(page.items[-1].key + b"\0", span.end)
            else:
                self._rest.popleft()
            self._limit = next_limit(page, self._limit)
        assert header is not None
        return header


def next_limit(page: Page, limit: int) -> int:
    """How many objects to ask for next, so that a page has about 1 MiB."""
    size = sum(len(item.value) for item in page.items)
    return max(1, min(_PAGE_MOST, limit * 4, _PAGE_BYTES * len(page.items) // size)) if size else limit
