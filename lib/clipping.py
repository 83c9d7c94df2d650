"""Gradient clipping: a bound on the step where the loss is steep (Pascanu, Mikolov and Bengio,
2013, https://proceedings.mlr.press/v28/pascanu13.html).

Both functions change the gradients in place, between ``backward`` and ``step``. Arguments
and results are those of `torch.nn.utils`, without ``foreach``. Torch checks no argument; here
a bound that is negative or NaN raises ValueError, and what is no number or tensor TypeError.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale all gradients by one factor, so that their norm is at most ``max_norm``.

        g = g * min(1, max_norm / (norm + 1e-6))

    where norm is that of all gradients as one vector. The direction stays.

    Args:
        parameters: tensors; those without a gradient do not count.
        max_norm: the bound; infinity only measures.
        norm_type: p of the p-norm, above 0; infinity, or ``"inf"``, for the largest entry.
        error_if_nonfinite: raise RuntimeError, and change nothing, if norm is NaN or infinite.
            Otherwise NaN makes all gradients NaN; infinity makes the finite ones 0.

    Returns:
        The norm before clipping, of shape (); 0 if there is no gradient.

    Example::

        >>> loss.backward()
        >>> clip_grad_norm_(model.parameters(), max_norm=1.0)
        >>> optimizer.step()
    """
    max_norm = _bound("max_norm", max_norm)
    norm_type = _bound("norm_type", norm_type)
    if norm_type == 0:
        raise ValueError(f"norm_type has to be above 0, but got {norm_type}")
    grads = _gradients(parameters)
    if not grads:
        return torch.tensor(0.0)
    norms = [torch.linalg.vector_norm(grad, norm_type) for grad in grads]
    norms = torch.stack([norm.to(norms[0].device) for norm in norms])  # (len(grads),)
    total = torch.linalg.vector_norm(norms, norm_type)  # ()
    if error_if_nonfinite and not total.isfinite():
        raise RuntimeError(
            f"norm of the gradients has to be finite to clip it, but got {total}"
        )
    factor = (max_norm / (total + 1e-6)).clamp(max=1)  # no `if`, which would wait for a GPU
    for grad in grads:
        grad.mul_(factor.to(grad.device))
    return total


@torch.no_grad()
def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Clip each entry of the gradients to [-clip_value, clip_value]; NaN stays NaN.

    The direction may change: large entries shrink, small ones do not.

    Args:
        parameters: tensors; those without a gradient do not count.
        clip_value: the bound.

    Example::

        >>> clip_grad_value_(model.parameters(), clip_value=0.5)
    """
    clip_value = _bound("clip_value", clip_value)
    for grad in _gradients(parameters):
        grad.clamp_(-clip_value, clip_value)


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    for p in parameters:
        if not isinstance(p, Tensor):
            raise TypeError(f"parameters has to hold tensors, but got {p!r}")
    return [p.grad for p in parameters if p.grad is not None]


def _bound(name: str, value: float) -> float:
    try:
        x = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} has to be a number, but got {value!r}") from None
    if math.isnan(x) or x < 0:
        raise ValueError(f"{name} has to be at least 0, but got {x}")
    return x
