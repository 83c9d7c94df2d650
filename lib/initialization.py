"""Weight initialization: starting values at which signals keep their size through depth.

A rule fills a tensor in place, outside any graph, and returns it. Names, arguments and defaults
are those of `torch.nn.init`, and so is, from a generator in the same state, every bit drawn;
torch has no `lecun_*`, `initialize` and `lsuv_`. An empty tensor stays as it is.
Errors: TypeError for anything but float tensors, ValueError for arguments out of range.
"""

import math
from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Generator, Tensor, nn

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
Rng = Generator | None
_GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}
_GAINS |= {f"conv{kind}{d}d": 1.0 for kind in ("", "_transpose") for d in (1, 2, 3)}


def zeros_(tensor: Tensor, generator: Rng = None) -> Tensor:
    """Fill with 0: right for biases, while the units of a hidden layer would stay equal."""
    return constant_(tensor, 0)


def constant_(tensor: Tensor, val: float, generator: Rng = None) -> Tensor:
    """Fill with ``val``. Like every rule it takes a generator; it draws nothing from it."""
    _values(tensor).fill_(val)
    return tensor


def uniform_(tensor: Tensor, a: float = 0, b: float = 1, generator: Rng = None) -> Tensor:
    """Draw from U(a, b), which has mean (a + b) / 2 and std (b - a) / sqrt(12)."""
    if not -math.inf < a <= b < math.inf:
        raise ValueError(f"expected finite a <= b, but got a={a}, b={b}")
    _values(tensor).uniform_(a, b, generator=generator)
    return tensor


def normal_(tensor: Tensor, mean: float = 0, std: float = 1, generator: Rng = None) -> Tensor:
    """Draw from N(mean, std²)."""
    _values(tensor, std=std).normal_(mean, std, generator=generator)
    return tensor


def trunc_normal_(
    tensor: Tensor, mean: float = 0, std: float = 1, a: float = -2, b: float = 2,
    generator: Rng = None,
) -> Tensor:  # fmt: skip
    """Draw from N(mean, std²) until the value lies in [a, b]; by default this has std 0.88.

    Where that seldom happens, draw x from U(a, b) until it is kept, with probability
    density(x) / max(density). As in torch, a and b are values and no multiples of std.
    """
    values = _values(tensor, std=std)
    if std == 0 or not a <= b:
        raise ValueError(f"expected std > 0 and a <= b, but got std={std}, a={a}, b={b}")
    to_a, to_b = (math.erf((x - mean) / std / math.sqrt(2)) / 2 for x in (a, b))
    if to_b - to_a > 0.3:  # the probability of [a, b]
        values.normal_(mean, std, generator=generator)
        while (outside := (values < a) | (values > b)).any():
            x = torch.empty_like(values).normal_(mean, std, generator=generator)
            values.copy_(torch.where(outside, x, values))
        return tensor
    peak = -0.5 * ((max(a, min(mean, b)) - mean) / std) ** 2  # log density, up to a constant
    missing = torch.ones_like(values, dtype=torch.bool)
    while missing.any():
        x = uniform_(torch.empty_like(values), a, b, generator)
        values.copy_(torch.where(missing, x, values))
        u = torch.empty_like(values).uniform_(generator=generator)
        missing &= u.log() > -0.5 * ((x - mean) / std) ** 2 - peak
    return tensor


def fans(weight: Tensor) -> tuple[int, int]:
    """Return (fan_in, fan_out): how many inputs an output has, and outputs an input.

    Of a weight (out, in / groups, *kernel) these are the channels times the area of the kernel.
    As in torch, fan_out counts all groups: an input reaches fan_out / groups outputs.

    >>> fans(torch.empty(16, 3, 5, 5))  # Conv2d(3, 16, kernel_size=5)
    (75, 400)
    """
    if _values(weight).ndim < 2:
        raise ValueError(f"expected a weight of at least 2 dimensions, but got {weight.ndim}")
    return math.prod(weight.shape[1:]), len(weight) * math.prod(weight.shape[2:])


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the factor on std that gives back what an activation takes from the signal.

    sqrt(2) for relu, as E[relu(z)²] = E[z²] / 2; sqrt(2 / (1 + param²)) for leaky_relu, whose
    slope below 0 is ``param``, default 0.01; 5/3 for tanh and 3/4 for selu, by experience; 1
    for linear, conv1d, ... and for sigmoid, although its slope is at most 1/4.
    """
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else float(param)) ** 2))
    if nonlinearity not in _GAINS:
        raise ValueError(f"expected one of {[*_GAINS, 'leaky_relu']}, but got {nonlinearity!r}")
    return _GAINS[nonlinearity]


def xavier_normal_(tensor: Tensor, gain: float = 1, generator: Rng = None) -> Tensor:
    """Draw from N(0, std²), std = gain sqrt(2 / (fan_in + fan_out)) (Glorot & Bengio, 2010)."""
    fan_in, fan_out = fans(_values(tensor, gain=gain))
    return normal_(tensor, 0, gain * math.sqrt(2 / (fan_in + fan_out or 1)), generator)


def xavier_uniform_(tensor: Tensor, gain: float = 1, generator: Rng = None) -> Tensor:
    """As `xavier_normal_`, from U(-bound, bound), bound = gain sqrt(6 / (fan_in + fan_out))."""
    fan_in, fan_out = fans(_values(tensor, gain=gain))
    bound = math.sqrt(3) * (gain * math.sqrt(2 / (fan_in + fan_out or 1)))
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Rng = None,
) -> Tensor:  # fmt: skip
    """Draw from N(0, std²), std = gain / sqrt(fan) (He, Zhang, Ren & Sun, 2015).

    The mode "fan_in" keeps the size of the signal, "fan_out" that of the gradient, and Xavier
    lies between. ``a`` is the slope of leaky_relu below 0; with the default 0 it is relu.
    """
    return normal_(tensor, 0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def kaiming_uniform_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Rng = None,
) -> Tensor:  # fmt: skip
    """As `kaiming_normal_`, from U(-bound, bound), bound = gain sqrt(3 / fan)."""
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def lecun_normal_(tensor: Tensor, generator: Rng = None) -> Tensor:
    """Draw from N(0, 1 / fan_in) (LeCun, Bottou, Orr & Müller, 1998); Keras truncates it."""
    return kaiming_normal_(tensor, nonlinearity="linear", generator=generator)


def lecun_uniform_(tensor: Tensor, generator: Rng = None) -> Tensor:
    """As `lecun_normal_`, from U(-bound, bound), bound = sqrt(3 / fan_in)."""
    return kaiming_uniform_(tensor, nonlinearity="linear", generator=generator)


def orthogonal_(tensor: Tensor, gain: float = 1, generator: Rng = None) -> Tensor:
    """Draw W (out, fan_in) with Wᵀ W = gain² I, or W Wᵀ = gain² I if wide (Saxe et al., 2014).

    A square W of gain 1 keeps the length of every vector, however many follow each other.
    """
    fan_in, values = fans(tensor)[0], _values(tensor, gain=gain)
    Z = values.new_empty(len(values), fan_in).normal_(generator=generator)
    Q, R = torch.linalg.qr(Z if len(Z) >= fan_in else Z.T)
    Q *= R.diagonal().sign()  # makes all such matrices equally likely (Mezzadri, 2007)
    values.copy_((Q if len(Z) >= fan_in else Q.T).view_as(values)).mul_(gain)
    return tensor


def initialize(
    model: nn.Module, weight_rule: Callable, bias_rule: Callable = zeros_, generator: Rng = None
) -> nn.Module:
    """Call ``rule(tensor, generator=generator)`` on weight and bias of each of `LAYERS`."""
    layers = [module for module in model.modules() if isinstance(module, LAYERS)]
    if not layers:
        raise ValueError(f"expected a model with linear or convolutional layers, got {model}")
    for layer in layers:
        weight_rule(layer.weight, generator=generator)
        if layer.bias is not None:
            bias_rule(layer.bias, generator=generator)
    return model


@torch.no_grad()
def lsuv_(
    model: nn.Module, X: Tensor, *, tol: float = 0.1, max_iter: int = 10, generator: Rng = None
) -> nn.Module:
    """Scale orthonormal weights until the outputs of each layer have variance 1 on a batch X.

    In the order of ``model(X)``, W becomes W / sqrt(Var[z]) while |Var[z] - 1| > tol, at most
    ``max_iter`` times, with z = W x of all units and samples (Mishkin & Matas, 2016). Biases
    become 0. The model runs in evaluation mode; if it uses a layer twice, the last use counts.
    """
    _values(X, tol=tol, max_iter=max_iter)
    initialize(model, orthogonal_, generator=generator)

    def scale(layer, args, kwargs, z):
        for left in range(max_iter, -1, -1):
            variance = z.var(correction=0).item()
            if abs(variance - 1) <= tol:
                return z
            if not (left and 0 < variance < math.inf):
                break
            layer.weight.div_(math.sqrt(variance))
            z = layer.forward(*args, **kwargs)
        raise ValueError(f"expected outputs of variance 1 of {layer}, but got {variance}")

    with ExitStack() as stack:
        for module in model.modules():
            stack.callback(setattr, module, "training", module.training)
            if isinstance(module, LAYERS):
                stack.enter_context(module.register_forward_hook(scale, with_kwargs=True))
        model.eval()(X)
    return model


def _kaiming_std(tensor, a, mode, nonlinearity):
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"expected mode to be 'fan_in' or 'fan_out', but got {mode!r}")
    return calculate_gain(nonlinearity, a) / math.sqrt(fans(tensor)[mode == "fan_out"] or 1)


def _values(tensor, **scales):
    if not (isinstance(tensor, Tensor) and tensor.is_floating_point()):
        raise TypeError(f"expected a float tensor, but got {getattr(tensor, 'dtype', tensor)}")
    for name, value in scales.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"expected finite {name} >= 0, but got {value}")
    return tensor.detach()
