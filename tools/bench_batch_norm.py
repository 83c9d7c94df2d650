"""Speed of our batch normalization against torch's, forward and backward, on one thread.

usage: python -m tools.bench_batch_norm
"""

import torch
from torch import Tensor, nn

from lib.batch_norm import BatchNorm1d, BatchNorm2d, batch_norm
from tools.timing import ratio, report

SHAPES = [(256, 512), (32, 64), (64, 64, 16, 16)]


def warm_up() -> None:
    """Let glibc keep what is freed, as it does once a program has freed something large.

    Else it gives memory back to the system and asks for it again in each pass, or not,
    depending on a few bytes, and the ratio says more about that than about the layers.
    """
    torch.zeros(7, 2**20)  # 28 MiB, of the 32 up to which it learns


def by_autograd(layer: nn.Module, x: Tensor) -> Tensor:
    """The formula without its backward pass by hand, and without running statistics."""
    return batch_norm(x, layer.weight, layer.bias)[0]


def main() -> None:
    torch.set_num_threads(1)
    warm_up()
    print(f"{'ratio of time, one thread':<58} median (middle half)")
    for shape in SHAPES:
        g = torch.Generator().manual_seed(0)
        x, grad = (torch.randn(shape, generator=g) for _ in range(2))
        x.requires_grad_()
        images = len(shape) == 4
        ours = (BatchNorm2d if images else BatchNorm1d)(shape[1])
        theirs = (nn.BatchNorm2d if images else nn.BatchNorm1d)(shape[1])

        def step(layer, forward=None, x=x, grad=grad):
            y = layer(x) if forward is None else forward(layer, x)
            torch.autograd.grad(y, [x, layer.weight, layer.bias], grad)

        size = "×".join(map(str, shape))
        for name, forward in (("", None), (" by autograd", by_autograd)):
            found = ratio(lambda: step(ours, forward), lambda: step(theirs))  # noqa: B023
            report(f"BatchNorm{name} / torch's, {size}", found)


if __name__ == "__main__":
    main()
