"""Optimizers from scratch: gradient descent with momentum, and Adam.

Each rule is one pure function, `update`: from a gradient, the state and the parameter to the
change of the parameter and the next state. `step` applies it to parameter after parameter, as
`torch.optim` does; the study engine applies it to many networks at once, where a number such
as ``lr`` may be a tensor that broadcasts against the parameter, one entry per network.

Names, defaults and order of operations are those of `torch.optim`.
"""

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor

Number = float | Tensor


class Optimizer:
    """What every rule below shares: parameter groups, state and their saving.

    Args:
        params: tensors, or dicts that hold tensors under ``"params"`` and whatever should
            differ from the defaults.
        defaults: the hyper-parameters of a group that names none of its own.

    Attributes:
        param_groups: one dict per group, its tensors and hyper-parameters.
        state: what the rule remembers of each parameter.
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], defaults: Mapping[str, Any]):
        if isinstance(params, Tensor):
            raise TypeError(
                "params has to be an iterable of tensors or dicts, but got one tensor"
            )
        self.defaults = dict(defaults)
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, dict[str, Any]] = defaultdict(dict)
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    @staticmethod
    def check(**hyper: Any) -> None:
        """Raise TypeError or ValueError if a hyper-parameter is none."""

    @staticmethod
    def update(
        grad: Tensor, state: dict, param: Tensor, **hyper: Number
    ) -> tuple[Tensor, dict]:
        """Return the change of ``param`` and the state for the next step.

        Args:
            grad, param: of one shape; neither is changed.
            state: what the last step returned; empty before the first.
            hyper: the rule's hyper-parameters, all of them.
        """
        raise NotImplementedError

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Let the optimizer also train the tensors in ``group["params"]``."""
        params = group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        known = {p for other in self.param_groups for p in other["params"]}
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError(f"optimizer can only optimize Tensors, but got {type(p)}")
            if not p.is_leaf:
                raise ValueError("can't optimize a non-leaf Tensor")
            if p in known:
                raise ValueError("some parameters appear twice, in one group or in two")
            known.add(p)
        group = {**self.defaults, **group, "params": params}
        self.check(**self._hyper(group))
        self.param_groups.append(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, or set them to zero."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p.grad = None
                elif p.grad is not None:
                    p.grad = torch.zeros_like(p.grad)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update every parameter that has a gradient.

        Args:
            closure: computes the loss again, and the gradients; its loss is returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            hyper = self._hyper(group)
            for p in group["params"]:
                if p.grad is not None:
                    change, self.state[p] = self.update(p.grad, self.state[p], p, **hyper)
                    p += change
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return state and groups, with numbers in place of the parameters."""
        index = {p: i for i, p in enumerate(self._params())}
        return {
            "state": {index[p]: dict(state) for p, state in self.state.items() if state},
            "param_groups": [
                {**group, "params": [index[p] for p in group["params"]]}
                for group in self.param_groups
            ],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned, for parameters in the same order."""
        saved = copy.deepcopy(state_dict["param_groups"])
        sizes = [len(group["params"]) for group in self.param_groups]
        if [len(group["params"]) for group in saved] != sizes:
            raise ValueError(
                f"state_dict has to hold groups of {sizes} parameters, "
                f"but got {[len(group['params']) for group in saved]}"
            )
        names = (name for group in saved for name in group["params"])
        params = dict(zip(names, self._params(), strict=True))
        for group, loaded in zip(self.param_groups, saved, strict=True):
            group.update(loaded, params=group["params"])
        self.state = defaultdict(dict)
        for name, state in state_dict["state"].items():
            p = params[name]
            self.state[p] = {
                key: x.detach().to(p, copy=True) if isinstance(x, Tensor) else x
                for key, x in state.items()
            }

    def _params(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _hyper(self, group: Mapping[str, Any]) -> dict[str, Any]:
        return {name: group[name] for name in self.defaults}

    def __repr__(self) -> str:
        groups = [self._hyper(group) for group in self.param_groups]
        return f"{type(self).__name__}({', '.join(map(str, groups))})"


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if asked for (Polyak, 1964,
    https://doi.org/10.1016/0041-5553(64)90137-5).

    With gradient g, parameter w and velocity v, which starts as the first gradient,

        v = momentum * v + (1 - dampening) * g,    w = w - lr * v

    Args:
        lr: learning rate.
        momentum: share of the velocity that survives a step.
        dampening: share of the gradient kept out of the velocity.
        weight_decay: multiple of w that is added to g (L2 penalty).
        nesterov: step along ``g + momentum * v`` instead of v (Sutskever et al., 2013,
            https://proceedings.mlr.press/v28/sutskever13.html).

    Example::

        >>> optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    """

    def __init__(
        self, params, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False
    ):
        hyper = {"lr": lr, "momentum": momentum, "dampening": dampening}
        super().__init__(params, hyper | {"weight_decay": weight_decay, "nesterov": nesterov})

    @staticmethod
    def check(*, lr, momentum, dampening, weight_decay, nesterov):
        _check(lr=lr, momentum=momentum, weight_decay=weight_decay)
        _check(-math.inf, dampening=dampening)
        if nesterov and (momentum == 0 or dampening != 0):
            raise ValueError(
                "nesterov needs a momentum above 0 and no dampening, "
                f"but got momentum={momentum}, dampening={dampening}"
            )

    @staticmethod
    def update(grad, state, param, *, lr, momentum, dampening, weight_decay, nesterov):
        if _used(weight_decay):
            grad = grad + weight_decay * param
        if _used(momentum):
            velocity = grad.clone()
            if state:
                velocity = momentum * state["momentum_buffer"] + (1 - dampening) * grad
            state = {"momentum_buffer": velocity}
            grad = grad + momentum * velocity if nesterov else velocity
        return -lr * grad, state


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015, https://arxiv.org/abs/1412.6980).

    Two running means of the gradient g, of itself and of its square, both starting at 0 and
    both divided after t steps by the weight they have gathered until then:

        m = beta1 * m + (1 - beta1) * g,      m_hat = m / (1 - beta1^t)
        v = beta2 * v + (1 - beta2) * g^2,    v_hat = v / (1 - beta2^t)
        w = w - lr * m_hat / (sqrt(v_hat) + eps)

    Args:
        lr: learning rate.
        betas: beta1 and beta2, each in [0, 1).
        eps: keeps the step finite where v is 0.
        weight_decay: multiple of w that is added to g (L2 penalty, not decoupled).

    Example::

        >>> optimizer = Adam(model.parameters(), lr=1e-3)
    """

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        hyper = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, hyper)

    @staticmethod
    def check(*, lr, betas, eps, weight_decay):
        _check(lr=lr, eps=eps, weight_decay=weight_decay)
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise TypeError(f"betas has to hold two numbers, but got {betas!r}")
        for i, beta in enumerate(betas):
            _check(0, 1, **{f"betas[{i}]": beta})

    @staticmethod
    def update(grad, state, param, *, lr, betas, eps, weight_decay):
        beta1, beta2 = betas
        if not state:
            zeros = torch.zeros_like(param)
            state = {"step": 0, "exp_avg": zeros, "exp_avg_sq": zeros}
        if _used(weight_decay):
            grad = grad + weight_decay * param
        t = state["step"] + 1
        m = beta1 * state["exp_avg"] + (1 - beta1) * grad
        v = beta2 * state["exp_avg_sq"] + (1 - beta2) * grad * grad
        root = v.sqrt() / (1 - beta2**t) ** 0.5 + eps
        change = -lr / (1 - beta1**t) * m / root
        return change, {"step": t, "exp_avg": m, "exp_avg_sq": v}


def _used(x: Number) -> bool:
    """Whether a term has to be computed; a tensor of numbers always counts as used."""
    return isinstance(x, Tensor) or x != 0


def _check(low: float = 0, high: float = math.inf, **numbers: float) -> None:
    for name, x in numbers.items():
        if isinstance(x, bool) or not isinstance(x, Real):
            raise TypeError(f"{name} has to be a number, but got {x!r}")
        if not low <= x < high or math.isinf(x):
            raise ValueError(f"{name} has to be in [{low}, {high}), but got {x}")
