"""Batch normalization (Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167).

Each channel gets mean 0 and variance 1 over the batch, then a learned scale and shift:

    x_hat = (x - mean) / sqrt(var + eps),    y = weight x_hat + bias

Names, arguments, defaults and saved states are those of torch. Shapes: x (N, C), (N, C, L)
or (N, C, H, W); all else has one number per channel, (C,). A channel has n values: N, N L or
N H W.
"""

import copy
import math

import torch
from torch import Tensor, nn

from lib.device import check_int

DTYPES = torch.float32, torch.float64
FOLDS_INTO = nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d


def per_channel(v: Tensor, x: Tensor) -> Tensor:
    """View v (C,) so that it broadcasts against x (N, C, ...): (C,) or (C, 1, ...)."""
    return v if x.ndim == 2 else v.view(-1, *[1] * (x.ndim - 2))


def over_batch(x: Tensor) -> list[int]:
    """Return the dimensions of x (N, C, ...) to average over: all but the channels."""
    return [d for d in range(x.ndim) if d != 1]


def statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean (C,), variance (C,) divided by n, and x - mean, of x (N, C, ...)."""
    mean = x.mean(over_batch(x))
    centred = x - per_channel(mean, x)  # first: E[x²] - E[x]² cancels where means are large
    return mean, centred.square().mean(over_batch(x)), centred


def scale_and_shift(centred: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return y = weight (x - mean) / std + bias."""
    scale = per_channel(weight * rstd, centred)
    return torch.addcmul(per_channel(bias, centred), centred, scale)


def batch_norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y as in training, with the batch's mean and (biased) variance.

    >>> y, mean, var = batch_norm(torch.tensor([[1.0], [3.0]]), torch.ones(1), torch.zeros(1))
    >>> y, mean, var
    (tensor([[-1.0000],
            [ 1.0000]]), tensor([2.]), tensor([1.]))
    """
    mean, var, centred = statistics(x)
    return scale_and_shift(centred, (var + eps).rsqrt(), weight, bias), mean, var


def batch_norm_backward(
    grad: Tensor, centred: Tensor, rstd: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients for x, weight and bias, from the gradient for y.

    A value of x counts three times: by itself, in the mean, and in the variance. So

        d_bias = sum(d_y),    d_weight = sum(d_y x_hat)
        d_x = weight / std (d_y - d_bias / n - x_hat d_weight / n)

    Args:
        grad: for y, (N, C, ...).
        centred: x - mean.
        rstd: 1 / std = 1 / sqrt(var + eps).
        weight: the scale.
    """
    d_weight, d_bias = parameter_gradients(grad, centred, rstd)
    n = grad.numel() // grad.shape[1]
    return input_gradient(grad, centred, rstd, weight, d_weight, d_bias, n), d_weight, d_bias


def parameter_gradients(grad, centred, rstd):
    """Return d_weight and d_bias as in `batch_norm_backward`."""
    dims = over_batch(grad)
    return (grad * centred).sum(dims) * rstd, grad.sum(dims)


def input_gradient(grad, centred, rstd, weight, d_weight, d_bias, n):
    """Return d_x as in `batch_norm_backward`; in place, since new memory takes longest."""
    d_x = torch.addcmul(grad, centred, per_channel(rstd * d_weight, grad), value=-1 / n)
    d_x.sub_(per_channel(d_bias, grad), alpha=1 / n)
    return d_x.mul_(per_channel(weight * rstd, grad))


class _ByHand(torch.autograd.Function):
    """`batch_norm` with `batch_norm_backward`: fewer passes over memory than autograd's."""

    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        mean, var, centred = statistics(x)
        rstd = (var + eps).rsqrt()
        ctx.save_for_backward(x, weight, centred, rstd)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, var)
        ctx.set_materialize_grads(False)  # makes no zeros for mean and var
        return scale_and_shift(centred, rstd, weight, bias), mean, var

    @staticmethod
    def backward(ctx, grad, *_):
        x, weight, centred, rstd = ctx.saved_tensors
        if grad is None:
            return None, None, None, None
        if torch.is_grad_enabled():  # for second derivatives, which see what depends on x
            _, var, centred = statistics(x)
            rstd = (var + ctx.eps).rsqrt()
        return *batch_norm_backward(grad, centred, rstd, weight), None


class _BatchNorm(nn.Module):
    """Batch normalization of inputs with as many dimensions as one of ``ndims``.

    Training uses the statistics of the batch, and tracks them for evaluation:

        running_mean = (1 - momentum) running_mean + momentum mean
        running_var  = (1 - momentum) running_var  + momentum var n / (n - 1)

    Args:
        num_features: channels C.
        eps: added to the variance, above 0.
        momentum: share in [0, 1] of the newest batch; None weights all batches alike.
        affine: whether to learn weight and bias.
        track_running_stats: without, evaluation uses the statistics of its batch, too.

    Raises:
        ValueError: an argument out of range; an input of another number of dimensions or
            channels; fewer than 2 values per channel where a batch is averaged (of which torch
            accepts none at all).
        TypeError: an input that is neither float32 nor float64, or not as the parameters.
    """

    ndims: tuple[int, ...]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_int("num_features", num_features, 1)
        if not 0 < eps < math.inf:
            raise ValueError(f"eps has to be positive and finite, but got {eps}")
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(f"momentum has to be None or in [0, 1], but got {momentum}")
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        zeros = torch.zeros(num_features, device=device, dtype=dtype)
        self.weight = nn.Parameter(torch.ones_like(zeros)) if affine else None
        self.bias = nn.Parameter(torch.zeros_like(zeros)) if affine else None
        steps = torch.zeros((), dtype=torch.long, device=device)
        running = (zeros, torch.ones_like(zeros), steps) if track_running_stats else [None] * 3
        for name, buffer in zip(
            ("running_mean", "running_var", "num_batches_tracked"), running
        ):
            self.register_buffer(name, buffer)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        self._check(x, self.running_mean if weight is None else weight)
        if weight is None:
            weight, bias = x.new_ones(self.num_features), x.new_zeros(self.num_features)
        if not self.training and self.running_mean is not None:
            centred = x - per_channel(self.running_mean, x)
            rstd = (self.running_var + self.eps).rsqrt()
            return scale_and_shift(centred, rstd, weight, bias)
        y, mean, var, n = self._normalize(x, weight, bias)
        if self.track_running_stats:
            self._track(mean, var, n)
        return y

    def _normalize(self, x, weight, bias):
        """Return y, mean and variance of the batch, and the number n of values per channel."""
        n = x.numel() // self.num_features
        check_batch(n, x)
        try:
            return *_ByHand.apply(x, weight, bias, self.eps), n
        except RuntimeError:  # under torch.func, such as vmap, which asks more of a Function
            return *batch_norm(x, weight, bias, self.eps), n

    def _track(self, mean, var, n):
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            share = self.momentum
            if share is None:
                share = 1 / self.num_batches_tracked.to(mean.dtype)
            # In place, but not by lerp_, for which vmap would loop over the networks.
            self.running_mean.copy_(self.running_mean.lerp(mean, share))
            self.running_var.copy_(self.running_var.lerp(var * (n / (n - 1)), share))

    def _check(self, x, own):
        if x.ndim not in self.ndims:
            expected = " or ".join(f"{ndim}D" for ndim in self.ndims)
            raise ValueError(f"expected {expected} input (got {x.ndim}D input)")
        if x.shape[1] != self.num_features:
            expected = f"{self.num_features} channels in dimension 1"
            raise ValueError(f"expected input with {expected}, but got size {tuple(x.shape)}")
        if x.dtype not in DTYPES or (own is not None and own.dtype != x.dtype):
            expected = "float32 or float64" if own is None else f"{own.dtype} as the parameters"
            raise TypeError(f"expected input of {expected}, but got {x.dtype}")

    def extra_repr(self) -> str:
        names = ("eps", "momentum", "affine", "track_running_stats")
        options = ", ".join(f"{name}={getattr(self, name)}" for name in names)
        return f"{self.num_features}, {options}"


class BatchNorm1d(_BatchNorm):
    """Batch normalization of x (N, C) or (N, C, L).

    >>> BatchNorm1d(1)(torch.tensor([[1.0], [3.0]])).detach()
    tensor([[-1.0000],
            [ 1.0000]])
    """

    ndims = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalization of x (N, C, H, W), with statistics over N, H and W."""

    ndims = (4,)


def check_batch(n: int, x: Tensor) -> None:
    """Raise torch's ValueError unless there are n >= 2 values per channel."""
    if n < 2:
        size = f"got input size {tuple(x.shape)}"
        raise ValueError(f"Expected more than 1 value per channel when training, {size}")


@torch.no_grad()
def fold(layer: nn.Module, batch_norm: nn.Module) -> nn.Module:
    """Return a new layer that does what ``layer`` and then ``batch_norm`` do in evaluation.

    y = weight (W x + b - mean) / std + bias is linear in x, hence one layer with

        W' = weight / std W,    b' = weight / std (b - mean) + bias

    Args:
        layer: linear or convolutional, with as many outputs as batch_norm has channels.
        batch_norm: one of ours or of torch's, in evaluation mode.

    Raises:
        TypeError: a layer of another kind.
        ValueError: numbers that do not fit, a batch_norm in training or without statistics.
    """
    if not isinstance(layer, FOLDS_INTO):
        raise TypeError(f"layer has to be linear or convolutional, but got {layer}")
    if batch_norm.training or batch_norm.running_mean is None:
        raise ValueError(
            f"batch_norm has to be in eval mode and to have running statistics: {batch_norm}"
        )
    if len(layer.weight) != batch_norm.num_features:
        outputs = f"{batch_norm.num_features} outputs, as batch_norm has channels"
        raise ValueError(f"layer has to have {outputs}, but got {layer}")
    folded = copy.deepcopy(layer)
    mean = batch_norm.running_mean
    scale = (batch_norm.running_var + batch_norm.eps).rsqrt()  # (C,)
    b = torch.zeros_like(mean) if layer.bias is None else layer.bias
    bias = torch.zeros_like(mean)
    if batch_norm.affine:
        scale, bias = batch_norm.weight * scale, batch_norm.bias
    folded.weight.mul_(scale.view(-1, *[1] * (layer.weight.ndim - 1)))  # (C, ...)
    folded.bias = nn.Parameter((b - mean) * scale + bias)
    return folded
