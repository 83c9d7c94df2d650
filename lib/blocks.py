"""A block of a study: some of its seeds, with every setting, in one process."""

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import cloudpickle
import numpy as np
import torch
from torch import nn

from lib.data import Split
from lib.device import generator
from lib.lane import Lane, Plan, Run
from lib.train import noise_from


def run_block(plan: Plan, seeds: Sequence[int]) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    """Train every setting with every seed; return recorded arrays by (setting, seed)."""
    found = {}
    with _alone_on_one_thread():
        for runs in _lanes(plan, seeds):
            arrays = Lane(runs, plan, stacked(plan.device)).train()
            found |= {(run.name, run.seed): x for run, x in zip(runs, arrays, strict=True)}
    return found


def stacked(device: str) -> bool:
    """Whether a lane is one batched program; `lib.networks` says why not on a CPU."""
    return device != "cpu"


def _lanes(plan: Plan, seeds: Sequence[int]) -> Iterator[list[Run]]:
    runs = _build(plan, seeds)
    if not stacked(plan.device):
        yield from ([run] for run in runs)  # each is built when its turn comes
        return
    for _, lane in groupby(sorted(runs, key=_program), key=_program):
        yield list(lane)


def _build(plan: Plan, seeds: Sequence[int]) -> Iterator[Run]:
    """Build the runs, seed by seed; settings with the same ``split`` share its tensors."""
    for seed in seeds:
        splits: dict[Callable, Split] = {}
        for name, setting in plan.settings.items():
            g = generator(seed)
            with noise_from(g, g.device):  # what forgets g and draws globally follows, too
                if setting.split not in splits:
                    splits[setting.split] = setting.split(seed)
                model = setting.model(g)
            _check_model(name, model)
            yield Run(name, setting, seed, splits[setting.split], model)


def _program(run: Run) -> bytes:
    """Equal for runs that may share a lane; where it differs needlessly, only time is lost."""
    s = run.setting
    names = [f"{xy}_{part}" for part in ("train", "val") for xy in "Xy"]
    shapes = [getattr(run.split, name).shape for name in names]
    hyper = {name: _form(value) for name, value in s.hyper.items()}
    blank = copy.deepcopy(run.model).to("meta")  # the module without its numbers
    return cloudpickle.dumps((blank, s.optimizer, hyper, s.batch_size, s.loss_fn, shapes))


def _form(value: Any) -> Any:
    """What has to agree in a lane: whether a number is 0, and all that is no number."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value == 0 if number else value


def _check_model(name: str, model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model of {name!r} has to return a module, but got {model!r}")
    kinds = {f"{p.dtype} on {p.device}" for p in model.parameters() if p.requires_grad}
    if len(kinds) != 1 or not all(kind.endswith("cpu") for kind in kinds):
        raise ValueError(
            f"model of {name!r} has to have trainable parameters of one dtype on the CPU, "
            f"but got {sorted(kinds) or 'none'}"
        )


_turn = threading.RLock()


@contextmanager
def _alone_on_one_thread() -> Iterator[None]:
    """One block at a time in a process, on one thread.

    Sums over several threads add in another order. Blocks side by side would gain little from
    threads, and would share torch's global generator and its number of threads.
    """
    with _turn:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
