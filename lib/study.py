"""Comparisons: named settings × seeds × steps in, named arrays out.

The seed decides the split, the starting weights, the batch order and the noise, for every
setting alike. So the difference of two settings at one seed is due to what distinguishes them.

What a run gives depends on its setting and its seed, not on its company: not on the other
settings and seeds, their order, the size of blocks, or the process that computes it. On a CPU
it is the same bit for bit, on a GPU within rounding.
"""

import inspect as signatures
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from lib.blocks import run_block
from lib.device import check_int, device
from lib.lane import PARTS, Plan, Setting
from lib.optimizers import SGD, Optimizer
from lib.result import Result
from lib.work import spread

RUNS_PER_BLOCK = 256  # on a GPU, where a block's networks are in memory all at once


def study(
    settings: Mapping[str, Mapping[str, Any]],
    *,
    seeds: Sequence[int],
    epochs: int | None = None,
    steps: int | None = None,
    every: int | Sequence[int] | None = None,
    record: Sequence[str] = ("loss", "val_loss"),
    metrics: Mapping[str, Callable[[Tensor, Tensor], Tensor]] | None = None,
    inspect: Mapping[str, Callable[[dict[str, Tensor]], Tensor]] | None = None,
    executor: Executor | int | None = None,
    block: int | None = None,
    **common: Any,
) -> Result:
    """Train every setting with every seed and return what was recorded.

    A setting is a dict. What all settings share may be given once, as keyword arguments:

    - ``model``: builds the network from a `torch.Generator` that holds the seed;
    - ``split``: makes a `lib.data.Split` from the seed;
    - ``optimizer``: a class of `lib.optimizers`, default `SGD`; its arguments stand beside
      it, such as ``lr`` or ``momentum``;
    - ``batch_size``: default 64; the last batch of an epoch may be smaller;
    - ``loss_fn``: takes outputs and targets, returns the mean loss; default cross-entropy;
    - ``schedule``: factor on the learning rate, by number of steps taken.

    A run whose loss or weights are no longer finite is NaN from the next record on and is
    marked in ``result.diverged``; the others go on.

    Args:
        settings: by name.
        seeds: one run of every setting each, such as ``lib.device.seeds(20)``.
        epochs, steps: how long to train; give one of the two.
        every: record after so many epochs (or steps), and at the end; or the list of epochs
            (or steps) to record after, 0 being the start. Default: every epoch, or in a study
            of ``steps`` at the end only.
        record: any of ``"loss"``, the mean over the batches since the last record; and
            ``"train_…"``, ``"val_…"``, ``"test_…"`` with ``loss``, ``accuracy`` or a metric,
            over the whole set in eval mode. The test set is read once, at the end.
        metrics: functions from outputs and targets to a number, by name.
        inspect: functions from one network's parameters and buffers (a dict by name) to a
            tensor, by name; recorded along the way. Like metrics, made of torch operations.
        executor: where to run: None for this process, a number of worker processes (loky), or
            any `concurrent.futures.Executor`, such as that of a Dask cluster.
        block: seeds that are in memory together, in one piece of work. Default: 1 on a CPU,
            as many as make 256 runs on a GPU.

    Raises:
        TypeError, ValueError: an argument or a setting that cannot be used.

    Example::

        >>> result = study(
        ...     {"slow": dict(lr=0.01), "fast": dict(lr=0.1)},
        ...     model=lambda g: mlp([64, 100, 10], generator=g),
        ...     split=digits,
        ...     seeds=seeds(20),
        ...     epochs=10,
        ...     record=("loss", "val_accuracy", "test_accuracy"),
        ... )
        >>> result["fast", "val_accuracy"].shape
        (20, 10)
        >>> effects = result.difference("fast", "slow", "test_accuracy")  # (20,)
    """
    metrics, inspect = {"accuracy": _accuracy, **(metrics or {})}, dict(inspect or {})
    _check_record(record, metrics, inspect)
    seeds = _check_seeds(seeds)
    plan = Plan(
        settings=_settings(settings, common),
        points=_points(epochs, steps, every),
        in_epochs=epochs is not None,
        record=tuple(record),
        metrics=metrics,
        inspect=inspect,
        device=str(device()),
    )
    if block is None:
        block = 1 if plan.device == "cpu" else max(1, RUNS_PER_BLOCK // len(plan.settings))
    check_int("block", block, 1)
    blocks = [seeds[i : i + block] for i in range(0, len(seeds), block)]
    with tqdm(total=len(seeds) * len(plan.settings), unit="run", disable=None) as progress:
        found = spread(
            partial(run_block, plan),
            blocks,
            _check_executor(executor),
            done=lambda i: progress.update(len(blocks[i]) * len(plan.settings)),
        )
    runs = {key: arrays for part in found for key, arrays in part.items()}
    names = ("step", *plan.record, *inspect, "diverged")
    arrays = {
        (setting, name): np.stack([runs[setting, seed][name] for seed in seeds])
        for setting in plan.settings
        for name in names
    }
    return Result(
        arrays,
        seeds,
        {name: _in_words(setting) for name, setting in plan.settings.items()},
        list(plan.points) if plan.in_epochs else None,
    )


def _settings(
    settings: Mapping[str, Mapping[str, Any]], common: Mapping[str, Any]
) -> dict[str, Setting]:
    if not isinstance(settings, Mapping) or not settings:
        raise TypeError(f"settings has to be a dict that names at least one, got {settings!r}")
    made = {}
    for name, own in settings.items():
        if not isinstance(name, str) or not isinstance(own, Mapping):
            raise TypeError(f"settings has to hold dicts by name, but got {name!r}: {own!r}")
        made[name] = _setting(name, {**common, **own})
    return made


def _setting(
    name: str,
    given: dict[str, Any],
) -> Setting:
    optimizer = given.pop("optimizer", SGD)
    if not (isinstance(optimizer, type) and issubclass(optimizer, Optimizer)):
        raise TypeError(
            f"optimizer of {name!r} has to be a class of lib.optimizers, but got {optimizer!r}"
        )
    fields = {"batch_size": 64, "loss_fn": F.cross_entropy, "schedule": None}
    fields |= {key: given.pop(key) for key in ("model", "split", *fields) if key in given}
    arguments = list(signatures.signature(optimizer).parameters.values())[1:]  # not params
    hyper = {a.name: given.pop(a.name, a.default) for a in arguments}
    if given:
        known = ["model", "split", "optimizer", *list(fields), *hyper]
        raise TypeError(
            f"{name!r} has to consist of {', '.join(dict.fromkeys(known))}, "
            f"but got {', '.join(given)}"
        )
    for key in ("model", "split", "loss_fn", "schedule"):
        if not (callable(fields.get(key)) or (key == "schedule" and fields[key] is None)):
            raise TypeError(
                f"{key} of {name!r} has to be a function, but got {fields.get(key)!r}"
            )
    try:
        fields["batch_size"] = check_int("batch_size", fields["batch_size"], 1)
        optimizer.check(**hyper)
    except (TypeError, ValueError) as error:
        raise type(error)(f"setting {name!r}: {error}") from None
    return Setting(optimizer=optimizer, hyper=hyper, **fields)


def _points(
    epochs: int | None, steps: int | None, every: int | Sequence[int] | None
) -> tuple[int, ...]:
    if (epochs is None) == (steps is None):
        raise TypeError(f"study needs epochs or steps, but got {epochs} and {steps}")
    end = check_int("epochs", epochs, 1) if steps is None else check_int("steps", steps, 1)
    if every is None:
        every = 1 if steps is None else end
    if isinstance(every, Sequence):
        points = [check_int("every", point, 0, end) for point in every]
        if not all(a < b for a, b in pairwise(points)):
            raise ValueError(f"every has to be a rising list, but got {list(every)}")
    else:
        every = check_int("every", every, 1)
        points = list(range(every, end + 1, every))
    return tuple(points if points and points[-1] == end else [*points, end])


def _check_record(record: Sequence[str], metrics: Mapping, inspect: Mapping) -> None:
    if isinstance(record, str):
        raise TypeError(f"record has to be a list of names, but got the string {record!r}")
    measures = ["loss", *metrics]
    known = ["loss", *(f"{part}_{measure}" for part in PARTS for measure in measures)]
    for name in record:
        if name not in known:
            raise ValueError(f"record has to hold some of {known}, but got {name!r}")
    for name in inspect:
        if name in (*known, "step", "diverged") or name.startswith("test_"):
            raise ValueError(f"inspect has to choose another name than {name!r}")


def _check_seeds(seeds: Sequence[int]) -> list[int]:
    seeds = [check_int("seeds", seed, 0, 2**32 - 1) for seed in seeds]
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds has to hold one or more that differ, but got {seeds}")
    return seeds


def _check_executor(executor: Any) -> Any:
    if executor is None or isinstance(executor, Executor):
        return executor
    if isinstance(executor, int) and not isinstance(executor, bool):
        return check_int("executor", executor, 1)
    raise TypeError(
        "executor has to be None, a number of processes or a concurrent.futures.Executor, "
        f"but got {executor!r}"
    )


def _accuracy(y_hat: Tensor, y: Tensor) -> Tensor:
    """Fraction of samples whose largest output is at their class, as `lib.train.accuracy`."""
    if y.ndim != 1 or y_hat.ndim != 2:
        raise ValueError(
            "accuracy needs outputs of shape (N, C) and y of shape (N,), but got "
            f"{tuple(y_hat.shape)} and {tuple(y.shape)}"
        )
    return (y_hat.argmax(dim=1) == y).double().mean()


def _in_words(setting: Setting) -> dict[str, Any]:
    """A setting as numbers and names that JSON can hold."""
    values = {**vars(setting), **setting.hyper}
    del values["hyper"]
    return {name: _plain(x) for name, x in values.items()}


def _plain(x: Any) -> Any:
    if isinstance(x, tuple | list):
        return [_plain(item) for item in x]
    if isinstance(x, np.generic):
        return x.item()
    if x is None or isinstance(x, bool | int | float | str):
        return x
    return getattr(x, "__qualname__", repr(x))
