"""Where shards begin, by one walk over all their records."""

from __future__ import annotations

from collections.abc import Sequence

from dossim.cluster.chain import Place
from dossim.cluster.job import Job
from dossim.cluster.split import Shard
from dossim.cluster.storage import UnreadableError, opened
from dossim.cluster.walk import Walk
from dossim.model.errors import CaptureError
from dossim.packet.source import display_name


def places_of(job: Job, shards: Sequence[Shard], place: Place) -> list[Place]:
    """Where these shards of one capture begin, of which the first begins at ``place``; up to where the capture can be
    read. Raises UnreadableError.
    """
    name = job.names[shards[0].file]
    places = [place]
    with opened(name) as capture:
        for shard in shards[:-1]:
            try:
                walk = Walk(capture, display_name(name), shard, places[-1], None)
                for _ in walk.windows():
                    pass
            except UnreadableError:
                raise
            except CaptureError:
                break
            if walk.walked.end is None or walk.walked.stopped:
                break
            places.append(walk.walked.end)
    return places
