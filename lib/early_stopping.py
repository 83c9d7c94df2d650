"""Early stopping: end training when the validation score says that more of it does not help.

`EarlyStopping` is the usual rule with patience; `GL` and `PQ` are rules of Prechelt (1998,
https://doi.org/10.1007/3-540-49430-8_3). Each takes one score per epoch, of one run or of R
side by side, and says which have stopped. `stopping_epoch` replays a rule on recorded curves;
`train_until` trains by one, and goes on from a checkpoint if the process was killed.

Epochs count from 1: epoch t is the state after t passes. Errors: ValueError for numbers out of
range, TypeError for anything else.
"""

import math
import os
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.checkpoint import load_checkpoint, save_checkpoint
from lib.device import check_int, check_numbers
from lib.stopper import Stopper, numbers
from lib.train import History, train

__all__ = ["GL", "PQ", "EarlyStopping", "Stopper", "stopping_epoch", "train_until"]


class EarlyStopping(Stopper):
    """Stop after ``patience`` epochs in a row without an improvement.

    In mode "min" a score s improves on the best one if s + min_delta < best, in mode "max" if
    s - min_delta > best. Names and rule are those of `keras.callbacks.EarlyStopping`, except
    that NaN is never the best, and that its patience of 0, which does what 1 does, is refused.

    Args:
        patience: how many.
        min_delta: a gain of no more than this is no improvement.
        mode: "min" for a loss, "max" for an accuracy.
        baseline: an improvement starts the patience anew only if it improves on this as well.
        start_from_epoch: so many epochs at the start do not count at all.
        smoothing: the score that counts is the mean of so many last ones, or as many as there
            are. A NaN spoils all means that it is part of.

    Attributes:
        wait: epochs since the patience started anew.
        recent: the last ``smoothing`` scores.

    Example::

        >>> stopper = EarlyStopping(patience=2)
        >>> [bool(stopper.step(loss)) for loss in (0.9, 0.7, 0.8, 0.75)]
        [False, False, False, True]
        >>> stopper.best, stopper.best_epoch
        (tensor(0.7000, dtype=torch.float64), tensor(2))
    """

    settings = ("patience", "min_delta", "mode", "baseline", "start_from_epoch", "smoothing")
    state = (*Stopper.state, "wait", "recent")

    def __init__(
        self, patience: int, min_delta: float = 0.0, mode: str = "min",
        baseline: float | None = None, start_from_epoch: int = 0, smoothing: int = 1,
    ):  # fmt: skip
        if mode not in ("min", "max"):
            raise ValueError(f"mode has to be 'min' or 'max', but got {mode!r}")
        check_numbers(min_delta=min_delta)
        if baseline is not None:
            check_numbers(-math.inf, baseline=baseline)
            baseline = float(baseline)
        self.patience = check_int("patience", patience, 1)
        self.min_delta, self.mode, self.baseline = float(min_delta), mode, baseline
        self.start_from_epoch = check_int("start_from_epoch", start_from_epoch, 0)
        self.smoothing = check_int("smoothing", smoothing, 1)
        self.worst = math.inf if mode == "min" else -math.inf
        super().__init__()

    def _start(self, shape):
        super()._start(shape)
        self.wait, self.recent = self.num_nan, self.best.new_empty(0, *shape)

    def _judge(self, score, train_loss):
        if self.epoch <= self.start_from_epoch:
            return score, *torch.zeros(2, *score.shape, dtype=torch.bool)
        self.recent = torch.cat([self.recent, score[None]])[-self.smoothing :]
        score = self.recent.mean(0)
        better = anew = self._improves(score, self.best)
        if self.baseline is not None:
            anew = better & self._improves(score, self.baseline)
        self.wait = (self.wait + 1).masked_fill(anew, 0).where(~self.stopped, self.wait)
        return score, better, ~better & (self.wait >= self.patience)

    def _improves(self, score, reference):
        sign = 1 if self.mode == "max" else -1
        return sign * score - self.min_delta > sign * reference


class GL(Stopper):
    """Stop once the generalization loss is above ``alpha`` percent (Prechelt, 1998).

        GL(t) = 100 (E(t) / min of E(1), ..., E(t) - 1)

    where E(t) >= 0 is the validation loss after epoch t. A run of NaN from the start goes on.
    """

    settings = ("alpha",)

    def __init__(self, alpha: float):
        check_numbers(alpha=alpha)
        self.alpha = float(alpha)
        super().__init__()

    def _check(self, score, train_loss):
        if (score < 0).any():
            raise ValueError(f"score has to be a loss of at least 0, but got {score}")

    def _judge(self, score, train_loss):
        return score, score < self.best, self._loss(score) > self.alpha

    def _loss(self, score):
        return 100 * (score / torch.minimum(score, self.best) - 1)  # 0 / 0 is NaN: not above


class PQ(GL):
    """Stop when the generalization loss is large against the progress (Prechelt, 1998).

        P(t) = 1000 (mean of the strip's training losses / the smallest of them - 1)

    where a strip is ``strip`` epochs. Training stops at the end of a strip if GL(t) / P(t) is
    above ``alpha``: while the training loss falls fast, a higher validation loss is let pass.
    A strip with a training loss of NaN or infinity is no progress. `step` needs ``train_loss``.
    """

    settings = ("alpha", "strip")
    state = (*GL.state, "recent")

    def __init__(self, alpha: float, strip: int = 5):
        self.strip = check_int("strip", strip, 2)
        super().__init__(alpha)

    def _start(self, shape):
        super()._start(shape)
        self.recent = self.best.new_empty(0, *shape)

    def _check(self, score, train_loss):
        super()._check(score, train_loss)
        if train_loss is None:
            raise TypeError("train_loss has to be given to PQ, but got None")
        if (train_loss < 0).any():
            raise ValueError(f"train_loss has to be at least 0, but got {train_loss}")

    def _judge(self, score, train_loss):
        self.recent = torch.cat([self.recent, train_loss[None]])[-self.strip :]
        progress = 1000 * (self.recent.mean(0) / self.recent.amin(0) - 1).clamp(min=0)
        quotient = self._loss(score) / progress.masked_fill(~progress.isfinite(), 0)
        stop = (quotient > self.alpha) & (self.epoch % self.strip == 0)
        return score, score < self.best, stop


def stopping_epoch(
    scores: Tensor, stopper: Stopper, train_losses: Tensor | None = None
) -> Tensor:
    """Return how many epochs each run would have trained under a rule, (seeds,).

    That is the last epoch where the rule does not stop a run. What else there is to know, such
    as ``best_epoch`` (seeds,), the stopper holds afterwards.

    Args:
        scores: (seeds, epochs), such as ``result["He", "val_loss"]`` of a study.
        stopper: a new one.
        train_losses: as scores, for `PQ`; a study records them as ``"loss"``.

    Example::

        >>> stopper = EarlyStopping(patience=5)
        >>> stop = stopping_epoch(result["He", "val_loss"], stopper)
        >>> kept = result["He", "val_accuracy"][range(20), stopper.best_epoch - 1]
    """
    scores = numbers("scores", scores)  # (seeds, epochs)
    losses = None if train_losses is None else numbers("train_losses", train_losses)
    if scores.ndim == 0 or scores.shape[-1] == 0:
        raise ValueError(f"scores has to be (seeds, epochs), but got {tuple(scores.shape)}")
    if losses is not None and losses.shape != scores.shape:
        raise ValueError(
            f"train_losses has to be {tuple(scores.shape)}, but got {tuple(losses.shape)}"
        )
    _check_new(stopper)
    for t in range(scores.shape[-1]):
        stopper.step(scores[..., t], train_loss=None if losses is None else losses[..., t])
    return stopper.stopped_epoch.masked_fill(~stopper.stopped, scores.shape[-1])


def train_until(
    model: nn.Module, X: Tensor, y: Tensor, optimizer: torch.optim.Optimizer, stopper: Stopper,
    score: Callable[[nn.Module], float], *, max_epochs: int, batch_size: int = 64,
    generator: torch.Generator | None = None,
    loss_fn: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    schedule: Callable[[int], float] | None = None, restore_best_weights: bool = True,
    checkpoint: str | os.PathLike | None = None,
) -> History:  # fmt: skip
    """Train as `lib.train.train` does, until ``stopper`` stops it or ``max_epochs`` are over.

    The history's ``records`` are the scores. With a checkpoint, a process killed at any moment
    and started again with the same arguments ends as if it had not been killed. A run that only
    ``max_epochs`` ended goes on if that is raised. Delete the file to start anew.

    Args:
        stopper: a new one.
        score: of the model on the validation set, after each epoch.
        max_epochs: at most so many, those before the checkpoint included.
        restore_best_weights: end with the weights of the best epoch, not of the last; Keras
            does so only if asked. Where no score was finite, the last ones stay.
        checkpoint: file to write after each epoch, and to go on from if it is there.
        batch_size, generator, loss_fn, schedule: as in `lib.train.train`.

    Example::

        >>> history = train_until(
        ...     model, X, y, optimizer, EarlyStopping(patience=5),
        ...     lambda model: mean_loss(model, X_val, y_val), max_epochs=100,
        ... )
    """
    check_int("max_epochs", max_epochs, 1)
    steps = -(-len(X) // check_int("batch_size", batch_size, 1))  # per epoch
    _check_new(stopper)
    history, parts = History(), {"model": model, "optimizer": optimizer, "stopper": stopper}
    if generator is not None:
        parts["generator"] = generator
    if checkpoint is not None and Path(checkpoint).exists():
        history = History(**load_checkpoint(checkpoint, **parts))
    while stopper.epoch < max_epochs and not stopper.stopped:
        before = steps * stopper.epoch
        epoch = train(
            model, X, y, optimizer, epochs=1, batch_size=batch_size, generator=generator,
            loss_fn=loss_fn,
            schedule=schedule and (lambda step, before=before: schedule(before + step)),
        )  # fmt: skip
        history.loss += epoch.loss
        history.records.append(float(score(model)))
        stopper.step(history.records[-1], train_loss=epoch.loss[0], weights=model.state_dict())
        if checkpoint is not None:
            save_checkpoint(checkpoint, vars(history), **parts)
    if restore_best_weights and stopper.best_epoch > 0:
        model.load_state_dict(stopper.best_weights)
    return history


def _check_new(stopper: Stopper) -> None:
    if not isinstance(stopper, Stopper):
        raise TypeError(f"stopper has to be a Stopper, but got {stopper!r}")
    if stopper.epoch:
        raise ValueError(f"stopper has to be new, but got one at epoch {stopper.epoch}")
