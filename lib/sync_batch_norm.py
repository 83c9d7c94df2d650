"""Batch normalization over processes that each hold a part of the batch.

As `torch.nn.SyncBatchNorm`, on any device whose backend can reduce, so on a CPU as well. A
process with a part of n_i values per channel contributes n_i, its mean and its sum of squares
around that mean. The whole then has (Chan, Golub and LeVeque, 1983,
https://doi.org/10.1080/00031305.1983.10483115)

    mean = sum(n_i mean_i) / n,    n var = sum(squares_i) + sum(n_i (mean_i - mean)²)

which, unlike E[x²] - E[x]², loses nothing where means are large.
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from lib.batch_norm import (
    _BatchNorm,
    check_batch,
    input_gradient,
    parameter_gradients,
    per_channel,
    scale_and_shift,
    statistics,
)


def shared_statistics(
    x: Tensor, group: "dist.ProcessGroup | None" = None
) -> tuple[Tensor, Tensor, int]:
    """Return mean (C,), variance (C,) and n of the whole, of which x (N, C, ...) is our part.

    Every process of the group has to call this; N may differ, and be 0.
    """
    C = x.shape[1]
    n = x.numel() // C
    mean, var, _ = statistics(x) if n else (x.new_zeros(C), x.new_zeros(C), None)
    own = torch.cat([mean.new_tensor([n]), mean, n * var]).double()  # (1 + 2 C,)
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, own, group=group)
    counts, means, squares = torch.stack(parts).split([1, C, C], dim=1)  # (parts, 1 or C)
    n = counts.sum()
    mean = (counts * means).sum(0) / n
    var = (squares + counts * (means - mean).square()).sum(0) / n
    return mean.to(x.dtype), var.to(x.dtype), int(n)


class _ByHand(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, eps, group):
        mean, var, n = shared_statistics(x, group)
        check_batch(n, x)
        centred, rstd = x - per_channel(mean, x), (var + eps).rsqrt()
        ctx.save_for_backward(weight, centred, rstd)
        ctx.n, ctx.group = n, group
        ctx.mark_non_differentiable(mean, var)
        return scale_and_shift(centred, rstd, weight, bias), mean, var, n

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, *_):
        weight, centred, rstd = ctx.saved_tensors
        d_weight, d_bias = parameter_gradients(grad, centred, rstd)
        sums = torch.stack([d_weight, d_bias])
        dist.all_reduce(sums, group=ctx.group)  # x of this part moves y of all parts
        d_x = input_gradient(grad, centred, rstd, weight, *sums, ctx.n)
        return d_x, d_weight, d_bias, None, None


class SyncBatchNorm(_BatchNorm):
    """Batch normalization of x (N, C, ...) with statistics over all processes of a group.

    In training, two processes with half of a batch each compute what one computes with all of
    it: outputs, gradients of inputs for the sum of the processes' losses, and running
    statistics. Every process has to take part in each forward and each backward pass.

    The gradients of weight and bias are those of the process's own part, as in torch. Sum them
    over the processes for a loss that is a sum; `DistributedDataParallel` averages them, which
    suits the mean over parts of equal size.

    Without an initialized process group, or in evaluation, this is ordinary batch
    normalization. Arguments and errors as in `lib.batch_norm.BatchNorm1d`; and

    Args:
        process_group: whose processes share; None for all.
    """

    ndims = (2, 3, 4, 5)

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: "dist.ProcessGroup | None" = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype
        )
        self.process_group = process_group

    def _normalize(self, x, weight, bias):
        if not (self.training and dist.is_available() and dist.is_initialized()):
            return super()._normalize(x, weight, bias)
        return _ByHand.apply(x, weight, bias, self.eps, self.process_group)
