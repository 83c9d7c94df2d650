"""Diagnostics: what one batch does inside a network, before you train it for hours.

`diagnose` sends a batch forward and, given targets, backward. Afterwards the network is as it
was: parameters, buffers, gradients, modes, attributes, random states.
"""

import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.recorder import (
    ACTIVATIONS,
    CHANNELS,
    FEATURES,
    Recorder,
    inventory,
    is_float,
    root_mean_square,
    tensors_in,
    untouched,
)
from lib.report import Layer, Report, Weight, first_to_last

__all__ = [
    "ACTIVATIONS",
    "CHANNELS",
    "DEAD",
    "DRIFT",
    "FEATURES",
    "LOSS",
    "SATURATED",
    "UPDATE",
    "Layer",
    "Report",
    "Weight",
    "diagnose",
]

# From where on a number becomes a sentence in `Report.problems`.
DEAD = 0.5  # share of units; with n values per unit, chance adds 0.5**n
SATURATED = 0.3  # share of outputs where the slope is below 6 % of the steepest
DRIFT = 1e3  # factor between the first and the last layer with weights
LOSS = 2.0  # above ln K
UPDATE = 1e-6, 0.1  # change of a weight matrix in one step / its size


def diagnose(
    model: nn.Module,
    X: Any,
    y: Any = None,
    *,
    loss_fn: Callable[[Tensor, Any], Tensor] = F.cross_entropy,
    lr: float | None = None,
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None,
    output: Callable[[Any], Tensor] | None = None,
) -> Report:
    """Return what one batch does in ``model``, in the mode it is in, and leave it as it was.

    Args:
        X: a batch, or a tuple of arguments, on the model's device.
        y: targets; without them there is no loss and no gradient.
        loss_fn: takes outputs and targets, returns one number.
        lr: learning rate of plain gradient descent, for `Weight.update`.
        optimizer: instead of ``lr``; builds an optimizer, whose first step a copy takes.
        output: picks the tensor for ``loss_fn`` from what the model returns.

    Raises:
        TypeError, ValueError: arguments that do not fit, or a layer that is still lazy.
        Errors of the model itself pass through; it is restored all the same.

    Example::

        >>> diagnose(mlp([64, 100, 10]), X, y, lr=0.1).problems
        []
    """
    args = X if isinstance(X, tuple) else (X,)
    modules, names, problems = inventory(model)
    _check(args, y, names, lr, optimizer)
    free, known = [w for w in names if w.requires_grad], set(model.parameters())
    recorder, loss, guess, grads, copies = Recorder(modules), None, None, {}, {}
    with untouched(modules, names, args):
        try:
            y_hat = recorder.forward(model, args)
            if y is not None:
                loss, guess = _loss(loss_fn, y_hat if output is None else output(y_hat), y)
                if loss.requires_grad and free:  # unlike backward, leaves every .grad alone
                    grads = dict(zip(free, torch.autograd.grad(loss, free, allow_unused=True)))
        finally:
            for handle in recorder.handles:
                handle.remove()
        grads = {w: g.detach() for w, g in grads.items() if g is not None}
        if lr is not None:
            optimizer = partial(torch.optim.SGD, lr=lr)
        if optimizer is not None and not known.isdisjoint(grads):
            copies = {w: nn.Parameter(_double(w)) for w in grads if w in known}
            for w, copy in copies.items():
                copy.grad = _double(grads[w])
            optimizer([*copies.values()]).step()
    weights = []
    for w, (name, *also) in names.items():
        state = "unregistered" * (w not in known) or "frozen" * (not w.requires_grad)
        rms, grad = root_mean_square(w), root_mean_square(grads[w]) if w in grads else None
        update = root_mean_square(copies[w] - w) / rms if w in copies and rms else None
        weights.append(Weight(name, tuple(also), tuple(w.shape), state, rms, grad, update))
    layers, calls, loss = [], Counter(), None if loss is None else loss.item()
    for row in recorder.rows:
        calls[row["name"]] += 1
        number = f" #{calls[row['name']]}" if calls[row["name"]] > 1 else ""
        layers.append(Layer(**row | {"name": row["name"] + number}))
    problems += _problems(args, layers, weights, loss, guess, recorder.called)
    return Report(layers, weights, problems, loss, guess)


def _loss(loss_fn, y_hat, y):
    """Return the loss, and ln K where it is the cross-entropy of K classes."""
    if not isinstance(y_hat, Tensor):
        got = f"the model returned a {type(y_hat).__name__}"
        raise TypeError(f"loss_fn needs a tensor, but {got}: use output=lambda out: out[...]")
    if isinstance(y, Tensor) and y.is_floating_point() and y.shape != y_hat.shape:
        got = f"{tuple(y_hat.shape)}, but got {tuple(y.shape)}"
        raise ValueError(f"y has to have the shape of the model's output, {got}")
    loss = loss_fn(y_hat, y)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = tuple(loss.shape) if isinstance(loss, Tensor) else loss
        raise ValueError(f"loss_fn has to return one number in a tensor, but got {got}")
    kind = getattr(loss_fn, "__name__", type(loss_fn).__name__)
    entropy = kind in ("cross_entropy", "nll_loss", "CrossEntropyLoss", "NLLLoss")
    mean = getattr(loss_fn, "reduction", "mean") == "mean"
    return loss, math.log(y_hat.shape[1]) if entropy and mean and y_hat.ndim > 1 else None


def _problems(args, layers, weights, loss, guess, called):
    """Yield a sentence for each thing that a reader should look at."""
    for x in filter(is_float, tensors_in(args)):
        if bad := int((~x.isfinite()).sum()):
            yield f"X: {bad} of {x.numel()} inputs are NaN or infinite"
    for v in [v for v in layers if not math.isfinite(v.rms)][:1]:
        yield f"{v.name}: the first layer with outputs that are NaN or infinite"
    for v in layers:
        chance = 0.5 ** (math.prod(v.shape) / v.units)
        if v.role == "activation" and v.dead > v.units * (DEAD + chance):
            yield f"{v.name}: {v.dead} of {v.units} units are zero on every sample (dead)"
        if v.saturated is not None and v.saturated > SATURATED:
            yield f"{v.name}: {v.saturated:.0%} of the outputs are saturated"
    for what, key, way in (("outputs", "rms", -1), ("gradients", "grad_rms", 1)):
        known = [v for v in layers if v.role == "weights" and getattr(v, key)][::way]
        ratio = first_to_last([getattr(v, key) for v in known]) or 1
        if 0 < ratio < 1 / DRIFT or DRIFT < ratio < math.inf:
            a, b = (f"{getattr(v, key):.1e} at {v.name}" for v in (known[0], known[-1]))
            yield f"{what} {'vanish' if ratio < 1 else 'explode'}: rms {a}, but {b}"
    if loss is not None and not math.isfinite(loss):
        yield f"loss: it is {loss}"
    if guess is not None and loss > guess + LOSS:
        k = round(math.exp(guess))
        yield f"loss: {loss:.3g}, but equal outputs for {k} classes cost ln {k} = {guess:.3g}"
    if loss is not None and not any(w.state == "" for w in weights):
        yield "model: no registered parameter requires a gradient"
    groups = {}  # (module, what is wrong) -> names of parameters
    for w in (w for w in weights if 0 not in w.shape):
        module, _, name = w.name.rpartition(".")
        module, why = module or "model", None
        if not math.isfinite(w.rms):
            why = "weights are NaN or infinite"
        elif loss is not None and w.state == "" and w.grad_rms is None:
            why = "no gradient, as forward never calls this layer"
            if module in called:
                why = "no gradient, as nothing leads from here to the loss (detach, no_grad?)"
        elif w.grad_rms == 0:
            why = "gradient is exactly 0"
        elif w.grad_rms is not None and not math.isfinite(w.grad_rms):
            why = "gradient is NaN or infinite"
        elif len(w.shape) > 1 and w.update and not UPDATE[0] <= w.update <= UPDATE[1]:
            why = f"one step changes this by {w.update:.1g} of its size"
        if why:
            groups.setdefault((module, why), []).append(name)
    for (module, why), names in groups.items():
        yield f"{module}: {why} ({', '.join(names)})"


def _check(args, y, names, lr, optimizer):
    devices = {str(w.device) for w in names}
    if not any(True for _ in tensors_in(args)):
        raise TypeError(f"X has to be a tensor or a tuple that holds one, but got {args}")
    for x in tensors_in(args):
        if x.numel() == 0:
            raise ValueError(f"X has to hold samples, but got shape {tuple(x.shape)}")
        if devices and str(x.device) not in devices:
            at = ", ".join(devices)
            raise ValueError(f"X has to be on the model's device, {at}, but is on {x.device}")
    if any(nn.parameter.is_lazy(w) for w in names):
        raise ValueError("model has lazy layers that lack a shape: call it on a batch first")
    if lr is not None and not 0 < lr < math.inf:
        raise ValueError(f"lr has to be positive and finite, but got {lr}")
    if (lr is not None) + (optimizer is not None) > (y is not None):
        raise ValueError("give lr or optimizer, not both, and only with y")


def _double(x):
    return x.detach().to(torch.float64, copy=True)
