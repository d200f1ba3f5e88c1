"""Workers of a Dask cluster: runs functions there, and says what is wrong with the cluster."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pkgutil import resolve_name
from typing import Any

from distributed import Client, Future, KilledWorker, wait
from distributed.client import FuturesCancelledError
from distributed.comm import CommClosedError, connect
from distributed.security import Security

from dossim.cluster.storage import Identity, identity_of, opened
from dossim.cluster.version import VERSION
from dossim.model.errors import CaptureError
from enforcer.model.errors import EnforcerError, HostError, UsageError

CONNECT_S = 10
WORKERS_S = 60
_LOOK_S = 1
_MOST_NAMED = 3


class Cluster:
    """Runs functions on the workers of a scheduler; of a worker that ends, others do the work again. Without any worker
    it waits ``workers_s``.
    """

    def __init__(self, client: Client, address: str, workers_s: float) -> None:
        self._client, self._address, self._workers_s = client, address, workers_s

    def submit(self, function: Callable[..., Any], *given: Any) -> Future:
        """Calls a function of the project with pickled values; what ``submit`` returned stands for its result."""
        return self._client.submit(function, *given, pure=False)

    def gather(self, futures: Sequence[Future]) -> list[Any]:
        """The results. Raises what a function raised, and HostError if the cluster fails."""
        with self._faults():
            last_worker = time.monotonic()
            while futures:
                with suppress(TimeoutError), self._client.as_current():
                    wait(list(futures), timeout=_LOOK_S)
                    break
                if any(future.status == "error" for future in futures):
                    break
                if self._workers():
                    last_worker = time.monotonic()
                elif time.monotonic() - last_worker > self._workers_s:
                    raise HostError(f"{self._address}: {self._gone()}, and none came for {self._workers_s:g} s")
            return list(self._client.gather(list(futures)))

    def wait_for_workers(self) -> int:
        """How many workers there are, as soon as there is one. Raises HostError."""
        with self._faults():
            try:
                self._client.wait_for_workers(1, timeout=self._workers_s)
            except TimeoutError as error:
                raise HostError(
                    f"{self._address}: the scheduler has no workers, and none came for {self._workers_s:g} s; start "
                    f"some: dask worker {self._address}"
                ) from error
            return len(self._workers())

    def require_ready(self) -> None:
        """Raises HostError without workers, or if some cannot take part."""
        self.wait_for_workers()
        self.require_same_version()

    def require_same_version(self) -> None:
        """Raises HostError if a worker has no dossim, or another one."""
        with self._faults():
            found = self._run(resolve_name, "dossim.cluster.version:VERSION")
        others = {worker: _version(answer) for worker, answer in found.items() if answer != VERSION}
        if others:
            raise HostError(f"{_named(others)}; this is {VERSION}: install the same on all of them")

    def identities(self, names: Sequence[str]) -> list[Identity]:
        """Of each capture. Raises CaptureError if a worker cannot read one, or reads another than the others do."""
        return [self._identity(name) for name in names]

    def _identity(self, name: str) -> Identity:
        with self._faults():
            found = self._run(_identity_or_fault, name)
        faults = {worker: str(answer) for worker, answer in found.items() if not isinstance(answer, Identity)}
        if faults:
            raise CaptureError(f"{_named(faults)}; every worker must be able to read the captures")
        kinds = Counter(found.values())
        usual: Identity
        (usual, _), *rest = kinds.most_common()
        if rest:
            others = {worker: f"{name}: {answer.size:,} bytes" for worker, answer in found.items() if answer != usual}
            raise CaptureError(
                f"{_named(others)}, not the same file as on other workers ({usual.size:,} bytes); every worker must "
                "read the same"
            )
        return usual

    def _run(self, function: Callable[..., Any], *given: Any) -> Mapping[str, Any]:
        """The result of each worker, or the error; of one that has gone meanwhile nothing is known, nor needed."""
        answers: Mapping[str, Any] = self._client.run(function, *given, on_error="return")
        found = {worker: answer for worker, answer in answers.items() if not isinstance(answer, CommClosedError)}
        if not found:
            raise HostError(f"{self._address}: all workers have gone")
        return found

    def _gone(self) -> str:
        return "all workers have gone" if self._client.status == "running" else "the scheduler has gone"

    def _workers(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._client.scheduler_info(n_workers=-1)["workers"]
        return found

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Raises HostError for what the cluster raises."""
        try:
            yield
        except EnforcerError:
            raise
        except KilledWorker as error:
            raise HostError(
                f"{self._address}: {error.allowed_failures + 1} workers ended while they did the same work, the last "
                f"of them {error.last_worker.address}: too little memory?"
            ) from error
        except FuturesCancelledError as error:
            raise HostError(f"{self._address}: the scheduler has gone, or cancelled the work") from error
        except (OSError, TimeoutError) as error:
            raise HostError(f"{self._address}: the scheduler does not answer: {error}") from error


@contextmanager
def cluster_at(address: str, *, connect_s: float = CONNECT_S, workers_s: float = WORKERS_S) -> Iterator[Cluster]:
    """The cluster of the scheduler at an address such as ``tcp://host:8786``. Raises UsageError if it is none, and
    HostError if nothing answers there.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is raised
    _require_scheduler(address, connect_s)
    try:
        client = Client(address, timeout=connect_s, set_as_default=False, direct_to_workers=False)
    except (OSError, TimeoutError) as error:
        raise HostError(f"{address}: no scheduler answers there: {error}") from error
    try:
        yield Cluster(client, address, workers_s)
    finally:
        with suppress(OSError, TimeoutError):
            client.close(timeout=connect_s)


def _require_scheduler(address: str, connect_s: float) -> None:
    """A client that cannot connect would go on trying for a while in its own thread, with whatever listens there."""

    async def look() -> object:
        comm = await connect(address, timeout=connect_s, **Security().get_connection_args("client"))
        try:
            await comm.write({"op": "identity", "reply": True})
            return await comm.read()
        finally:
            comm.abort()

    try:
        found = asyncio.run(asyncio.wait_for(look(), connect_s))
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise UsageError(f"--scheduler {address}: {error}; {_how(address)}") from error
    except (OSError, TimeoutError) as error:
        raise HostError(
            f"{address}: no scheduler answers there: {str(error) or f'none within {connect_s:g} s'}; 'dask scheduler' "
            "starts one, and prints its address"
        ) from error
    kind = found.get("type") if isinstance(found, dict) else None
    if kind != "Scheduler":
        raise UsageError(f"--scheduler {address}: a Dask {kind or 'server'} answers there; {_how(address)}")


def _how(address: str) -> str:
    if address.startswith(("tls:", "wss:")):
        return "TLS needs certificates in Dask's configuration (distributed.comm.tls)"
    return "expected the address of a Dask scheduler, such as tcp://host:8786"


def _identity_or_fault(name: str) -> Identity | str:
    """On a worker, where it would log what is raised."""
    try:
        with opened(name) as capture:
            return identity_of(name, capture)
    except CaptureError as error:
        return str(error)


def _version(answer: object) -> str:
    return answer if isinstance(answer, str) else f"no usable dossim ({answer})"


def _named(by_worker: Mapping[str, str]) -> str:
    """What is wrong with workers, a few of them by address."""
    shown = [f"worker {worker}: {what}" for worker, what in list(by_worker.items())[:_MOST_NAMED]]
    more = len(by_worker) - len(shown)
    return "; ".join([*shown, *([f"and {more:,} more"] if more else [])])
