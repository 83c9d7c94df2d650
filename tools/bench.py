"""Speed of `lib` against torch, as ratios measured side by side on one thread.

The two candidates take turns, so that a busy machine slows both. A ratio of 1 is torch's own
speed. Printed are the median ratio over the rounds and the range of its middle half.

usage: python -m tools.bench
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from lib.data_normalization import Standardizer


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


def standardizer() -> None:
    for shape in ((256, 64), (4096, 784)):
        X = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 3
        ours = Standardizer().fit(X)
        layer = nn.BatchNorm1d(shape[1], affine=False, momentum=None)
        layer(X)
        layer.eval()
        size = "×".join(map(str, shape))
        report(
            f"Standardizer / BatchNorm1d.eval, {size}",
            ratio(lambda: ours(X), lambda: layer(X)),  # noqa: B023
        )


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'ratio of time, one thread':<58} median (middle half)")
    standardizer()


if __name__ == "__main__":
    main()
