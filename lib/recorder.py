"""What `lib.diagnostics.diagnose` looks at: the parts of a network, and what passes them.

Hooks take the statistics on the way (in float64), so no activation is kept.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.random import fork_rng

# Recorded wherever a forward calls them, as F.relu, torch.relu, x.relu() or x.relu_().
ACTIVATIONS = """relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish softplus
softsign sigmoid tanh hardtanh hardsigmoid hardswish logsigmoid clamp clamp_min maximum max"""
CHANNELS = nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm  # (N, C, ...)
FEATURES = nn.Linear, nn.LayerNorm, nn.Embedding, nn.RNNBase, nn.MultiheadAttention  # (..., D)


class Recorder(TorchFunctionMode):
    """Takes statistics of what layers return, and of activations called as functions.

    While such a mode is on, torch's transformers leave their fast path, which calls no hooks.
    """

    def __init__(self, modules: dict[nn.Module, str]):
        super().__init__()
        self.modules, self.rows, self.handles = modules, [], []
        self.running, self.called = [], set()
        self.last = None, 0  # tensor recorded last, and its version
        self.axes = {}  # number of dimensions -> dimension of the units

    def forward(self, model: nn.Module, args: tuple) -> Any:
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
        x = next(filter(is_float, tensors_in(output)), None)
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
        if kind in ACTIVATIONS.split() and self.running and is_float(x) and x.ndim:
            name = f"{self.modules[self.running[-1]]}.{kind}()"
            self.record(x, name, kind, "activation", kind)
        return x

    def record(self, x, name, kind, role, function):
        row = {"name": name, "kind": kind, "role": role, "shape": tuple(x.shape)}
        row |= _statistics(x.detach(), self.axes.get(x.ndim, 1 if x.ndim > 3 else -1), function)
        self.rows.append(row)
        self.last = x, x._version
        if x.requires_grad:
            hook = x.register_hook(lambda grad: row.update(grad_rms=root_mean_square(grad)))
            self.handles.append(hook)


def _statistics(x, axis, function):
    x = x.double() if x.ndim > 1 else x.double().reshape(-1, 1)
    zero = x.movedim(axis, 0).flatten(1) == 0  # (units, values of each)
    row = {
        "mean": x.mean().item(),
        "std": x.std(correction=0).item(),
        "rms": root_mean_square(x),
    }
    row |= {"zeros": zero.double().mean().item(), "saturated": None}
    if function in ("tanh", "hardtanh", "sigmoid", "hardsigmoid"):
        flat = (2 * x - 1 if "sigmoid" in function else x).abs() > 0.97
        row["saturated"] = flat.double().mean().item()
    return row | {"units": len(zero), "dead": int(zero.all(1).sum())}


def inventory(
    model: nn.Module,
) -> tuple[dict[nn.Module, str], dict[Tensor, list[str]], list[str]]:
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
def untouched(
    modules: Iterable[nn.Module], names: Iterable[Tensor], args: Any
) -> Iterator[None]:
    """Give back what a forward pass may change, whatever happens."""
    tensors = {*names, *(b for m in modules for b in m.buffers())}
    values = [(t, t.detach().clone()) for t in tensors]
    dicts = [d for m in modules for d in (vars(m), m._parameters, m._buffers, m._modules)]
    contents = [(d, dict(d)) for d in dicts]
    generators = {g for d in dicts for g in d.values() if isinstance(g, torch.Generator)}
    states = [(g, g.get_state()) for g in generators]
    devices = {t.device.index for t in (*tensors, *tensors_in(args)) if t.is_cuda}
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


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(inner)


def is_float(x: Any) -> bool:
    """Return whether statistics of x exist."""
    dense = isinstance(x, Tensor) and x.layout == torch.strided and not x.is_nested
    return dense and x.is_floating_point() and x.numel() > 0


def root_mean_square(x: Tensor) -> float:
    x = x.detach().to_dense().double()
    return math.sqrt(x.square().sum().item() / max(x.numel(), 1))
