"""Claims on schedules that need no page: rates that torch's schedulers give, and listings."""

import ast
import math
from itertools import pairwise

import torch
from torch import optim
from torch.optim import SGD, Adagrad
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    StepLR,
)

from lib.claims import Exact
from lib.schedules import constant


def weight():
    return torch.nn.Parameter(torch.zeros((), dtype=torch.float64))


def rates(scheduler, num_steps, called=True, lr=1.0, **kwargs):
    """The rate before each step and after the last, num_steps + 1 numbers."""
    optimizer = SGD([weight()], lr=lr)
    schedule = scheduler(optimizer, **kwargs)
    found = [optimizer.param_groups[0]["lr"]]
    for _ in range(num_steps):
        optimizer.step()
        if called:
            schedule.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_a_scheduler_changes_the_rate_when_it_is_called(settle):
    def least_change(called):
        found = [
            rates(StepLR, 50, called, step_size=10, gamma=0.5),
            rates(ExponentialLR, 50, called, gamma=0.5),
            rates(CosineAnnealingLR, 50, called, T_max=50),
        ]
        return min(abs(lr[-1] / lr[0] - 1) for lr in found)

    settle("SCH-01", Exact(least_change(True) - least_change(False)))


def test_a_constant_schedule_never_changes_the_rate(settle):
    found = rates(LambdaLR, 100, lr_lambda=constant(), lr=0.1)
    of_that_name = rates(ConstantLR, 100, lr=0.1)
    assert of_that_name[0] < of_that_name[-1] == 0.1  # torch's changes the rate once
    settle("SCH-05", Exact(max(found) / min(found) - 1))


def test_step_decay_is_its_closed_form(settle):
    found = rates(StepLR, 40, step_size=10, gamma=0.5, lr=0.1)
    expected = [0.1 * 0.5 ** (t // 10) for t in range(41)]
    settle("SCH-06", Exact(max((math.log(a / b) for a, b in zip(found, expected)), key=abs)))


def test_the_cosine_goes_on_after_T_max(settle):
    found = rates(CosineAnnealingLR, 100, T_max=50)
    settle("SCH-08", where=Exact(found[50]), where_not=Exact(found[100]))


def test_the_cosine_falls_to_eta_min(settle):
    given = [({}, 0), ({"eta_min": 0.01}, 0.01), ({"eta_min": 0.1}, 0.1)]
    off = []
    for kwargs, eta_min in given:
        found = rates(CosineAnnealingLR, 150, T_max=50, **kwargs)
        assert found.index(min(found)) == 50
        off.append(min(found) - eta_min)
    settle("SCH-09", Exact(max(off, key=abs)))


def test_decay_inside_an_optimizer_is_a_schedule(settle):
    def path(decay, schedule):
        w = weight()
        optimizer = Adagrad([w], lr=0.1, lr_decay=decay)
        scheduler, found = LambdaLR(optimizer, schedule), []
        for _ in range(1000):
            w.grad = torch.ones_like(w)
            optimizer.step()
            scheduler.step()
            found.append(w.item())
        return found

    inside = path(0.01, constant())
    outside = path(0.0, lambda step: 1 / (1 + 0.01 * step))
    undecayed = path(0.0, constant())
    assert undecayed[-1] / inside[-1] > 1.5  # the decay matters
    settle("SCH-11", Exact(max(abs(a / b - 1) for a, b in zip(inside, outside))))


RESTARTS = """\
lr_decayed_fn = (
    tf.keras.experimental.ConsineDecayRestarts(0.01, 1000))
 model.complie(optimizer=tf.keras.optimizers.Adam(
    learning_rate=lr_decayed_fn, loss=..., metrics=...)
"""


def parsed(listing):
    try:
        return len(ast.parse(listing).body)
    except SyntaxError:
        return 0


def test_the_listing_with_restarts_does_not_parse(settle):
    indented = RESTARTS.replace("\n model", "\nmodel")
    assert [parsed(indented), parsed(indented + ")")] == [0, 2]  # a second error, and no third
    settle("SCH-12", Exact(parsed(RESTARTS)))


def test_later_periods_may_be_longer(settle):
    def periods(T_mult):
        found = rates(CosineAnnealingWarmRestarts, 7000, T_0=1000, T_mult=T_mult)
        starts = [t for t, rate in enumerate(found) if rate == 1.0]
        return [math.log2((b - a) / 1000) for a, b in pairwise(starts)]

    equal, doubling = periods(1), periods(2)
    assert [len(equal), len(doubling)] == [7, 3]
    settle(
        "SCH-13",
        where=Exact(max(*equal, doubling[0], key=abs)),
        where_not=Exact(min(doubling[1:])),
    )


QUOTED = [
    ">> scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.5)",
    ">> scheduler = optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)",
    ">> scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=0)",
]


def test_the_lines_run_without_their_marks(settle):
    def run(line):
        try:
            exec(line, {"optim": optim, "optimizer": SGD([weight()], lr=0.1)})
        except SyntaxError:
            return 0
        return 1

    settle(
        "SCH-14",
        where=Exact(sum(run(line.removeprefix(">> ")) for line in QUOTED)),
        where_not=Exact(sum(map(run, QUOTED))),
    )
