"""Calls that are spread over any executor, and that survive the loss of a worker."""

import pickle
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, as_completed
from typing import Any

import cloudpickle

TRIES = 3  # how often one call may lose its worker


def spread(
    fn: Callable[[Any], Any],
    items: Sequence[Any],
    executor: Executor | int | None,
    done: Callable[[int], None] = lambda i: None,
) -> list[Any]:
    """Return ``[fn(item) for item in items]``, computed anywhere and in any order.

    ``fn`` travels by cloudpickle, so it may hold functions defined in a notebook. A call
    whose worker was killed is made again, up to `TRIES` times in all.

    Args:
        executor: None for this process; a number for so many worker processes; or an
            executor, which stays open. Should that one break, the rest is done here.
        done: called with an item's index once its result is there.

    Raises:
        RuntimeError: a call lost its worker `TRIES` times.
        Exception: whatever ``fn`` raises, and then nothing further is started.
    """
    results: dict[int, Any] = {}
    lost = [0] * len(items)
    pickled = cloudpickle.dumps(fn)
    while executor is not None and len(results) < len(items):
        futures: dict[Future, int] = {}
        try:
            pool = _workers(executor) if isinstance(executor, int) else executor
            for i in range(len(items)):
                if i not in results:
                    futures[pool.submit(_call, pickled, items[i])] = i
        except (BrokenExecutor, RuntimeError) as error:  # broken, or shut down
            if not futures:
                warnings.warn(
                    f"executor takes no more work ({error!r}), so "
                    f"{len(items) - len(results)} of {len(items)} blocks run in this process",
                    RuntimeWarning,
                    stacklevel=3,
                )
                break
        _collect(futures, results, lost, done)
        if max(lost) >= TRIES:
            item = items[lost.index(max(lost))]
            raise RuntimeError(f"the worker was lost {TRIES} times at {item!r}")
    for i, item in enumerate(items):
        if i not in results:
            results[i] = fn(item)
            done(i)
    return [results[i] for i in range(len(items))]


def _call(pickled: bytes, item: Any) -> Any:
    return pickle.loads(pickled)(item)


def _collect(
    futures: dict[Future, int], results: dict[int, Any], lost: list[int], done: Callable
) -> None:
    """Wait for all; put what came back into ``results``, count what did not in ``lost``."""
    try:
        for future in as_completed(futures):
            i = futures[future]
            try:
                results[i] = future.result()
            except Exception as error:
                if not _worker_lost(error):
                    raise
                lost[i] += 1
            else:
                done(i)
    finally:
        for future in futures:
            future.cancel()


def _worker_lost(error: BaseException) -> bool:
    # By name: distributed is optional, and not worth importing to recognize its error.
    return isinstance(error, BrokenExecutor | CancelledError) or (
        type(error).__name__ == "KilledWorker"
    )


def _workers(n: int) -> Executor:
    """Worker processes that later studies use again; fresh ones after a loss."""
    try:
        from loky import get_reusable_executor
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("executor=<int> needs loky: pip install loky") from error
    return get_reusable_executor(max_workers=n)
