"""What all optimizers share: parameter groups, state, saving, checks and some arithmetic.

The rules themselves are in `lib.optimizers`.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
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
        foreign: options of torch's counterpart that would change the rule; refused if set.

    Raises:
        TypeError, ValueError: parameters or numbers that cannot be used.
    """

    foreign: tuple[str, ...] = ("maximize",)

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
        self._check_group(group)
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
        """Continue from what `state_dict` returned, for parameters in the same order.

        It may come from torch's counterpart, and torch's loads ours: keys and shapes agree.
        Our ``step`` is an int where torch's is a tensor; either loads the other.
        """
        sizes = [len(group["params"]) for group in self.param_groups]
        saved = copy.deepcopy(state_dict["param_groups"])
        if [len(group["params"]) for group in saved] != sizes:
            raise ValueError(
                f"state_dict has to hold groups of {sizes} parameters, "
                f"but got {[len(group['params']) for group in saved]}"
            )
        names = [name for group in saved for name in group["params"]]
        params = dict(zip(names, self._params(), strict=True))
        groups = [
            {**group, **loaded, "params": group["params"]}
            for group, loaded in zip(self.param_groups, saved, strict=True)
        ]
        for group in groups:
            self._check_group(group)
        self.param_groups = groups
        self.state = defaultdict(dict)
        for name, state in state_dict["state"].items():
            self.state[params[name]] = {
                key: _loaded(key, x, params[name]) for key, x in state.items()
            }

    def _params(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _check_group(self, group: Mapping[str, Any]) -> None:
        self.check(**self._hyper(group))
        for name in self.foreign:
            if group.get(name):
                raise ValueError(f"{type(self).__name__} has no {name}, but got {group[name]}")

    def _hyper(self, group: Mapping[str, Any]) -> dict[str, Any]:
        return {name: group[name] for name in self.defaults}

    def __repr__(self) -> str:
        groups = [self._hyper(group) for group in self.param_groups]
        return f"{type(self).__name__}({', '.join(map(str, groups))})"


def used(x: Number) -> bool:
    """Whether a term has to be computed; a tensor of numbers always counts as used."""
    return isinstance(x, Tensor) or x != 0


def plus(x: Tensor, y: Tensor, factor: Number) -> Tensor:
    """x + factor * y in one pass, or x itself where that is the same."""
    if isinstance(factor, Tensor):
        return torch.addcmul(x, y, factor)
    return torch.add(x, y, alpha=factor) if factor != 0 else x


def mean_square(mean: Tensor, grad: Tensor, beta: Number) -> Tensor:
    """beta * mean + (1 - beta) * grad^2, a running mean."""
    if isinstance(beta, Tensor):
        return beta * mean + (1 - beta) * grad * grad
    return (beta * mean).addcmul_(grad, grad, value=1 - beta)


def _loaded(key: str, x: Any, param: Tensor) -> Any:
    """A copy of an entry of the state, in the type of the parameter."""
    if key == "step":
        return int(x)
    return x.detach().to(param, copy=True) if isinstance(x, Tensor) else x
