"""Noise for networks that train as one batched program.

Under `torch.func.vmap` one stream of random numbers would serve all networks, so that a
network's noise would depend on its company. Here noise is a function of who draws what: of a
network's seed, the training step, the draw within it, and the element.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_32_BITS = 0xFFFFFFFF


class Noise(TorchFunctionMode):
    """Lets torch's random functions draw from a network's own numbers inside ``vmap``.

    These are `rand`, `randn`, `rand_like`, `randn_like`, `bernoulli` and `F.dropout`, and
    with it `nn.Dropout`. Any other random function fails under ``vmap`` with torch's error.

    Args:
        seed: the network's, a 0-dimensional int64 tensor (batched by ``vmap``).
        step: of training.
    """

    def __init__(self, seed: Tensor, step: int):
        super().__init__()
        self.key, self.draw = _mix(seed + _mix(step)), 0

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        replacement = _REPLACED.get(func)
        if replacement is None:
            return func(*args, **(kwargs or {}))
        return replacement(self, *args, **(kwargs or {}))

    def uniform(self, shape: torch.Size) -> Tensor:
        """Return float32 numbers in [0, 1), others with each call."""
        self.draw += 1
        stream = _mix(self.key + _mix(self.draw))
        index = torch.arange(shape.numel(), device=self.key.device)
        bits = _mix(_mix(index) + stream)
        return ((bits >> 8) * 2.0**-24).view(shape)  # float32 holds 24 bits

    def rand(self, *size: int | torch.Size, generator=None, **like: Any) -> Tensor:
        return self.uniform(_shape(size)).to(**_known(like))

    def randn(self, *size: int | torch.Size, generator=None, **like: Any) -> Tensor:
        u = self.uniform(_shape(size)) + 2.0**-25  # never 0
        return (math.sqrt(2) * torch.erfinv(2 * u - 1)).to(**_known(like))

    def rand_like(self, x: Tensor, **like: Any) -> Tensor:
        return self.rand(x.shape, **{"dtype": x.dtype, **like})

    def randn_like(self, x: Tensor, **like: Any) -> Tensor:
        return self.randn(x.shape, **{"dtype": x.dtype, **like})

    def bernoulli(
        self, probabilities: Tensor, p: float | None = None, generator=None
    ) -> Tensor:
        if p is not None:
            probabilities = torch.full_like(probabilities, p)
        return (self.uniform(probabilities.shape) < probabilities).to(probabilities.dtype)

    def dropout(
        self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or p == 0:
            return x
        if p == 1:
            return x * 0
        return x * (self.uniform(x.shape) >= p) / (1 - p)


_REPLACED = {
    torch.rand: Noise.rand,
    torch.randn: Noise.randn,
    torch.rand_like: Noise.rand_like,
    torch.randn_like: Noise.randn_like,
    torch.bernoulli: Noise.bernoulli,
    Tensor.bernoulli: Noise.bernoulli,
    F.dropout: Noise.dropout,
}


def _mix(x: Any) -> Any:
    """Hash 32-bit integers: to change one bit changes each bit of the result half of the time.

    Wellons' lowbias32, https://nullprogram.com/blog/2018/07/31/
    """
    x = x & _32_BITS
    x = (x ^ (x >> 16)) * 0x7FEB352D & _32_BITS
    x = (x ^ (x >> 15)) * 0x846CA68B & _32_BITS
    return x ^ (x >> 16)


def _shape(size: tuple) -> torch.Size:
    return torch.Size(size[0] if size and not isinstance(size[0], int) else size)


def _known(like: dict[str, Any]) -> dict[str, Any]:
    return {
        name: x for name, x in like.items() if name in ("dtype", "device") and x is not None
    }
