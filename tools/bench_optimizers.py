"""Speed of a step of the optimizers from scratch against torch's loop, as ratios on one thread.

The parameters are those of a 784-256-256-10 network. `update` returns fresh tensors, and what
those cost depends on the process: one that has never freed a block of some megabytes, as a
data set is, hands the memory of a step back to the system (see glibc's ``mallopt``). The first
line shows such a process.

usage: python -m tools.bench_optimizers
"""

import torch
from torch import Tensor

from lib.device import generator
from lib.models import mlp
from lib.optimizers import SGD, Adagrad, Adam, AdamW, RMSprop
from tools.timing import ratio, report

SIZES = [784, 256, 256, 10]
RULES = [
    (Adam, {}),
    (Adam, {"amsgrad": True}),
    (AdamW, {}),
    (SGD, {}),
    (SGD, {"momentum": 0.9}),
    (SGD, {"momentum": 0.9, "nesterov": True}),
    (Adagrad, {}),
    (RMSprop, {}),
    (RMSprop, {"momentum": 0.9, "centered": True}),
]


def parameters() -> list[Tensor]:
    g = generator(0)
    params = list(mlp(SIZES, generator=g).parameters())
    for p in params:
        p.grad = torch.randn(p.shape, generator=g)
    return params


def compare(rule: type, options: dict, remark: str = "") -> None:
    ours = rule(parameters(), **options)
    theirs = getattr(torch.optim, rule.__name__)(parameters(), **options, foreach=False)
    name = ", ".join([rule.__name__, *(f"{key} {x}" for key, x in options.items())])
    report(f"step of {name}{remark}", ratio(ours.step, theirs.step, rounds=101))


def optimizers() -> None:
    torch.zeros(4 << 20)  # 16 MiB, freed at once: from here on glibc keeps what is freed
    for rule, options in RULES:
        compare(rule, options)


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'ratio of time, one thread':<58} median (middle half)")
    compare(Adam, {}, ", in a fresh process")
    optimizers()


if __name__ == "__main__":
    main()
