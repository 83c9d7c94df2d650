"""What the rules of `lib.early_stopping` share."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Stopper:
    """The best score so far, its epoch, and which runs have stopped.

    Attributes:
        epoch: epochs seen.
        best: best score, () or (R,) as are the scores; inf, or -inf, before the first.
        best_epoch: its epoch; 0 before the first.
        stopped_epoch: the epoch after which a run stopped; 0 while it goes on.
        num_nan: scores that were NaN. NaN is no improvement: it counts as the worst score.
        best_weights: those of ``best_epoch``; of epoch 1 where no score was finite.
    """

    settings: tuple[str, ...] = ()
    state = ("epoch", "best", "best_epoch", "stopped_epoch", "num_nan", "best_weights")
    worst = math.inf

    def __init__(self) -> None:
        self.epoch, self.best_weights = 0, None
        self._start(())

    @property
    def stopped(self) -> Tensor:
        """Which runs have stopped, () or (R,) bool."""
        return self.stopped_epoch > 0

    def step(
        self,
        score: float | Tensor,
        *,
        train_loss: float | Tensor | None = None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Take the score of one more epoch and return which runs have stopped.

        A run that has stopped stays as it is, whatever its later scores are.

        Args:
            score: on the validation set, () or (R,).
            train_loss: mean loss of the epoch's samples, () or (R,), for `PQ`.
            weights: such as ``model.state_dict()``, each () or (R,) in front; copied if they
                are the best. Give them in every epoch or in none.
        """
        score = numbers("score", score)
        train_loss = None if train_loss is None else numbers("train_loss", train_loss)
        shape = self.best.shape if self.epoch else score.shape
        for name, x in (("score", score), ("train_loss", train_loss)):
            if x is not None and x.shape != shape:
                raise ValueError(f"{name} has to be {tuple(shape)}, but got {tuple(x.shape)}")
        self._check(score, train_loss)
        self._check_weights(weights, shape)
        if not self.epoch:
            self._start(shape)
        self.epoch += 1
        running = ~self.stopped
        self.num_nan = self.num_nan + (running & score.isnan())
        score, better, stop = self._judge(
            score.masked_fill(score.isnan(), self.worst), train_loss
        )
        better &= running
        self.best = score.where(better, self.best)
        self.best_epoch = self.best_epoch.masked_fill(better, self.epoch)
        self.stopped_epoch = self.stopped_epoch.masked_fill(running & stop, self.epoch)
        self._keep(weights, better)
        return self.stopped

    def state_dict(self) -> dict[str, Any]:
        """Return settings and state, for `load_state_dict` and `torch.save`."""
        own = {"settings": self.settings, "state": self.state}
        words = {key: {name: getattr(self, name) for name in own[key]} for key in own}
        return {"rule": type(self).__name__, **words}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned, of a rule with the same settings."""
        own = self.state_dict()
        for key in ("rule", "settings"):
            if state_dict.get(key) != own[key]:
                raise ValueError(
                    f"{key} of state_dict has to be {own[key]}, but got {state_dict.get(key)}"
                )
        state = state_dict.get("state", {})
        if set(state) != set(own["state"]):
            raise ValueError(
                f"state of state_dict has to hold {[*own['state']]}, but got {[*state]}"
            )
        vars(self).update(state)  # no copy: every step makes new tensors

    def _start(self, shape: tuple[int, ...]) -> None:
        count = torch.zeros(shape, dtype=torch.int64)
        self.best = torch.full(shape, self.worst, dtype=torch.float64)
        self.best_epoch = self.stopped_epoch = self.num_nan = count

    def _judge(self, score: Tensor, train_loss: Tensor | None) -> tuple[Tensor, ...]:
        """Return the score that counts, and where it is the best and where training stops."""
        raise NotImplementedError

    def _check(self, score: Tensor, train_loss: Tensor | None) -> None:
        """Refuse what the rule cannot use."""

    def _check_weights(self, weights: Mapping | None, shape: tuple[int, ...]) -> None:
        if self.epoch and (weights is None) != (self.best_weights is None):
            raise ValueError("weights have to be given in every epoch or in none")
        for name, w in (weights or {}).items():
            if w.shape[: len(shape)] != shape:
                raise ValueError(
                    f"weights[{name!r}] has to begin with {tuple(shape)} as the scores do, "
                    f"but got {tuple(w.shape)}"
                )

    def _keep(self, weights: Mapping[str, Tensor] | None, better: Tensor) -> None:
        if weights is None or (self.best_weights and not better.any()):
            return
        old, kept = self.best_weights, {}
        for name, w in weights.items():
            mask = better.view(better.shape + (1,) * (w.ndim - better.ndim)).to(w.device)
            kept[name] = torch.where(mask, w, old[name].to(w.device)) if old else w.clone()
            kept[name] = kept[name].detach()
        self.best_weights = kept

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.settings)
        return f"{type(self).__name__}({settings})"


def numbers(name: str, x: Any) -> Tensor:
    """Return x in float64, on the CPU and without its graph, or raise TypeError."""
    try:
        return torch.as_tensor(x, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} has to consist of numbers, but got {x!r}") from None
