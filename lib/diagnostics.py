"""Diagnostics: what one batch does inside a network, before you train it for hours.

`diagnose` sends a batch forward and, given targets, backward. Hooks take the statistics on the
way (in float64), so no activation is kept. Afterwards the network is as it was: parameters,
buffers, gradients, modes, attributes, random states.
"""

import math
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.random import fork_rng

# From where on a number becomes a sentence in `Report.problems`.
DEAD = 0.5  # share of units; with n values per unit, chance adds 0.5**n
SATURATED = 0.3  # share of outputs where the slope is below 6 % of the steepest
DRIFT = 1e3  # factor between the first and the last layer with weights
LOSS = 2.0  # above ln K
UPDATE = 1e-6, 0.1  # change of a weight matrix in one step / its size

# Recorded wherever a forward calls them, as F.relu, torch.relu, x.relu() or x.relu_().
ACTIVATIONS = """relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish softplus
softsign sigmoid tanh hardtanh hardsigmoid hardswish logsigmoid clamp clamp_min maximum max"""
CHANNELS = nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm  # (N, C, ...)
FEATURES = nn.Linear, nn.LayerNorm, nn.Embedding, nn.RNNBase, nn.MultiheadAttention  # (..., D)


@dataclass(frozen=True)
class Layer:
    """One call of a layer, or of F.relu and its like: the output, and the gradient there.

    A unit is a feature (last dimension) or, after convolutions, a channel (dimension 1).
    """

    name: str
    kind: str
    role: str  # 'weights', 'activation' or ''
    shape: tuple[int, ...]
    mean: float  # like std and rms not finite if an output is not
    std: float  # divides by n, so that rms² = mean² + std²
    rms: float
    zeros: float  # share of outputs that are exactly 0
    saturated: float | None  # share with |y| > 0.97 (tanh) or |2y - 1| > 0.97 (sigmoid)
    units: int
    dead: int  # units that are 0 for every sample, at every position
    grad_rms: float | None = None  # of the loss for the output; None if no gradient arrives


@dataclass(frozen=True)
class Weight:
    """One parameter, named once; ``also`` holds its other names."""

    name: str
    also: tuple[str, ...]
    shape: tuple[int, ...]
    state: str  # '', 'frozen' (requires_grad is False) or 'unregistered'
    rms: float
    grad_rms: float | None  # None if frozen, or if no gradient arrives
    update: float | None  # rms of the change in one step / rms


@dataclass(frozen=True)
class Report:
    """What `diagnose` saw: layers in order of execution, weights in order of registration."""

    layers: list[Layer]
    weights: list[Weight]
    problems: list[str]
    loss: float | None
    guess: float | None  # ln K, what equal outputs for all K classes cost

    @property
    def gradient_ratio(self) -> float | None:
        """Gradient rms at the output of the first layer with weights / at that of the last."""
        return _ratio([v.grad_rms for v in self.layers if v.role == "weights"])

    @property
    def weight_gradient_ratio(self) -> float | None:
        """Gradient rms of the first weight matrix / that of the last."""
        return _ratio([w.grad_rms for w in self.weights if len(w.shape) > 1])

    def __str__(self) -> str:
        guess = "" if self.guess is None else f" (equal outputs cost {self.guess:.4g})"
        lines = [] if self.loss is None else [f"Loss {self.loss:.4g}{guess}", ""]
        for grid in (_grid(Layer, self.layers), _grid(Weight, self.weights)):
            size = [max(map(len, column)) for column in zip(*grid)]
            lines += [*("  ".join(map(str.ljust, row, size)).rstrip() for row in grid), ""]
        return "\n".join([*lines, *(self.problems or ["No problems found"])])

    def table(self) -> None:
        """Put layers and weights on the page."""
        from lib import plots  # a floor above this one; the numbers do without it

        for kind, rows in ((Layer, self.layers), (Weight, self.weights)):
            header, *cells = _grid(kind, rows)
            plots.table(header, cells, caption=f"{kind.__name__}s")

    def figure(self) -> list:
        """Return panels for `plots.show`: rms of the outputs and of the gradients there."""
        from lib import plots

        axes = plots.panels(1 if self.loss is None else 2)
        for color, key in enumerate(("rms", "grad_rms")[: len(axes)]):
            values = [(i, getattr(v, key)) for i, v in enumerate(self.layers)]
            values = [(i, v) for i, v in values if v and math.isfinite(v)]  # 0 has no logarithm
            if values:
                plots.line(axes[color], *zip(*values), color=color, marker="o")
            title = ("Outputs", "Gradients")[color]
            plots.dress(axes[color], title=title, x="index in layers", y="rms", log="y")
        return axes


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
    modules, names, problems = _inventory(model)
    _check(args, y, names, lr, optimizer)
    free, known = [w for w in names if w.requires_grad], set(model.parameters())
    recorder, loss, guess, grads, copies = _Recorder(modules), None, None, {}, {}
    with _untouched(modules, names, args):
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
        rms, grad = _rms(w), _rms(grads[w]) if w in grads else None
        update = _rms(copies[w] - w) / rms if w in copies and rms else None
        weights.append(Weight(name, tuple(also), tuple(w.shape), state, rms, grad, update))
    layers, calls, loss = [], Counter(), None if loss is None else loss.item()
    for row in recorder.rows:
        calls[row["name"]] += 1
        number = f" #{calls[row['name']]}" if calls[row["name"]] > 1 else ""
        layers.append(Layer(**row | {"name": row["name"] + number}))
    problems += _problems(args, layers, weights, loss, guess, recorder.called)
    return Report(layers, weights, problems, loss, guess)


class _Recorder(TorchFunctionMode):
    """Takes statistics of what layers return, and of activations called as functions.

    While such a mode is on, torch's transformers leave their fast path, which calls no hooks.
    """

    def __init__(self, modules):
        super().__init__()
        self.modules, self.rows, self.handles = modules, [], []
        self.running, self.called = [], set()
        self.last = None, 0  # tensor recorded last, and its version
        self.axes = {}  # number of dimensions -> dimension of the units

    def forward(self, model, args):
        hooks = [m.register_forward_pre_hook(self.before) for m in self.modules]
        hooks += [m.register_forward_hook(self.after, always_call=True) for m in self.modules]
        try:
            with self:
                return model(*args)
        finally:
            for hook in hooks:  # now: checkpointing calls layers again in the backward pass
                hook.remove()

    def before(self, module, args):
        self.running.append(module)
        self.called.add(self.modules[module])

    def after(self, module, args, output):
        while module in self.running and self.running.pop() is not module:
            pass  # a hook of the user failed before ours
        x = next(filter(_is_float, _tensors(output)), None)
        if x is None:
            return
        name, kind = self.modules[module], type(module).__name__
        recorded = x is self.last[0] and x._version == self.last[1]
        row = self.rows[-1] if recorded else {"name": "", "kind": ""}
        if row["name"] == f"{name}.{row['kind']}()":  # what it returns is its own F.relu
            if type(module).__module__.startswith("torch.nn"):
                row.update(name=name, kind=kind)
            return
        if recorded and any(True for _ in module.children()):
            return  # a container counts where it computes something itself
        if isinstance(module, CHANNELS + FEATURES):
            self.axes[x.ndim] = 1 if isinstance(module, CHANNELS) else -1
        role = "weights" if any(True for _ in module.parameters(False)) else ""
        self.record(x, name, kind, role, getattr(module, "nonlinearity", ""))

    def __torch_function__(self, func, types, args=(), kwargs=None):
        x = func(*args, **(kwargs or {}))
        kind = getattr(func, "__name__", "").rstrip("_")
        if kind in ACTIVATIONS.split() and self.running and _is_float(x) and x.ndim:
            name = f"{self.modules[self.running[-1]]}.{kind}()"
            self.record(x, name, kind, "activation", kind)
        return x

    def record(self, x, name, kind, role, function):
        row = {"name": name, "kind": kind, "role": role, "shape": tuple(x.shape)}
        row |= _statistics(x.detach(), self.axes.get(x.ndim, 1 if x.ndim > 3 else -1), function)
        self.rows.append(row)
        self.last = x, x._version
        if x.requires_grad:
            hook = x.register_hook(lambda grad: row.update(grad_rms=_rms(grad)))
            self.handles.append(hook)


def _statistics(x, axis, function):
    x = x.double() if x.ndim > 1 else x.double().reshape(-1, 1)
    zero = x.movedim(axis, 0).flatten(1) == 0  # (units, values of each)
    row = {"mean": x.mean().item(), "std": x.std(correction=0).item(), "rms": _rms(x)}
    row |= {"zeros": zero.double().mean().item(), "saturated": None}
    if function in ("tanh", "hardtanh", "sigmoid", "hardsigmoid"):
        flat = (2 * x - 1 if "sigmoid" in function else x).abs() > 0.97
        row["saturated"] = flat.double().mean().item()
    return row | {"units": len(zero), "dead": int(zero.all(1).sum())}


def _inventory(model):
    """Return modules with their name, parameters with their names, and what is unregistered."""
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        got = type(model).__name__
        raise TypeError(f"model has to be an nn.Module that is not scripted, but got {got}")
    modules = {module: name or "model" for name, module in model.named_modules()}
    todo, seen, names, problems = [*model.named_modules()], set(), {}, []
    for name, w in model.named_parameters(remove_duplicate=False):
        names.setdefault(w, []).append(name)

    def look(thing, name):
        new = []
        if isinstance(thing, nn.Module) and thing not in modules:
            new, inside = thing.named_parameters(name), [*thing.named_modules(prefix=name)]
            todo.extend(inside)
            modules.update({m: n for n, m in inside if m not in modules})
        elif isinstance(thing, nn.Parameter) or (
            isinstance(thing, Tensor) and thing.is_leaf and thing.requires_grad
        ):
            new = [(name, thing)]
        elif isinstance(thing, (dict, list, tuple)) and id(thing) not in seen:
            seen.add(id(thing))
            for key, inner in thing.items() if isinstance(thing, dict) else enumerate(thing):
                look(inner, f"{name}[{key!r}]")
        new = {w: [n] for n, w in new if w not in names}
        names.update(new)
        if new:
            what = f"{type(thing).__name__} with {sum(w.numel() for w in new):,} numbers"
            use = "use nn.ModuleList, nn.ParameterList or nn.Parameter"
            problems.append(f"{name}: {what} is not registered, no optimizer sees it ({use})")

    for prefix, module in todo:  # grows as hidden modules are found
        for key, thing in vars(module).items():
            look(thing, f"{prefix}.{key}".lstrip("."))
    return modules, names, problems


@contextmanager
def _untouched(modules, names, args):
    """Give back what a forward pass may change, whatever happens."""
    tensors = {*names, *(b for m in modules for b in m.buffers())}
    values = [(t, t.detach().clone()) for t in tensors]
    dicts = [d for m in modules for d in (vars(m), m._parameters, m._buffers, m._modules)]
    contents = [(d, dict(d)) for d in dicts]
    generators = {g for d in dicts for g in d.values() if isinstance(g, torch.Generator)}
    states = [(g, g.get_state()) for g in generators]
    devices = {t.device.index for t in (*tensors, *_tensors(args)) if t.is_cuda}
    try:
        with (
            fork_rng(devices),
            torch.compiler.set_stance("force_eager"),  # compiled code calls no hooks
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            yield
    finally:
        for d, content in contents:
            d.clear()
            d.update(content)
        for t, value in values:
            if t.layout != torch.strided or not torch.equal(t, value):
                t.data.copy_(value)  # by .data, so that graphs the caller holds stay valid
        for generator, state in states:
            generator.set_state(state)


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
    for x in filter(_is_float, _tensors(args)):
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
        ratio = _ratio([getattr(v, key) for v in known]) or 1
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
    if not any(True for _ in _tensors(args)):
        raise TypeError(f"X has to be a tensor or a tuple that holds one, but got {args}")
    for x in _tensors(args):
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


def _tensors(value):
    """Yield the tensors in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _tensors(inner)


def _is_float(x):
    dense = isinstance(x, Tensor) and x.layout == torch.strided and not x.is_nested
    return dense and x.is_floating_point() and x.numel() > 0


def _double(x):
    return x.detach().to(torch.float64, copy=True)


def _rms(x):
    x = x.detach().to_dense().double()
    return math.sqrt(x.square().sum().item() / max(x.numel(), 1))


def _ratio(values):
    known = [v for v in values if v is not None]
    return known[0] / known[-1] if len(known) > 1 and known[-1] else None


def _grid(kind, rows):
    """Return a header and a row of short texts for each of the dataclasses."""
    header = [field.name for field in fields(kind)]
    return [header, *([_cell(getattr(row, name)) for name in header] for row in rows)]


def _cell(v):
    if isinstance(v, tuple):
        return " ".join(map(str, v))
    return "" if v is None else f"{v:.3g}" if isinstance(v, float) else str(v)
