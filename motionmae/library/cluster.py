"""A function over many items on the machines of a Ray cluster: a machine that dies costs the tasks that it had.

Its one rule: only the function, the items and the results travel; files are where the function finds them by itself.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

from motionmae.config import Spread
from motionmae.errors import MotionMAEError
from motionmae.library import processes
from motionmae.library.processes import Failure
from motionmae.video import origin

CHUNK = 16
"""Items in a task at most: starting one costs some ten milliseconds."""
TRIES = 3
"""How often a task is done again whose machine has died."""
REACHED = 10.0
"""Seconds in which a cluster's address must answer."""

Each = Callable[..., Iterator[tuple[Any, Any]]]


def each_by(spread: Spread) -> Each:
    """`processes.each`, or what stands for it on the cluster that the options name."""
    return ENGINES[spread.engine](spread)


def each(
    function: Callable[[Any], Any], items: Iterable[Any], workers: int, limit: Callable[[Any], float], address: str = ""
) -> Iterator[tuple[Any, Any]]:
    """As `processes.each`, in tasks of some items over all processors of a cluster, however many `workers` are said.

    Within its task each item is in a process that can be killed. Raises MotionMAEError where there is no cluster.
    """
    listed = list(items)
    with joined(address) as ray:
        size = min(CHUNK, max(1, len(listed) // int(2 * ray.cluster_resources().get("CPU", 1) or 1)))
        chunks = [listed[at : at + size] for at in range(0, len(listed), size)]
        for chunk, found in spread(ray, partial(_each, function, limit), chunks):
            results = [found] * len(chunk) if isinstance(found, Failure) else found
            yield from zip(chunk, results, strict=True)


def _each(function: Callable[[Any], Any], limit: Callable[[Any], float], chunk: Sequence[Any]) -> list[Any]:
    return [result for _, result in processes.each(function, chunk, 1, limit)]


def spread(
    ray: Any, function: Callable[..., Any], chunks: Iterable[Any], *shared: Any, cpus: int = 1, gpus: int = 0
) -> Iterator[tuple[Any, Any]]:
    """Pairs of a chunk and `function(chunk, *shared)`, as they are done; a Failure where TRIES machines died over it.

    Each task has so many processors and GPUs for itself. Raises MotionMAEError for what the function raises.
    """
    kept = [ray.put(value) for value in shared]
    task = ray.remote(_task).options(num_cpus=cpus, num_gpus=gpus, max_retries=TRIES)
    queue, waiting = iter(chunks), dict[Any, Any]()
    while True:
        room = 2 + 2 * int(ray.cluster_resources().get("CPU", 1)) // cpus
        for chunk in islice(queue, max(0, room - len(waiting))):
            waiting[task.remote(function, origin.told(), chunk, *kept)] = chunk
        if not waiting:
            return
        for ready in ray.wait(list(waiting), num_returns=1)[0]:
            yield waiting.pop(ready), _result(ray, ready)


def _task(function: Callable[..., Any], told: Mapping[str, tuple[str, float]], chunk: Any, *shared: Any) -> Any:
    origin.inherit(told)
    return function(chunk, *shared)


def _result(ray: Any, ready: Any) -> Any:
    try:
        return ray.get(ready)
    except ray.exceptions.RayTaskError as error:  # raised by the function, or on the way to it
        cause = str(error.cause or error).strip().splitlines()
        raise MotionMAEError(f"--engine ray: a task failed: {cause[-1] if cause else type(error).__name__}") from error
    except ray.exceptions.RayError as error:
        return Failure(f"was lost with its machine {TRIES + 1} times ({type(error).__name__})")


@contextmanager
def joined(address: str) -> Iterator[Any]:
    """The Ray library, with this process in the cluster at an address; without one in that which RAY_ADDRESS names, or
    in one that is started on this machine for as long as the block lasts. Raises MotionMAEError where that fails."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to its makers unless somebody wants that
    try:
        import ray
    except ImportError as error:
        raise MotionMAEError("--engine ray: needs Ray: pip install 'motionmae[ray]'") from error
    own = not ray.is_initialized()
    if own:
        try:
            _reach(address or os.environ.get("RAY_ADDRESS", ""))
            ray.init(address=address or None, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=None)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            told = str(error).strip().splitlines()
            raise MotionMAEError(
                f"--ray-address {address or os.environ.get('RAY_ADDRESS', '')}: no Ray cluster can be joined there "
                f"({told[0] if told else type(error).__name__})"
            ) from error
    try:
        yield ray
    finally:
        if own:
            ray.shutdown()


def _reach(address: str) -> None:
    """Raise OSError where nothing answers at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), REACHED).close()


ENGINES: dict[str, Callable[[Spread], Each]] = {
    "local": lambda spread: processes.each,
    "ray": lambda spread: partial(each, address=spread.ray_address),
}
