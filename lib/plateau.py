"""Lower the rate when training stalls: the one rule for rates that has a memory."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lib.device import check_int, check_numbers


class ReduceLROnPlateau:
    """Multiply the rates by ``factor`` once a metric has not improved for long.

    No schedule of `lib.schedules`: what it does depends on what training gave.
    It sets the rates in ``optimizer.param_groups``, as torch's scheduler of that name does,
    and takes optimizers of `lib.optimizers` as well. `lib.train.train` may call it as
    ``on_epoch=lambda epoch, model: plateau.step(loss_of(model))``, without a ``schedule``,
    which would overwrite the rates.

    In mode ``"min"`` a metric improves on the best one m if it is below m (1 - threshold), or
    below m - threshold with ``threshold_mode="abs"``; in mode ``"max"``, above the same with
    plus. The first rule is for positive metrics: of a negative one, it takes each repetition
    for an improvement. NaN is never an improvement.

    Args:
        optimizer: anything with ``param_groups``.
        mode: ``"min"`` or ``"max"``, whether small or large metrics are good.
        factor: in [0, 1).
        patience: so many metrics in a row may fail to improve; one more lowers the rates.
        threshold, threshold_mode: what counts as an improvement.
        cooldown: so many metrics after a lowering never count as failures.
        min_lr: lowest rate, one number or one per group.
        eps: a rate that would fall by no more than this stays as it is.

    Attributes:
        best: the best metric so far, at first inf or -inf.
        num_bad_epochs: metrics in a row that failed to improve.
        cooldown_counter: metrics that still do not count.
    """

    def __init__(
        self, optimizer: Any, mode: str = "min", factor: float = 0.1, patience: int = 10,
        threshold: float = 1e-4, threshold_mode: str = "rel", cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0, eps: float = 1e-8,
    ):  # fmt: skip
        if not hasattr(optimizer, "param_groups"):
            raise TypeError(f"optimizer has to have param_groups, but got {optimizer!r}")
        if mode not in ("min", "max"):
            raise ValueError(f"mode has to be 'min' or 'max', but got {mode!r}")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(
                f"threshold_mode has to be 'rel' or 'abs', but got {threshold_mode!r}"
            )
        limit = 1 if (mode, threshold_mode) == ("min", "rel") else math.inf
        check_numbers(high=limit, threshold=threshold)
        check_numbers(high=1, factor=factor)
        check_numbers(eps=eps)
        self.optimizer, self.mode, self.factor, self.eps = optimizer, mode, factor, eps
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.patience = check_int("patience", patience, 0)
        self.cooldown = check_int("cooldown", cooldown, 0)
        self.min_lr = tuple(min_lr) if isinstance(min_lr, Sequence) else min_lr
        check_numbers(**{f"min_lr[{i}]": rate for i, rate in enumerate(self._min_lrs())})
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = 0

    def step(self, metrics: float | Tensor) -> list[float]:
        """Take the metric of one more epoch and return the rates, one per group."""
        try:
            metric = float(metrics)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"metrics has to be one number, but got {metrics!r}") from None
        self.num_bad_epochs += 1
        if self._improved(metric):
            self.best, self.num_bad_epochs = metric, 0
        if self.cooldown_counter > 0:
            self.cooldown_counter, self.num_bad_epochs = self.cooldown_counter - 1, 0
        if self.num_bad_epochs > self.patience:
            self._lower()
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return all but the optimizer, whose own state holds the rates."""
        return {name: value for name, value in vars(self).items() if name != "optimizer"}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned, settings included."""
        if set(state_dict) != set(self.state_dict()):
            raise ValueError(
                f"state_dict has to hold {sorted(self.state_dict())}, "
                f"but got {sorted(state_dict)}"
            )
        vars(self).update(state_dict)

    def _improved(self, metric):
        sign = -1 if self.mode == "min" else 1
        if self.threshold_mode == "rel":
            bar = self.best * (1 + sign * self.threshold)
        else:
            bar = self.best + sign * self.threshold
        return metric < bar if self.mode == "min" else metric > bar

    def _lower(self):
        for group, min_lr in zip(self.optimizer.param_groups, self._min_lrs()):
            lr = max(group["lr"] * self.factor, min_lr)
            if group["lr"] - lr <= self.eps:
                continue
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)  # torch.compile and CUDA graphs hold on to this tensor
            else:
                group["lr"] = lr

    def _min_lrs(self):
        groups = len(self.optimizer.param_groups)  # may have grown
        min_lrs = self.min_lr if isinstance(self.min_lr, tuple) else (self.min_lr,) * groups
        if len(min_lrs) != groups:
            raise ValueError(f"min_lr has to hold {groups} rates, but got {self.min_lr}")
        return min_lrs
