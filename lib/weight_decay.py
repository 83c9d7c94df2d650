"""Weight decay and its relatives: penalties, decoupled decay, proximal steps and max-norm.

Three ways to keep weights small, by where they act:

- in the loss: `l2_penalty`, `l1_penalty`, `elastic_net_penalty`, `activity_penalty`. In
  `lib.train` the loss may reach for the weights: ``lambda y_hat, y: F.cross_entropy(y_hat, y) +
  l1_penalty(weights, 1e-3)``. In `lib.study` it sees outputs and targets only.
- in the step: ``weight_decay`` of any optimizer, and `SGDW`, `SubgradientSGD`, `ProximalSGD`.
  They run in both. A study decays all that is trained, biases too; elsewhere `decay_groups`
  spares some.
- after the step: `max_norm_`.

Strengths are those of torch: the L2 penalty is weight_decay / 2 * sum(w^2), so that its
gradient is weight_decay * w. Errors: ValueError for strengths that are negative, infinite or
NaN, TypeError for anything but numbers, tensors and modules where these belong.
"""

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lib.device import check_numbers
from lib.optimizer import Number, plus
from lib.optimizers import SGD, Optimizer

Weights = Tensor | Iterable[Tensor]


# --- in the loss ---


def l2_penalty(weights: Weights, weight_decay: float) -> Tensor:
    """Return weight_decay / 2 * sum(w^2), of shape () (Krogh and Hertz, 1991,
    https://papers.nips.cc/paper/1991/hash/8eefcfdf5990e441f0fb6f3fad709e21-Abstract.html).

    Its gradient is weight_decay * w, so that a step of SGD equals one with ``weight_decay`` and
    no penalty. The ridge of scikit-learn has ``weight_decay = alpha / N`` beside the loss
    ``sum((y_hat - y)^2) / (2 N)``.

    Args:
        weights: a tensor, or several.

    Example::

        >>> loss = F.cross_entropy(model(X), y) + l2_penalty([model.weight], 1e-4)
    """
    check_numbers(weight_decay=weight_decay)
    return weight_decay / 2 * sum(w.square().sum() for w in _tensors(weights))


def l1_penalty(weights: Weights, l1: float) -> Tensor:
    """Return l1 * sum(abs(w)), of shape () (Tibshirani, 1996,
    https://doi.org/10.1111/j.2517-6161.1996.tb02080.x).

    Its gradient is l1 * sign(w). At 0, where any number from -l1 to l1 is a subgradient,
    autograd takes 0. Steps along it jump over 0 and seldom hit it; see `ProximalSGD`.
    """
    check_numbers(l1=l1)
    return l1 * sum(w.abs().sum() for w in _tensors(weights))


def elastic_net_penalty(weights: Weights, l1: float, weight_decay: float) -> Tensor:
    """Return the sum of both penalties, of shape () (Zou and Hastie, 2005,
    https://doi.org/10.1111/j.1467-9868.2005.00503.x).

    The elastic net of scikit-learn has ``l1 = alpha * l1_ratio`` and ``weight_decay = alpha *
    (1 - l1_ratio)`` beside the loss ``sum((y_hat - y)^2) / (2 N)``, half of `F.mse_loss`.
    """
    weights = _tensors(weights)
    return l1_penalty(weights, l1) + l2_penalty(weights, weight_decay)


def activity_penalty(outputs: Tensor, l1: float) -> Tensor:
    """Return l1 * sum(abs(outputs)) / N, of shape (), for outputs (N, ...) of a layer.

    A mean over samples, as ``activity_regularizer=l1(...)`` of Keras. It makes outputs sparse,
    and is no weight decay: where the input is 0 it does not touch the weights.
    """
    _check_float("outputs", outputs)
    if outputs.ndim == 0 or len(outputs) == 0:
        raise ValueError(f"outputs has to be (N, ...), but got shape {tuple(outputs.shape)}")
    return l1_penalty(outputs, l1) / len(outputs)


def weight_decay_of_keras(l2: float) -> float:
    """Return the ``weight_decay`` that equals ``kernel_regularizer=l2(...)`` of Keras, 2 * l2.

    Keras adds l2 * sum(w^2) to the loss, without 1/2, so that the gradient is 2 * l2 * w. That
    is for the kernel of one layer; in torch all parameters of the group decay. Optimizers that
    decouple the decay, `SGDW` with momentum and AdamW, do something else with it.

    >>> weight_decay_of_keras(0.01)
    0.02
    """
    check_numbers(l2=l2)
    return 2 * l2


# --- in the step ---


class SGDW(SGD):
    """SGD with decoupled weight decay (Loshchilov and Hutter, 2019,
    https://arxiv.org/abs/1711.05101).

    The decay does not pass through the velocity v:

        v = momentum * v + (1 - dampening) * g,    w = w - lr * weight_decay * w - lr * v

    Without momentum this is `SGD`. As in `lib.optimizers.AdamW` the decay is multiplied by lr.

    Args:
        lr, momentum, dampening, nesterov: as in `SGD`.
        weight_decay: share of w, times lr, that a step takes away.
    """

    @staticmethod
    def update(grad, state, param, *, lr, weight_decay, **hyper):
        change, state = SGD.update(grad, state, param, lr=lr, weight_decay=0.0, **hyper)
        return plus(change, param, -lr * weight_decay), state


class ProximalSGD(Optimizer):
    """Proximal gradient steps, ISTA (Daubechies, Defrise and De Mol, 2004,
    https://doi.org/10.1002/cpa.20042; Beck and Teboulle, 2009,
    https://doi.org/10.1137/080716542).

    A step of SGD for the loss, then the exact minimizer for the L1 penalty near by:

        w = soft_threshold(w - lr * (g + weight_decay * w), lr * l1)

    Weights become exactly 0 and stay there while abs(g) <= l1. It minimizes loss + l1 *
    sum(abs(w)) + weight_decay / 2 * sum(w^2), the elastic net, for an lr below 2 / (largest
    curvature of the smooth part). There is no momentum: torch's velocity would not know of the
    threshold, and the weights would settle where l1 is (1 - momentum) times as large.

    Args:
        lr: learning rate.
        l1: strength of the L1 penalty; at 0 this is `SGD`.
        weight_decay: multiple of w that is added to g (L2 penalty).

    Example::

        >>> result = study({"sparse": dict(l1=1e-3), "plain": {}}, optimizer=ProximalSGD, ...)
    """

    def __init__(self, params, lr=1e-3, l1=0.0, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "l1": l1, "weight_decay": weight_decay})

    @staticmethod
    def check(*, lr, l1, weight_decay):
        check_numbers(lr=lr, l1=l1, weight_decay=weight_decay)

    @staticmethod
    def update(grad, state, param, *, lr, l1, weight_decay):
        stepped = plus(param, plus(grad, param, weight_decay), -lr)
        return soft_threshold(stepped, lr * l1) - param, state  # w + (0 - w) is exactly 0


class SubgradientSGD(ProximalSGD):
    """SGD on a loss with an L1 term, for comparison: weights hover around 0.

        w = w - lr * (g + l1 * sign(w) + weight_decay * w)

    Arguments are those of `ProximalSGD`.
    """

    @staticmethod
    def update(grad, state, param, *, lr, l1, weight_decay):
        return -lr * plus(plus(grad, param.sign(), l1), param, weight_decay), state


def soft_threshold(x: Tensor, threshold: Number) -> Tensor:
    """Return sign(x) * max(abs(x) - threshold, 0), the w that minimizes
    (w - x)^2 / 2 + threshold * abs(w) for each entry. `F.softshrink`.

    Args:
        x: any shape.
        threshold: at least 0, or a tensor of such numbers that broadcasts against x.

    >>> soft_threshold(torch.tensor([-3.0, 0.5, 2.0]), 1.0)
    tensor([-2.,  0.,  1.])
    """
    _check_float("x", x)
    if not isinstance(threshold, Tensor):
        check_numbers(threshold=threshold)
    return x - x.clamp(-threshold, threshold)


def decay_groups(
    model: nn.Module, weight_decay: float, spare: tuple[type[nn.Module], ...] = ()
) -> list[dict]:
    """Return two parameter groups for an optimizer: what decays, and what is spared.

    Spared are biases, by name; parameters of fewer than two dimensions; and all parameters of
    a normalization, known by its class or a base being called ...Norm, ...Norm1d, ...Norm2d or
    ...Norm3d. All else decays, also an embedding: it is a matrix of weights, and its rows decay
    even in steps that do not use them. To spare it, give ``spare=(nn.Embedding,)``. Each
    parameter stands once; one that several modules share is spared if one of them spares it.

    Args:
        model: its parameters, in their order, also the frozen ones.
        weight_decay: of the first group; 0 in the second.
        spare: further classes of modules whose own parameters are spared.

    Example::

        >>> optimizer = AdamW(decay_groups(model, 0.1), lr=1e-3)
    """
    check_numbers(weight_decay=weight_decay)
    if not isinstance(model, nn.Module):
        raise TypeError(f"model has to be a module, but got {type(model)}")
    spared = set()
    for module in model.modules():
        whole = isinstance(module, spare) or _is_norm(module)
        for name, p in module.named_parameters(recurse=False):
            if whole or p.ndim < 2 or re.search("(^|_)bias(_|$)", name):
                spared.add(p)
    params = list(model.parameters())
    if not params:
        raise ValueError(f"model has to have parameters, but got {model}")
    return [
        {"params": [p for p in params if p not in spared], "weight_decay": weight_decay},
        {"params": [p for p in params if p in spared], "weight_decay": 0.0},
    ]


# --- after the step ---


@torch.no_grad()
def max_norm_(weight: Tensor, max_norm: float, dim: int = 0) -> Tensor:
    """Project each unit's weights onto the ball of radius ``max_norm``, in place (Srivastava et
    al., 2014, https://jmlr.org/papers/v15/srivastava14a.html). As `torch.renorm` with p=2.

        w = w * min(1, max_norm / norm(w))

    Args:
        weight: two or more dimensions, such as (out, in) or (out, in, height, width).
        max_norm: the bound on the norm of what enters a unit.
        dim: dimension of the units; their norms are taken over all others.

    Example::

        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)  # in any loop, also ours
        >>> optimizer.register_step_post_hook(lambda *_: max_norm_(layer.weight, 3.0))
    """
    _check_float("weight", weight)
    check_numbers(max_norm=max_norm)
    if weight.ndim < 2:
        raise ValueError(f"weight has to have two dimensions or more, got {weight.ndim}")
    if not -weight.ndim <= dim < weight.ndim:
        raise IndexError(f"dim has to be a dimension of {tuple(weight.shape)}, but got {dim}")
    others = [d for d in range(weight.ndim) if d != dim % weight.ndim]
    norm = torch.linalg.vector_norm(weight, dim=others, keepdim=True)  # (out, 1, ...)
    return weight.mul_(torch.where(norm > max_norm, max_norm / norm, 1))


def _is_norm(module: nn.Module) -> bool:
    return any(re.search(r"Norm([123]d)?$", kind.__name__) for kind in type(module).__mro__)


def _tensors(weights: Weights) -> list[Tensor]:
    if not isinstance(weights, Iterable):
        raise TypeError(f"weights has to be a tensor or several, but got {weights!r}")
    weights = [weights] if isinstance(weights, Tensor) else list(weights)
    if not weights:
        raise ValueError("weights has to hold at least one tensor, but got none")
    for i, w in enumerate(weights):
        _check_float(f"weights[{i}]", w)
    return weights


def _check_float(name: str, x: Tensor) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else repr(x)
        raise TypeError(f"{name} has to be a float tensor, but got {got}")
