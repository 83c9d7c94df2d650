"""The plain training loop, and how well a model does, on tensors that fit into memory."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.device import check_int


class Diverged(ValueError):
    """Training met a loss that is not finite.

    Attributes:
        step: steps taken before it.
        loss: the loss, infinite or NaN.
    """

    def __init__(self, step: int, loss: float):
        super().__init__(step, loss)  # as args, so that it travels between processes
        self.step, self.loss = step, loss

    def __str__(self) -> str:
        return f"training loss has to stay finite, but got {self.loss} at step {self.step}"


@dataclass
class History:
    """What `train` saw, one entry per epoch.

    Attributes:
        loss: mean over the epoch's samples of the loss at the step that used them.
        records: what ``on_epoch`` returned; empty without one.
    """

    loss: list[float] = field(default_factory=list)
    records: list[Any] = field(default_factory=list)


def train(
    model: nn.Module,
    X: Tensor,
    y: Tensor,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    batch_size: int = 64,
    generator: torch.Generator | None = None,
    loss_fn: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    on_epoch: Callable[[int, nn.Module], Any] | None = None,
    schedule: Callable[[int], float] | None = None,
) -> History:
    """Train ``model`` in place and return the history; the model stays in training mode.

    With a ``generator`` the result depends on nothing else: batch orders come from it, and
    so does the noise of layers such as ``nn.Dropout``, which draw from torch's global one.
    Training for two epochs equals training twice for one (without a schedule).

    Args:
        X, y: training samples and targets, (N, ...) each, on the model's device.
        optimizer: anything with ``zero_grad``, ``step`` and, for a schedule, ``param_groups``.
        epochs: passes over the samples.
        batch_size: samples per step; the last batch of an epoch may be smaller.
        generator: CPU generator; default: torch's global one.
        loss_fn: takes outputs and targets, returns the mean loss.
        on_epoch: called as ``on_epoch(epoch, model)`` after each epoch, from epoch 0.
        schedule: factor on each learning rate, by number of steps taken so far. The rates
            that the optimizer came with return when training ends.

    Raises:
        Diverged: a loss is infinite or NaN; the step is not taken.
        ValueError: lengths or shapes that do not match, a number out of range, a generator
            that is not on the CPU, or a schedule's factor that is negative or not finite.
    """
    check_int("epochs", epochs, 1)
    _check_samples(X, y)
    groups = optimizer.param_groups if schedule is not None else []
    base_lrs = [group["lr"] for group in groups]
    history, step = History(), 0
    try:
        for epoch in range(epochs):
            model.train()
            total = 0.0
            with noise_from(generator, X.device):
                for batch in batches(len(X), batch_size, generator):
                    for group, lr in zip(groups, base_lrs, strict=True):
                        group["lr"] = lr * checked_factor(schedule, step)
                    batch = batch.to(X.device)
                    loss = checked_loss(loss_fn, model(X[batch]), y[batch])
                    value = loss.item()
                    if not math.isfinite(value):
                        raise Diverged(step, value)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    total += value * len(batch)
                    step += 1
            history.loss.append(total / len(X))
            if on_epoch is not None:
                history.records.append(on_epoch(epoch, model))
    finally:
        for group, lr in zip(groups, base_lrs, strict=True):
            group["lr"] = lr
    return history


def batches(
    n: int, batch_size: int, generator: torch.Generator | None, drop_last: bool = False
) -> Iterator[Tensor]:
    """Return one epoch's batches: index tensors on the CPU that cut a permutation of ``n``.

    Args:
        n: number of samples.
        batch_size: indices per batch; the last batch holds what is left.
        generator: CPU generator of the permutation; ``None`` for torch's global one.
        drop_last: leave out a last batch that is smaller than the others.

    Raises:
        ValueError: ``n`` or ``batch_size`` below 1, no batch left after ``drop_last``, or a
            generator that is not on the CPU.
    """
    check_int("n", n, 1)
    check_int("batch_size", batch_size, 1, n if drop_last else None)
    if generator is not None and generator.device.type != "cpu":
        raise ValueError(f"generator has to be on the CPU, but got one on {generator.device}")
    order = torch.randperm(n, generator=generator, device="cpu")
    return iter(order[: n - n % batch_size if drop_last else n].split(batch_size))


def accuracy(model: nn.Module, X: Tensor, y: Tensor) -> float:
    """Return the fraction in [0, 1] of samples whose largest output is at their class.

    Args:
        X: samples (N, ...), mapped by ``model`` to (N, C).
        y: classes (N,), int64.

    Raises:
        ValueError: lengths or shapes that do not match, or no sample.
    """
    _check_samples(X, y)
    with evaluating(model):
        y_hat = model(X)  # (N, C)
    if y.ndim != 1 or y_hat.ndim != 2:
        raise ValueError(
            "accuracy needs outputs of shape (N, C) and y of shape (N,), but got "
            f"{tuple(y_hat.shape)} and {tuple(y.shape)}"
        )
    return (y_hat.argmax(dim=1) == y).double().mean().item()


def mean_loss(
    model: nn.Module,
    X: Tensor,
    y: Tensor,
    loss_fn: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> float:
    """Return ``loss_fn`` over all samples in eval mode; arguments and errors as in `train`."""
    _check_samples(X, y)
    with evaluating(model):
        return checked_loss(loss_fn, model(X), y).item()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put ``model`` into eval mode without gradients; then give each module its mode back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield model
    finally:
        for module, mode in modes.items():
            module.training = mode  # not .train(mode), which would set the children too


def checked_loss(
    loss_fn: Callable[[Tensor, Tensor], Tensor], y_hat: Tensor, y: Tensor
) -> Tensor:
    """Return ``loss_fn(y_hat, y)``, or raise ValueError if shapes do not match."""
    # (N, 1) against (N,) would broadcast to (N, N) and train on nonsense with a warning.
    if y.is_floating_point() and y_hat.shape != y.shape:
        raise ValueError(
            "y has to have the shape of the model's output, "
            f"{tuple(y_hat.shape)}, but got {tuple(y.shape)}"
        )
    loss = loss_fn(y_hat, y)
    if loss.numel() != 1:
        raise ValueError(f"loss_fn has to return one number, but got {tuple(loss.shape)}")
    return loss


def checked_factor(schedule: Callable[[int], float], step: int) -> float:
    """Return ``schedule(step)``, or raise ValueError if it is negative or not finite."""
    factor = float(schedule(step))
    if not 0 <= factor < math.inf:
        raise ValueError(
            "schedule has to return a finite factor of at least 0, "
            f"but got {factor} at step {step}"
        )
    return factor


@contextmanager
def noise_from(generator: torch.Generator | None, device: torch.device) -> Iterator[None]:
    """Let torch's global generators follow ``generator`` for a while, without advancing it."""
    if generator is None:
        yield
        return
    copy = torch.Generator(generator.device).set_state(generator.get_state())
    seed = int(torch.randint(2**32, (), generator=copy))
    on_cuda = device.type == "cuda"
    with (
        torch.random.fork_rng([device] if on_cuda else []),
        torch.cuda.device(device) if on_cuda else nullcontext(),
    ):
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            torch.cuda.manual_seed(seed)
        yield


def _check_samples(X: Tensor, y: Tensor) -> None:
    for name, value in (("X", X), ("y", y)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} has to be a tensor, but got {type(value).__name__}")
        if value.ndim == 0 or len(value) == 0:
            raise ValueError(f"{name} has to hold samples, but got shape {tuple(value.shape)}")
    if len(X) != len(y):
        raise ValueError(f"X and y have to be of one length, but got {len(X)} and {len(y)}")
