"""One feed from its source to the datastore.

The order is what makes it safe to be killed anywhere: a request is noted before it is made, a list is stored as the
last good one before its sets are written, and the sets are made from the stored list, also when nothing was fetched: so
another run completes what this one began, and puts back what somebody deleted.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from enforcer.datastore.writer import Writer
from enforcer.feeds import crowdsec, store
from enforcer.feeds.canonical import Protected, Size
from enforcer.feeds.config import STDIN, Feed
from enforcer.feeds.fetch import Fetched, FetchError, fetch, has_input
from enforcer.feeds.guards import Refusal
from enforcer.feeds.judge import Judged, judged, judged_stream, of_decisions
from enforcer.feeds.objects import Changes, changes, present
from enforcer.feeds.private import special
from enforcer.feeds.state import FeedState, StateStore, Status
from enforcer.model.errors import EnforcerError, UsageError
from enforcer.policy.resources import Resources


@dataclass(frozen=True)
class Result:
    """What became of a feed. ``status``: of its last attempt, which need not be of this run. ``fetched``: whether there
    was one in this run. ``size``: of what is enforced. ``next_s``: when it may be fetched again, 0: at any time.
    """

    feed: str
    status: Status
    fetched: bool = False
    size: Size | None = None
    changes: Changes | None = None
    problem: str = ""
    notes: Sequence[str] = ()
    next_s: float = 0.0

    @property
    def good(self) -> bool:
        return self.status is Status.TAKEN


@dataclass(frozen=True)
class Syncer:
    """``protected``: what no feed may deny, beside what is special on the Internet. ``writer``: None: nothing is
    written, neither there nor to the state.
    """

    states: StateStore
    resources: Resources
    protected: Sequence[Protected]
    writer: Writer | None
    now_s: Callable[[], float] = time.time

    def sync(self, feed: Feed) -> Result:
        """Raises HostError for a state or a datastore that fails, RefusedError and ConflictError."""
        state = self.states.read(feed.name)
        if not self._is_due(feed, state):
            return self._enforced(feed, state)
        same = state.reading == _reading(feed)
        held = state.decisions if same and state.complete else {}
        state = self._saved(feed, replace(state, source=feed.source, attempted_s=self.now_s(), complete=False))
        try:
            got = fetch(
                feed, etag=state.etag if same else "", modified=state.modified if same else "", startup=not held
            )
        except FetchError as error:
            return self._failed(feed, state, Status.FAILED, f"{feed.shown_source}: {error}")
        if got is None:
            return self._enforced(feed, self._good(feed, state), fetched=True)
        found = self._judged(feed, state, got.content, held)
        if found.refusals:
            return self._refused(feed, state, got.content, found.refusals)
        return self._taken(feed, state, got, found)

    def accept(self, feed: Feed) -> Result:
        """Take the list that is held. Raises UsageError if there is none, and as :meth:`sync`."""
        content = self.states.held(feed.name)
        if content is None:
            raise UsageError(f"nothing of feed {feed.name} is held")
        state = self.states.read(feed.name)
        found = self._judged(feed, state, content, state.decisions)
        if final := [item for item in found.refusals if item.final]:
            return self._refused(feed, state, content, final)
        return self._taken(feed, replace(state, complete=False), Fetched(content), found, complete=False)

    def _is_due(self, feed: Feed, state: FeedState) -> bool:
        """Whether the feed may be fetched. A clock that was set back does not delay it."""
        if feed.source == STDIN:
            return has_input()
        return (
            not feed.is_url or state.source != feed.source or not 0 <= self.now_s() - state.attempted_s < feed.every_s
        )

    def _judged(self, feed: Feed, state: FeedState, content: bytes, held: crowdsec.Decisions) -> Judged:
        protected = self._protected(feed)
        if feed.shape is None:
            return judged_stream(content, feed, protected, held, state.size, self.now_s())
        return judged(content, feed, protected, state.size, self.now_s())

    def _protected(self, feed: Feed) -> list[Protected]:
        return [*special(private=not feed.keep_private), *self.protected]

    def _taken(self, feed: Feed, state: FeedState, got: Fetched, found: Judged, *, complete: bool = True) -> Result:
        if self.writer is not None and feed.shape is not None:
            self.states.put_list(feed.name, got.content)
        state = replace(
            state,
            reading=_reading(feed),
            fetched_s=self.now_s(),
            etag=got.etag,
            modified=got.modified,
            sha256=hashlib.sha256(got.content).hexdigest(),
            size=found.size,
            expires_s=found.expires_s,
            decisions=found.decisions,
            complete=complete and feed.shape is None,
        )
        return self._enforced(feed, self._good(feed, state), judged=found, fetched=True)

    def _refused(self, feed: Feed, state: FeedState, content: bytes, refusals: Sequence[Refusal]) -> Result:
        final = [item for item in refusals if item.final]
        if not final and self.writer is not None:
            self.states.hold(feed.name, content)
        told = "; ".join(item.told(feed.name) for item in (final or refusals))
        return self._failed(feed, state, Status.FAILED if final else Status.HELD, f"{feed.shown_source}: {told}")

    def _failed(self, feed: Feed, state: FeedState, status: Status, problem: str) -> Result:
        """The sets stay as the last good list has them."""
        return self._enforced(feed, self._saved(feed, replace(state, status=status, problem=problem)), fetched=True)

    def _good(self, feed: Feed, state: FeedState) -> FeedState:
        if self.writer is not None:
            self.states.release(feed.name)
        return self._saved(feed, replace(state, status=Status.TAKEN, problem="", good_s=self.now_s()))

    def _saved(self, feed: Feed, state: FeedState) -> FeedState:
        if self.writer is not None:
            self.states.write(feed.name, state)
        return state

    def _enforced(self, feed: Feed, state: FeedState, *, judged: Judged | None = None, fetched: bool = False) -> Result:
        """The sets are made from the list that was taken: ``judged``, or the stored one."""
        found = judged or self._of_stored(feed, state)
        made: Changes | None = None
        if found is not None and (found.networks or feed.shape is None):
            stamp = datetime.fromtimestamp(int(state.fetched_s), timezone.utc).isoformat().replace("+00:00", "Z")
            held = present(self.resources, feed.name)
            made = changes(feed, found.networks, held, fetched=stamp, sha256=state.sha256)
            if self.writer is not None:
                self._write(feed, state, made, self.writer)
        return Result(
            feed.name,
            state.status,
            fetched,
            found.size if found else None,
            made,
            state.problem,
            found.notes if found and (judged or (made and made.count)) else (),
            state.attempted_s + feed.every_s if feed.is_url else 0.0,
        )

    def _write(self, feed: Feed, state: FeedState, made: Changes, writer: Writer) -> None:
        try:
            store.write(writer, feed.name, made)
        except EnforcerError as error:
            self.states.write(feed.name, replace(state, unwritten=str(error)))
            raise
        if state.unwritten:
            self.states.write(feed.name, replace(state, unwritten=""))

    def _of_stored(self, feed: Feed, state: FeedState) -> Judged | None:
        """What the list that was taken denies now; None if there is none, or it was read in another way."""
        if state.reading != _reading(feed):
            return None
        if feed.shape is None:
            return of_decisions(feed, self._protected(feed), state.decisions, self.now_s())
        content = self.states.list(feed.name)
        return None if content is None else judged(content, feed, self._protected(feed), None, self.now_s())


def _reading(feed: Feed) -> str:
    """What the stored list depends on."""
    return f"{feed.source} {feed.shape}"


def remove(states: StateStore, writer: Writer | None, resources: Resources, feed: str) -> Sequence[str]:
    """Delete the sets of a feed, and forget it. The names of its sets. ``writer``: None: nothing is done."""
    names = sorted(present(resources, feed).sets)
    if writer is not None:
        store.write(writer, feed, Changes(delete=names))
        states.forget(feed)
    return names
