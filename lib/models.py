"""The networks that the course trains, with starting weights from an explicit generator."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn

from lib.device import check_int


def mlp(
    sizes: Sequence[int],
    activation: Callable[[], nn.Module] = nn.ReLU,
    *,
    norm: Callable[[int], nn.Module] | None = None,
    dropout: float = 0.0,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """Return a multilayer perceptron: Linear, [norm], activation, [Dropout] per hidden layer,
    then a plain Linear.

    Starting weights are bit for bit those that torch draws by default when its global
    generator is in the same state, U(-1/sqrt(fan_in), 1/sqrt(fan_in)), and lie on the CPU.

    Args:
        sizes: number of features at each layer, input and output included; maps (N, sizes[0])
            to (N, sizes[-1]).
        activation: builds an activation, e.g. ``nn.ReLU``.
        norm: builds a normalization from a number of features, e.g. ``nn.BatchNorm1d``.
        dropout: probability in [0, 1) that a hidden unit is dropped; 0 adds no layer.
        generator: CPU generator to draw from; default: torch's global one, as in torch.

    Raises:
        ValueError: fewer than two sizes, a size below 1, ``dropout`` outside [0, 1), or a
            generator that is not on the CPU.
        TypeError: ``sizes`` holds something else than ints, or ``activation`` or ``norm`` is
            not a class or function that builds a module.

    Example::

        >>> model = mlp([64, 100, 10], norm=nn.BatchNorm1d, generator=generator(0))
    """
    sizes = [check_int(f"sizes[{i}]", size, 1) for i, size in enumerate(sizes)]
    if len(sizes) < 2:
        raise ValueError(f"sizes has to hold an input and an output size, but got {sizes}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout probability has to be in [0, 1), but got {dropout}")
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes[:-1]):
        layers.append(_drawn(nn.Linear, fan_in, fan_out, generator=generator))
        if norm is not None:
            layers.append(_built("norm", norm, fan_out))
        layers.append(_built("activation", activation))
        if dropout:
            layers.append(nn.Dropout(dropout))
    layers.append(_drawn(nn.Linear, sizes[-2], sizes[-1], generator=generator))
    return nn.Sequential(*layers)


def convnet(
    side: int,
    num_classes: int = 10,
    *,
    channels: tuple[int, int] = (16, 32),
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """Return two blocks of 3x3 convolution, ReLU and 2x2 max-pooling, then a Linear layer.

    Args:
        side: side of the square gray images; maps flat (N, side * side) to (N, num_classes).
        num_classes: number of outputs.
        channels: channels after the first and the second convolution.
        generator: CPU generator for the starting weights, as in `mlp`.

    Raises:
        ValueError: ``side`` below 4 (nothing would survive two poolings), ``num_classes`` or
            a channel count below 1, or a generator that is not on the CPU.
    """
    side = check_int("side", side, 4)
    check_int("num_classes", num_classes, 1)
    if len(channels) != 2:
        raise ValueError(f"channels has to hold two numbers, but got {channels}")
    c1, c2 = (check_int(f"channels[{i}]", c, 1) for i, c in enumerate(channels))
    return nn.Sequential(
        nn.Unflatten(1, (1, side, side)),  # (N, side * side) -> (N, 1, side, side)
        _drawn(nn.Conv2d, 1, c1, kernel_size=3, padding=1, generator=generator),
        nn.ReLU(),
        nn.MaxPool2d(2),  # (N, c1, side // 2, side // 2)
        _drawn(nn.Conv2d, c1, c2, kernel_size=3, padding=1, generator=generator),
        nn.ReLU(),
        nn.MaxPool2d(2),  # (N, c2, side // 4, side // 4)
        nn.Flatten(),
        _drawn(nn.Linear, c2 * (side // 4) ** 2, num_classes, generator=generator),
    )


def num_parameters(model: nn.Module) -> int:
    """Return how many numbers in ``model`` are trainable; shared ones count once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _drawn(layer: type[nn.Module], *args, generator: torch.Generator | None, **kwargs):
    """Build a layer with torch's default starting weights, drawn from ``generator``."""
    if generator is not None and generator.device.type != "cpu":
        raise ValueError(f"generator has to be on the CPU, but got one on {generator.device}")
    # Built empty, because reset_parameters would draw from torch's global generator.
    module = nn.utils.skip_init(layer, *args, **kwargs)
    nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
    bound = 1 / math.sqrt(module.weight[0].numel())
    nn.init.uniform_(module.bias, -bound, bound, generator=generator)
    return module


def _built(name: str, factory: Callable[..., nn.Module], *args: int) -> nn.Module:
    """Call a factory given by the user and check that it built a module."""
    message = (
        f"{name} has to be a class or function that builds a module, such as nn.ReLU or "
        f"nn.BatchNorm1d, but got {factory!r}"
    )
    if isinstance(factory, nn.Module) or not callable(factory):
        raise TypeError(message)
    try:
        module = factory(*args)
    except TypeError as error:
        raise TypeError(message) from error
    if not isinstance(module, nn.Module):
        raise TypeError(message)
    return module
