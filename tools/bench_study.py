"""Speed of a study against a plain loop over seeds, as ratios on one thread.

usage: python -m tools.bench_study
"""

import time

import torch
import torch.nn.functional as F
from torch import nn

from lib.data import digits
from lib.device import generator, seeds
from lib.models import mlp
from lib.optimizers import SGD, Adam
from lib.study import study
from lib.train import accuracy, batches
from tools.timing import ratio, report

SIZES = [64, 100, 100, 100, 100, 10]
NETS = {
    "plain": {},
    "batch norm": {"norm": nn.BatchNorm1d},
    "dropout": {"dropout": 0.3},
    "both": {"norm": nn.BatchNorm1d, "dropout": 0.3},
}


def by_study(optimizer: type, options: dict, *, n: int = 20, epochs: int = 3) -> None:
    study(
        {"one": {"optimizer": optimizer, "lr": 1e-2}},
        model=lambda g: mlp(SIZES, generator=g, **options),
        split=digits,
        seeds=seeds(n),
        epochs=epochs,
        record=("val_accuracy",),
    )


def by_loop(optimizer: type, options: dict, *, n: int = 20, epochs: int = 3) -> None:
    """What a reader would write: no checks, no progress, nothing recorded but the same."""
    for seed in seeds(n):
        split = digits(seed)
        model = mlp(SIZES, generator=generator(seed), **options)
        descent, g = optimizer(model.parameters(), lr=1e-2), generator(seed)
        for _ in range(epochs):
            model.train()
            for batch in batches(len(split.X_train), 64, g):
                loss = F.cross_entropy(model(split.X_train[batch]), split.y_train[batch])
                descent.zero_grad()
                loss.backward()
                descent.step()
            accuracy(model, split.X_val, split.y_val)


def study_against_loop(rounds: int = 15) -> None:
    """Twenty 4x100 networks on digits, in a study and in a loop with `torch.optim`."""
    for ours, theirs in ((SGD, torch.optim.SGD), (Adam, torch.optim.Adam)):
        for name, options in NETS.items():
            report(
                f"study / plain loop, 20 seeds, {ours.__name__}, {name}",
                ratio(
                    lambda: by_study(ours, options),  # noqa: B023
                    lambda: by_loop(theirs, options),  # noqa: B023
                    rounds,
                ),
            )


def many_against_one(rounds: int = 11) -> None:
    """On a GPU: 64 networks against one, both in a study."""
    if not torch.cuda.is_available():
        return
    for name, options in NETS.items():

        def timed(n: int, options: dict = options) -> None:
            by_study(SGD, options, n=n)
            torch.cuda.synchronize()

        found = ratio(lambda: timed(64), lambda: timed(1), rounds)
        report(f"study of 64 networks / of one, GPU, {name}", found)


def main() -> None:
    torch.set_num_threads(1)
    started = time.perf_counter()
    print(f"{'ratio of time, one thread':<58} median (middle half)")
    study_against_loop()
    many_against_one()
    print(f"measured in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
