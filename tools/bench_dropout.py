"""Speed of our dropout against torch's, forward and backward, on one thread.

usage: python -m tools.bench_dropout
"""

import torch
from torch import nn

from lib import dropout
from tools.bench_batch_norm import warm_up
from tools.timing import ratio, report

LAYERS = [("Dropout", (256, 512)), ("Dropout", (32, 64)), ("Dropout2d", (64, 64, 16, 16))]


def main() -> None:
    torch.set_num_threads(1)
    warm_up()
    print(f"{'ratio of time, one thread':<58} median (middle half)")
    for name, shape in LAYERS:
        g = torch.Generator().manual_seed(0)
        x, grad = (torch.randn(shape, generator=g) for _ in range(2))
        x.requires_grad_()
        ours, theirs = getattr(dropout, name)(), getattr(nn, name)()

        def step(layer, x=x, grad=grad):
            torch.autograd.grad(layer(x), x, grad)

        found = ratio(lambda: step(ours), lambda: step(theirs))  # noqa: B023
        report(f"{name} / torch's, {'×'.join(map(str, shape))}", found)


if __name__ == "__main__":
    main()
