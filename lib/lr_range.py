"""The learning-rate range test: one short run that tells which rates a network can take.

Train a copy while the rate grows from batch to batch, and watch the loss (Smith, 2017,
https://arxiv.org/abs/1506.01186). It stays where the rate is too small, falls, and rises where
the rate is too large. This module stands above the loop in `lib.train`, whose parts it uses.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.device import check_int
from lib.optimizers import SGD
from lib.train import batches, checked_loss, noise_from

CLEAR = 6.0  # a fall counts from so many standard deviations of the smoothed loss
DIVERGED = 4.0  # times the lowest smoothed loss ends the test
MIN_STEPS = 20


@dataclass(frozen=True)
class LRRange:
    """What `lr_range_test` saw, entry i belonging to batch i.

    Attributes:
        lr: rate of the step on the batch (not taken once the loss has risen far).
        loss: loss of the batch, before that step.
        smoothed: exponential mean of the losses so far, without the pull of its start.
        suggestion: a rate to train with; None if the loss did not fall clearly.
        reason: where the suggestion comes from, or why there is none, and how the test ended.
        diverged_at: rate of the last step, if the loss after it was not finite or had risen
            far; else None. A network whose units died does not diverge: it guesses.
    """

    lr: list[float]
    loss: list[float]
    smoothed: list[float]
    suggestion: float | None
    reason: str
    diverged_at: float | None

    def __str__(self) -> str:
        return self.reason


def lr_range_test(
    model: nn.Module,
    X: Tensor,
    y: Tensor,
    *,
    generator: torch.Generator,
    lr_min: float = 1e-5,
    lr_max: float = 10.0,
    num_steps: int = 100,
    batch_size: int = 64,
    loss_fn: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    optimizer: Callable[..., Any] = SGD,
    smoothing: float = 0.8,
    **hyper: Any,
) -> LRRange:
    """Train a copy of ``model`` with rates from ``lr_min`` to ``lr_max`` and suggest one.

    Step i takes the rate lr_min (lr_max / lr_min)^(i / (num_steps - 1)). The suggestion is the
    rate in the middle of the steepest fall of the smoothed loss before its minimum, over a
    tenth of ``num_steps``. A fall counts if it is `CLEAR`. The test ends early when the
    smoothed loss is above its first value and `DIVERGED` times its minimum, or a loss is not
    finite.

    The model, its buffers and modes, and torch's global generators are left as they were.
    Batch orders come from ``generator``, which advances, as does noise such as that of dropout.

    Args:
        X, y: training samples and targets, (N, ...) each, on the model's device.
        generator: CPU generator.
        lr_min, lr_max: first and last rate.
        num_steps: batches to train on, at least 20; all have ``batch_size`` samples.
        loss_fn: takes outputs and targets, returns the mean loss.
        optimizer: a class of `lib.optimizers` or `torch.optim`; ``hyper`` are its arguments
            apart from ``lr``, such as ``momentum=0.9``.
        smoothing: in [0, 1), weight of the past in the smoothed loss.

    Raises:
        TypeError, ValueError: an argument that cannot be used, or a first loss that is not
            finite.

    Example::

        >>> found = lr_range_test(model, X, y, generator=generator(0), momentum=0.9)
        >>> found.suggestion, found.reason
    """
    _check_rates(lr_min, lr_max, hyper)
    check_int("num_steps", num_steps, MIN_STEPS)
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing has to be in [0, 1), but got {smoothing}")
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator has to be a torch.Generator, but got {generator!r}")
    if len(X) != len(y):
        raise ValueError(f"X and y have to be of one length, but got {len(X)} and {len(y)}")
    model = copy.deepcopy(model).train()
    rule = optimizer(model.parameters(), lr=lr_min, **hyper)
    rates = [lr_min * (lr_max / lr_min) ** (i / (num_steps - 1)) for i in range(num_steps)]
    losses: list[float] = []
    smoothed: list[float] = []
    diverged_at, mean, value = None, 0.0, math.nan
    with noise_from(generator, X.device):
        for lr, batch in zip(rates, _endless(len(X), batch_size, generator)):
            batch = batch.to(X.device)
            loss = checked_loss(loss_fn, model(X[batch]), y[batch])
            value = loss.item()
            if not math.isfinite(value):
                if not losses:
                    raise ValueError(f"loss has to be finite before any step, but got {value}")
                diverged_at = rates[len(losses) - 1]
                break
            losses.append(value)
            mean = smoothing * mean + (1 - smoothing) * value
            smoothed.append(mean / (1 - smoothing ** len(losses)))
            if smoothed[-1] > max(DIVERGED * min(smoothed), abs(smoothed[0])):
                diverged_at = rates[len(losses) - 2]
                break
            for group in rule.param_groups:
                group["lr"] = lr
            rule.zero_grad()
            loss.backward()
            rule.step()
    suggestion, reason = _suggest(
        rates, losses, smoothed, smoothing, max(1, num_steps // 20), diverged_at
    )
    if diverged_at is not None:
        reason += (
            f" The test ended at a loss of {value:.3g} after a step of rate {diverged_at:.3g}."
        )
    return LRRange(rates[: len(losses)], losses, smoothed, suggestion, reason, diverged_at)


def _suggest(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    smoothing: float,
    half: int,
    diverged_at: float | None,
) -> tuple[float | None, str]:
    """Return a rate and a sentence on it; a fall is measured over ``2 * half`` steps."""
    S = torch.tensor(smoothed, dtype=torch.float64)
    lowest = int(S.argmin())
    way = "a larger lr_max" if diverged_at is None else "a smaller lr_min"
    nothing = f"No suggestion: the loss never fell clearly; try {way} or larger batches."
    # The first entries are means of few losses: neither start nor slope is taken from them.
    if lowest < 3 * half:
        return None, nothing
    if not S[half] - S[lowest] > CLEAR * _noise(losses[: lowest + 1], smoothing):
        return None, nothing
    falls = S[half : lowest - 2 * half + 1] - S[3 * half : lowest + 1]
    rate = rates[int(falls.argmax()) + 2 * half]
    reason = (
        f"The smoothed loss falls most steeply around a rate of {rate:.3g}, "
        f"before its minimum at {rates[lowest]:.3g}."
    )
    if lowest == len(rates) - 1:
        reason += " It was still falling at lr_max; a larger one may tell more."
    return rate, reason


def _noise(losses: Sequence[float], smoothing: float) -> float:
    """Standard deviation that the smoothed loss has from batch to batch.

    Differences of neighbours, of variance 2 sigma^2, hardly see the fall itself. The
    exponential mean of independent values keeps (1 - smoothing) / (1 + smoothing) of sigma^2.
    """
    L = torch.tensor(losses, dtype=torch.float64)
    rounding = torch.finfo(torch.float32).eps * L.abs().max().item()
    sigma = L.diff().std().item() / math.sqrt(2)
    return max(sigma * math.sqrt((1 - smoothing) / (1 + smoothing)), rounding)


def _endless(n: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Epoch after epoch of full batches."""
    while True:
        yield from batches(n, batch_size, generator, drop_last=True)


def _check_rates(lr_min: float, lr_max: float, hyper: dict[str, Any]) -> None:
    for name, lr in (("lr_min", lr_min), ("lr_max", lr_max)):
        if isinstance(lr, bool) or not isinstance(lr, Real):
            raise TypeError(f"{name} has to be a number, but got {lr!r}")
    if not 0 < lr_min < lr_max < math.inf:
        raise ValueError(
            f"rates have to be 0 < lr_min < lr_max < inf, but got {lr_min} and {lr_max}"
        )
    if "lr" in hyper:
        raise TypeError(f"lr_min and lr_max stand in place of lr, but got lr={hyper['lr']}")
