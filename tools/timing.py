"""Ratios of time, measured so that a busy machine slows both candidates alike."""

import statistics
import time
from collections.abc import Callable


def ratio(
    ours: Callable[[], object], theirs: Callable[[], object], rounds: int = 41
) -> list[float]:
    """Ratios of time, ours over theirs, of as many rounds; each runs for about 5 ms."""
    ours(), theirs()
    started = time.perf_counter()
    theirs()
    repeats = max(1, round(0.005 / (time.perf_counter() - started)))
    found = []
    for k in range(rounds):
        times = {}
        for run in (ours, theirs) if k % 2 else (theirs, ours):  # neither always goes first
            started = time.perf_counter()
            for _ in range(repeats):
                run()
            times[run] = time.perf_counter() - started
        found.append(times[ours] / times[theirs])
    return sorted(found)


def report(name: str, ratios: list[float]) -> None:
    low, median, high = statistics.quantiles(ratios, n=4)
    print(f"{name:<58} {median:5.2f}  ({low:.2f} to {high:.2f})")
