"""Runs of a study that train as one program.

A run is a setting with a seed. A *lane* holds R runs that differ in numbers only and trains
them in step; on a CPU a lane is a single run. Shapes below are those of a lane of R runs; a
single run has no leading R.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lib.data import Split
from lib.device import generator
from lib.networks import Networks
from lib.optimizers import Optimizer
from lib.train import checked_factor, checked_loss, evaluating

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Setting:
    """How to train; `lib.study.study` says what each field means."""

    model: Callable[[torch.Generator], nn.Module]
    split: Callable[[int], Split]
    optimizer: type[Optimizer]
    hyper: Mapping[str, Any]
    batch_size: int
    loss_fn: Callable[[Tensor, Tensor], Tensor]
    schedule: Callable[[int], float] | None

    def rate(self, step: int) -> float:
        """The learning rate by number of steps taken."""
        return self.hyper["lr"] * (checked_factor(self.schedule, step) if self.schedule else 1)


@dataclass(frozen=True)
class Plan:
    """What the runs of a study have in common; travels to other processes.

    Attributes:
        settings: by name.
        points: when to record, in epochs or in steps; the last one is the end.
        in_epochs: the unit of ``points``.
        record: what to record.
        metrics, inspect: functions behind these names.
        device: where to run.
    """

    settings: Mapping[str, Setting]
    points: Sequence[int]
    in_epochs: bool
    record: Sequence[str]
    metrics: Mapping[str, Callable[[Tensor, Tensor], Tensor]]
    inspect: Mapping[str, Callable[[dict[str, Tensor]], Tensor]]
    device: str


@dataclass(frozen=True)
class Run:
    """A setting with a seed: the data it will see and the network at its start."""

    name: str
    setting: Setting
    seed: int
    split: Split
    model: nn.Module


class Lane:
    """Runs that share architecture, optimizer, batch size and loss."""

    def __init__(self, runs: Sequence[Run], plan: Plan, stacked: bool):
        self.runs, self.plan, self.setting = runs, plan, runs[0].setting
        self.networks = Networks(
            [run.model for run in runs],
            seeds=[run.seed for run in runs],
            device=torch.device(plan.device),
            stacked=stacked,
        )
        self.data: dict[str, list[Tensor]] = {}
        self.splits = list({id(run.split): run.split for run in runs}.values())
        places = {id(split): i for i, split in enumerate(self.splits)}
        self.which = self.networks.stack([torch.tensor(places[id(r.split)]) for r in runs])
        self.alive = torch.ones_like(self.which, dtype=torch.bool)  # (R,)
        self.loss = torch.zeros_like(self.which, dtype=torch.float64)  # (R,), the sum over
        self.samples = 0  # so many samples

    def train(self) -> list[dict[str, np.ndarray]]:
        """Train to the end and return what was recorded, one dict for each run.

        Generators are used as in `lib.train.train`, so that a single run equals that loop.
        """
        n, batch_size = len(self.runs[0].split.X_train), self.setting.batch_size
        per_epoch = -(-n // batch_size)
        unit = per_epoch if self.plan.in_epochs else 1
        points = [point * unit for point in self.plan.points]
        stops, end = set(points), points[-1]
        rates, hyper, state = self._rates(end), self._hyper(), {}
        generators = [generator(run.seed) for run in self.runs]
        rows = [self._measure(0, end)] if points[0] == 0 else []
        for start in range(0, end, per_epoch):
            with self.networks.noise(generators):
                orders = [torch.randperm(n, generator=g) for g in generators]
                batches = self.networks.stack(orders).split(batch_size, dim=-1)  # (R, B) each
                for step, batch in enumerate(batches[: end - start], start):
                    state = self._step(batch, state, lr=rates[step], **hyper)
                    if step + 1 in stops:
                        rows.append(self._measure(step + 1, end))
        return [self._arrays(rows, i) for i in range(len(self.runs))]

    def _step(self, batch: Tensor, state: dict, **hyper: Any) -> dict:
        networks = self.networks
        X, y = self._samples("train", batch)  # (R, B, ...)
        loss = networks.each(self._loss_of, X, y)  # (R,)
        networks.backward(loss)
        change, state = self.setting.optimizer.update(
            networks.gradient, state, networks.weights, **hyper
        )
        networks.weights += change
        self.loss.add_(loss.detach(), alpha=batch.shape[-1])
        self.samples += batch.shape[-1]
        return state

    def _loss_of(self, model: Callable[[Tensor], Tensor], X: Tensor, y: Tensor) -> Tensor:
        return checked_loss(self.setting.loss_fn, model(X), y).reshape(())

    def _samples(self, part: str, batch: Tensor | None = None) -> list[Tensor]:
        """X and y of every run, all samples (R, N, ...) or a batch of them (R, B, ...)."""
        if part not in self.data:
            names = (f"X_{part}", f"y_{part}")
            tensors = ([getattr(split, name) for split in self.splits] for name in names)
            self.data[part] = [self.networks.stack(values) for values in tensors]
        if not self.networks.stacked:
            return [x if batch is None else x.index_select(0, batch) for x in self.data[part]]
        at = (self.which,) if batch is None else (self.which[:, None], batch)
        return [x[at] for x in self.data[part]]

    def _measure(self, step: int, end: int) -> dict[str, np.ndarray]:
        """Record every run, (R, ...) each; a run is NaN once its loss was not finite."""
        networks, found = self.networks, {}
        self.alive &= self.loss.isfinite() & networks.weights.isfinite().all(-1)
        networks.weights.masked_fill_(~self.alive[..., None], 0)  # nothing trips over NaN
        found["loss"] = self.loss / self.samples  # NaN before the first step
        self.loss.zero_()
        self.samples = 0
        with evaluating(networks.model):
            for part in PARTS:
                names = [name for name in self.plan.record if name.startswith(part + "_")]
                if names and (part != "test" or step == end):
                    values = networks.each(self._metrics(names), *self._samples(part))
                    found |= dict(zip(names, values, strict=True))
            for name, fn in self.plan.inspect.items():
                found[name] = networks.inspect(fn)
        lost = ~self.alive.cpu().numpy().reshape(-1)
        rows = {"step": np.full(len(self.runs), step), "diverged": lost}
        for name, value in found.items():
            x = torch.as_tensor(value, dtype=torch.float64).detach().cpu().numpy()
            rows[name] = x.reshape(len(self.runs), *x.shape[len(networks.lead) :]).copy()
            rows[name][lost] = np.nan
        return rows

    def _metrics(self, names: Sequence[str]) -> Callable[..., list[Tensor]]:
        """A function of one network that computes its outputs once for all metrics."""

        def measure(model: Callable[[Tensor], Tensor], X: Tensor, y: Tensor) -> list[Tensor]:
            y_hat = model(X)
            return [self._metric(name.split("_", 1)[1], y_hat, y) for name in names]

        return measure

    def _metric(self, name: str, y_hat: Tensor, y: Tensor) -> Tensor:
        if name == "loss":
            return checked_loss(self.setting.loss_fn, y_hat, y)
        value = torch.as_tensor(self.plan.metrics[name](y_hat, y))
        if value.numel() != 1:
            raise ValueError(
                f"metric {name!r} has to return one number, but got {tuple(value.shape)}"
            )
        return value.reshape(())

    def _arrays(self, rows: Sequence[dict[str, np.ndarray]], i: int) -> dict[str, np.ndarray]:
        """What run ``i`` recorded: (points, ...), and (...) for what has an end only."""
        arrays = {"diverged": rows[-1]["diverged"][i]}
        for name in ("step", *self.plan.record, *self.plan.inspect):
            at_end = name.startswith("test_")
            arrays[name] = rows[-1][name][i] if at_end else np.stack([r[name][i] for r in rows])
        return arrays

    def _hyper(self) -> dict[str, Any]:
        """The optimizer's hyper-parameters apart from lr; tensors (R, 1) where runs differ."""
        names = [name for name in self.setting.hyper if name != "lr"]
        return {
            name: self._number([r.setting.hyper[name] for r in self.runs]) for name in names
        }

    def _rates(self, steps: int) -> Sequence[float | Tensor]:
        """The learning rate of each step: a number, or a tensor (R, 1) where runs differ."""
        rates = [[run.setting.rate(step) for run in self.runs] for step in range(steps)]
        if all(rate == row[0] for row in rates for rate in row):
            return [row[0] for row in rates]
        return self.networks.weights.new_tensor(rates)[..., None]  # (steps, R, 1)

    def _number(self, values: Sequence[Any]) -> Any:
        # One number where it will do: the optimizer need not read it from the device.
        if all(value == values[0] for value in values):
            return values[0]
        return self.networks.weights.new_tensor(values)[:, None]
