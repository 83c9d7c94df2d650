"""Relatives of batch normalization, whose statistics are those of one sample.

So a batch of one will do, and training and evaluation do the same. Names, arguments, defaults
and saved states are those of torch. Errors: ValueError for an argument or a shape that does not
fit, TypeError for an input that is neither float32 nor float64, or not as the parameters.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lib.device import check_int

DTYPES = torch.float32, torch.float64


def standardize(x: Tensor, dims: Sequence[int], eps: float) -> Tensor:
    """Return (x - mean) / sqrt(var + eps), with mean and (biased) variance over ``dims``."""
    centred = x - x.mean(dims, keepdim=True)
    return centred * (centred.square().mean(dims, keepdim=True) + eps).rsqrt()


class LayerNorm(nn.Module):
    """Layer normalization (Ba, Kiros and Hinton, 2016, https://arxiv.org/abs/1607.06450).

    y = weight x_hat + bias, where x_hat is x, standardized over its last dimensions.

    Args:
        normalized_shape: the last dimensions D of x (..., *D), or an int if there is one.
        eps: added to the variance.
        elementwise_affine: whether to learn weight and bias, (*D,).
        bias: False learns the weight only.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.normalized_shape, self.eps = _shape(normalized_shape), _checked_eps(eps)
        ones = torch.ones(self.normalized_shape, device=device, dtype=dtype)
        self.weight = nn.Parameter(ones) if elementwise_affine else None
        learn_bias = elementwise_affine and bias
        self.bias = nn.Parameter(torch.zeros_like(ones)) if learn_bias else None

    def forward(self, x: Tensor) -> Tensor:
        dims = _last_dims(x, self.normalized_shape, self.weight)
        return _affine(standardize(x, dims, self.eps), self.weight, self.bias)


class RMSNorm(nn.Module):
    """Root mean square normalization (Zhang and Sennrich, 2019,
    https://arxiv.org/abs/1910.07467): layer normalization without the mean.

    y = weight x / sqrt(mean(x²) + eps)

    Args:
        normalized_shape: the last dimensions D of x (..., *D), or an int if there is one.
        eps: added to the mean square; None for ``torch.finfo(x.dtype).eps``.
        elementwise_affine: whether to learn the weight, (*D,).
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        self.eps = None if eps is None else _checked_eps(eps)
        ones = torch.ones(self.normalized_shape, device=device, dtype=dtype)
        self.weight = nn.Parameter(ones) if elementwise_affine else None

    def forward(self, x: Tensor) -> Tensor:
        dims = _last_dims(x, self.normalized_shape, self.weight)
        eps = torch.finfo(x.dtype).eps if self.eps is None else self.eps
        x_hat = x * (x.square().mean(dims, keepdim=True) + eps).rsqrt()
        return _affine(x_hat, self.weight, None)


class GroupNorm(nn.Module):
    """Group normalization (Wu and He, 2018, https://arxiv.org/abs/1803.08494).

    y = weight x_hat + bias, where x_hat is x (N, C, ...), standardized over each group of
    C / num_groups neighbouring channels and all their positions.

    Args:
        num_groups: number of groups; it divides num_channels.
        num_channels: channels C.
        eps: added to the variance.
        affine: whether to learn weight and bias, (C,).
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_int("num_groups", num_groups, 1)
        if check_int("num_channels", num_channels, 1) % num_groups:
            got = f"num_channels={num_channels}, num_groups={num_groups}"
            raise ValueError(f"num_channels has to be divisible by num_groups, but got {got}")
        self.num_groups, self.num_channels = num_groups, num_channels
        self.eps, self.affine = _checked_eps(eps), affine
        ones = torch.ones(num_channels, device=device, dtype=dtype)
        self.weight = nn.Parameter(ones) if affine else None
        self.bias = nn.Parameter(torch.zeros_like(ones)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[1] != self.num_channels:
            expected = f"(N, {self.num_channels}, ...)"
            raise ValueError(f"expected input of shape {expected}, but got {tuple(x.shape)}")
        _check_dtype(x, self.weight)
        groups = x.unflatten(1, (self.num_groups, -1))  # (N, G, C / G, ...)
        x_hat = standardize(groups, list(range(2, groups.ndim)), self.eps).flatten(1, 2)
        if not self.affine:
            return x_hat
        shape = (-1, *[1] * (x.ndim - 2))  # (C, 1, ...)
        return _affine(x_hat, self.weight.view(shape), self.bias.view(shape))


def _affine(x_hat, weight, bias):
    y = x_hat if weight is None else weight * x_hat
    return y if bias is None else y + bias


def _shape(normalized_shape):
    sizes = normalized_shape if isinstance(normalized_shape, Sequence) else [normalized_shape]
    sizes = [check_int("normalized_shape", size, 1) for size in sizes]
    if not sizes:
        raise ValueError("normalized_shape has to hold a size, but got none")
    return tuple(sizes)


def _checked_eps(eps):
    if not 0 <= eps < math.inf:
        raise ValueError(f"eps has to be finite and at least 0, but got {eps}")
    return eps


def _last_dims(x, shape, weight):
    """Return the dimensions of x to average over, if these are of that shape."""
    if tuple(x.shape[-len(shape) :]) != shape:
        expected = f"(*, {', '.join(map(str, shape))})"
        raise ValueError(f"expected input of shape {expected}, but got {tuple(x.shape)}")
    _check_dtype(x, weight)
    return list(range(-len(shape), 0))


def _check_dtype(x, weight):
    if x.dtype not in DTYPES or (weight is not None and weight.dtype != x.dtype):
        expected = "float32 or float64" if weight is None else f"{weight.dtype} as the weight"
        raise TypeError(f"expected input of {expected}, but got {x.dtype}")
