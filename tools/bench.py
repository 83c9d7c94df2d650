"""Speed of `lib` against torch, as ratios measured side by side on one thread.

The two candidates take turns, so that a busy machine slows both. A ratio of 1 is torch's own
speed. Printed are the median ratio over the rounds and the range of its middle half.

usage: python -m tools.bench
"""

import torch
from torch import nn

from lib.data_normalization import Standardizer
from tools import bench_batch_norm, bench_dropout, bench_optimizers, bench_study
from tools.timing import ratio, report


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
    bench_batch_norm.main()
    bench_dropout.main()
    bench_optimizers.optimizers()
    bench_study.main()


if __name__ == "__main__":
    main()
