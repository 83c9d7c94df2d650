"""Schedules against torch.optim.lr_scheduler, beyond their end, and in use."""

import doctest
import inspect
import io
import math

import cloudpickle
import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from lib import schedules
from lib.data import Split
from lib.device import device, generator
from lib.optimizers import SGD
from lib.schedules import (
    ReduceLROnPlateau,
    constant,
    cosine,
    cosine_with_warm_restarts,
    exponential,
    inverse_square_root,
    linear,
    multi_step,
    one_cycle,
    polynomial,
    step,
    warmup,
)
from lib.study import study
from lib.train import checked_factor, train

LR, STEPS = 0.3, 200
TORCH = {
    constant: lr_scheduler.ConstantLR,
    step: lr_scheduler.StepLR,
    multi_step: lr_scheduler.MultiStepLR,
    exponential: lr_scheduler.ExponentialLR,
    polynomial: lr_scheduler.PolynomialLR,
    linear: lr_scheduler.LinearLR,
    cosine: lr_scheduler.CosineAnnealingLR,
    cosine_with_warm_restarts: lr_scheduler.CosineAnnealingWarmRestarts,
    one_cycle: lr_scheduler.OneCycleLR,
    ReduceLROnPlateau: lr_scheduler.ReduceLROnPlateau,
}
CASES = [
    (constant, {"factor": 0.4, "total_iters": 70}),
    (constant, {"factor": 0.4, "total_iters": 1}),
    (step, {"step_size": 30}),
    (step, {"step_size": 1, "gamma": 0.97}),
    (multi_step, {"milestones": [0, 30, 31, 31, 150], "gamma": 0.5}),
    (multi_step, {"milestones": []}),
    (exponential, {"gamma": 0.95}),
    (exponential, {"gamma": 1.02}),
    (polynomial, {}),
    (polynomial, {"total_iters": 150, "power": 2.5}),
    (linear, {}),
    (linear, {"start_factor": 1.0, "end_factor": 0.1, "total_iters": 120}),
    (cosine, {"T_max": STEPS}),
    (cosine, {"T_max": STEPS, "end_factor": 0.1}),
    (cosine_with_warm_restarts, {"T_0": 30}),
    (cosine_with_warm_restarts, {"T_0": 7, "T_mult": 2, "end_factor": 0.2}),
    (cosine_with_warm_restarts, {"T_0": 1, "T_mult": 3}),
    (one_cycle, {"total_steps": STEPS}),
    (one_cycle, {"total_steps": STEPS, "three_phase": True, "anneal_strategy": "linear"}),
    (one_cycle, {"total_steps": STEPS, "pct_start": 0.5, "three_phase": True}),
    (one_cycle, {"total_steps": STEPS, "pct_start": 0.123, "div_factor": 3.0}),
    (one_cycle, {"total_steps": STEPS, "pct_start": 0.001, "final_div_factor": 2.0}),
]
ids = [f"{make.__name__}-{i}" for i, (make, _) in enumerate(CASES)]


def parameter():
    return nn.Parameter(torch.zeros(1))


def rates(build, steps=STEPS):
    """The rates that a scheduler of torch sets, before the first step and after each."""
    optimizer = torch.optim.SGD([parameter()], lr=LR)
    scheduler, found = build(optimizer), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def of_torch(make, options):
    options = dict(options)
    if "end_factor" in options and make is not linear:
        options["eta_min"] = LR * options.pop("end_factor")
    if make is one_cycle:
        options |= {"max_lr": LR, "cycle_momentum": False}
    return lambda optimizer: TORCH[make](optimizer, **options)


def close(values):
    return pytest.approx(values, rel=1e-6, abs=1e-9)


def plot(schedule, steps=STEPS):
    return [schedule(t) for t in range(steps)]


# --- against torch ---


@pytest.mark.parametrize(("make", "options"), CASES, ids=ids)
def test_two_hundred_steps_equal_torch(make, options):
    found = [LR * factor for factor in plot(make(**options))]
    assert found == close(rates(of_torch(make, options)))


@pytest.mark.parametrize("make", TORCH)
def test_names_order_and_defaults_are_those_of_torch(make):
    known = {p.name: p.default for p in inspect.signature(TORCH[make]).parameters.values()}
    left_out = ["last_epoch", "max_lr", "epochs", "steps_per_epoch", "cycle_momentum",
                "base_momentum", "max_momentum"]  # fmt: skip
    theirs = {n: d for n, d in known.items() if n not in left_out}
    if make is not ReduceLROnPlateau:
        del theirs["optimizer"]
    renamed = {"eta_min": "end_factor"}
    theirs = {renamed.get(n, n): d for n, d in theirs.items()}
    if make is constant:
        theirs |= {"factor": 1.0, "total_iters": None}
    if make is one_cycle:
        theirs["total_steps"] = inspect.Parameter.empty
    ours = {p.name: p.default for p in inspect.signature(make).parameters.values()}
    assert list(ours.items()) == list(theirs.items())


def test_beyond_the_end():
    beyond = range(50, 120)
    falls = cosine(50, end_factor=0.1)
    assert [falls(t) for t in beyond] == [0.1] * 70  # torch's rises again:
    theirs = rates(lambda o: lr_scheduler.CosineAnnealingLR(o, 50, eta_min=0.1 * LR), 101)
    assert theirs[50] == close(0.1 * LR)
    assert theirs[100] == close(LR)
    cycle = one_cycle(50)
    assert [cycle(t) for t in beyond] == [cycle(49)] * 70  # torch's raises
    assert cycle(49) == pytest.approx(1 / 25e4)
    with pytest.raises(ValueError, match="Tried to step"):
        rates(lambda o: lr_scheduler.OneCycleLR(o, LR, 50, cycle_momentum=False), 60)
    assert polynomial(50)(120) == 0
    assert linear(0.5, 0.2, 50)(120) == 0.2
    assert constant()(10**6) == 1


def test_the_shortest_cycles_have_factors_in_range():
    # A rise of no steps at all, where torch divides by zero.
    assert plot(one_cycle(2, pct_start=0.5), 3) == [1, 1 / 25e4, 1 / 25e4]
    assert one_cycle(1)(0) == pytest.approx(1 / 25e4)
    assert one_cycle(1, pct_start=0.5, three_phase=True)(0) == pytest.approx(1 / 25e4)
    assert cosine_with_warm_restarts(1)(5) == 1


@pytest.mark.parametrize(("make", "options"), CASES, ids=ids)
def test_lambda_lr_takes_a_schedule_as_it_is(make, options):
    schedule = make(**options)
    found = rates(lambda optimizer: lr_scheduler.LambdaLR(optimizer, schedule), 40)
    assert found == [LR * factor for factor in plot(schedule, 40)]


# --- warm-up and the inverse square root ---


@pytest.mark.parametrize("start", [1 / 3, 0.01, 1.0])
def test_warmup_is_torchs_sequence_of_two_schedulers(start):
    found = plot(warmup(20, then=cosine(180), start=start))

    def build(o):
        two = lr_scheduler.LinearLR(o, start, 1.0, 20), lr_scheduler.CosineAnnealingLR(o, 180)
        return lr_scheduler.SequentialLR(o, list(two), [20])

    assert [LR * factor for factor in found] == close(rates(build))


def test_warmup_rises_to_where_the_next_schedule_begins():
    then = multi_step([0, 3], gamma=0.5)
    assert plot(warmup(4, then, start=0), 9) == [
        0,
        0.125,
        0.25,
        0.375,
        0.5,
        0.5,
        0.5,
        0.25,
        0.25,
    ]
    assert plot(warmup(4), 6) == pytest.approx([1 / 3, 1 / 2, 2 / 3, 5 / 6, 1, 1])
    assert plot(warmup(0, then), 5) == plot(then, 5)
    twice = warmup(2, warmup(2, start=0.5), start=0)
    assert plot(twice, 6) == [0, 0.25, 0.5, 0.75, 1, 1]


def test_inverse_square_root_with_warmup_is_the_rate_of_vaswani_et_al():
    d_model, w = 512, 40
    t = np.arange(1, STEPS + 1)
    paper = d_model**-0.5 * np.minimum(t**-0.5, t * w**-1.5)
    schedule = warmup(w - 1, then=inverse_square_root(w), start=1 / w)
    assert (d_model * w) ** -0.5 * np.array(plot(schedule)) == close(paper)


def test_docstring_examples():
    failed, tried = doctest.testmod(schedules)
    assert tried >= 2
    assert failed == 0


# --- in use ---


@pytest.mark.parametrize("schedule", [*(make(**o) for make, o in CASES), warmup(5, cosine(9))])
def test_schedules_are_plain_pure_functions_that_travel(schedule):
    assert inspect.isfunction(schedule)
    copied = cloudpickle.loads(cloudpickle.dumps(schedule))
    backwards = [copied(t) for t in reversed(range(60))]  # no memory of the step before
    assert backwards[::-1] == plot(schedule, 60)
    assert all(type(factor) is float for factor in backwards)
    assert schedule(np.int64(7)) == schedule(torch.tensor(7)) == schedule(7)


def data(seed=0):
    g = generator(seed)
    X = torch.randn(40, 3, generator=g)
    y = X.sum(1, keepdim=True)
    return Split(X, y, X, y, X, y)


def net(g):
    model = nn.Linear(3, 1)
    nn.init.normal_(model.weight, generator=g)
    nn.init.zeros_(model.bias)
    return model


def test_train_and_study_follow_a_schedule():
    schedule = warmup(4, then=cosine(8), start=0.1)
    options = {"batch_size": 10, "loss_fn": nn.functional.mse_loss, "schedule": schedule}
    g = generator(3)
    model, split = net(g).to(device()), data(3).to(device())
    optimizer = SGD(model.parameters(), lr=0.1)
    history = train(
        model,
        split.X_train,
        split.y_train,
        optimizer,
        epochs=4,
        generator=generator(3),
        **options,
    )
    found = study({"a": {"lr": 0.1}}, model=net, split=data, seeds=[3], epochs=4, **options)
    assert found["a", "loss"][0] == pytest.approx(history.loss)
    # Cosine has come to 0 after 12 steps: the last epoch leaves the weights alone.
    val = found["a", "val_loss"][0]
    assert val[2] == val[3] < val[1] < val[0]


def test_growth_without_end_is_refused_where_it_is_used():
    assert exponential(2.0)(5000) == math.inf
    assert step(1, gamma=2)(5000) == math.inf
    with pytest.raises(ValueError, match="got inf at step 5000"):
        checked_factor(multi_step(range(5000), gamma=3), 5000)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: constant(-1), ValueError, "factor has to be .* got -1"),
        (lambda: constant(total_iters=-1), ValueError, "total_iters .* got -1"),
        (lambda: step(0), ValueError, "step_size has to be at least 1, but got 0"),
        (lambda: step(2.0), TypeError, "step_size has to be an int, but got 2.0"),
        (lambda: step(1, gamma=0), ValueError, r"gamma has to be in \(0, inf\), but got 0"),
        (lambda: multi_step([1], gamma=-0.1), ValueError, "gamma .* got -0.1"),
        (lambda: multi_step([5, 3]), ValueError, r"milestones .* got \[5, 3\]"),
        (lambda: multi_step([-1, 3]), ValueError, r"milestones\[0\] .* got -1"),
        (lambda: multi_step([1, 3.5]), TypeError, r"milestones\[1\] .* got 3.5"),
        (lambda: exponential(math.nan), ValueError, "gamma .* got nan"),
        (lambda: exponential(math.inf), ValueError, "gamma .* got inf"),
        (lambda: exponential("0.9"), TypeError, "gamma has to be a number, but got '0.9'"),
        (lambda: exponential(True), TypeError, "gamma .* got True"),
        (lambda: polynomial(0), ValueError, "total_iters .* got 0"),
        (lambda: polynomial(5, power=0), ValueError, "power .* got 0"),
        (lambda: linear(start_factor=-0.1), ValueError, "start_factor .* got -0.1"),
        (lambda: linear(end_factor=math.nan), ValueError, "end_factor .* got nan"),
        (lambda: linear(total_iters=0), ValueError, "total_iters .* got 0"),
        (lambda: cosine(0), ValueError, "T_max has to be at least 1, but got 0"),
        (lambda: cosine(5, end_factor=-1), ValueError, "end_factor .* got -1"),
        (lambda: cosine_with_warm_restarts(0), ValueError, "T_0 .* got 0"),
        (lambda: cosine_with_warm_restarts(5, 0), ValueError, "T_mult .* got 0"),
        (lambda: cosine_with_warm_restarts(5, 1.5), TypeError, "T_mult .* got 1.5"),
        (lambda: cosine_with_warm_restarts(5, 1, -1), ValueError, "end_factor .* got -1"),
        (lambda: one_cycle(0), ValueError, "total_steps .* got 0"),
        (lambda: one_cycle(9, pct_start=0), ValueError, r"pct_start .* \(0, 1\), but got 0"),
        (lambda: one_cycle(9, pct_start=1.0), ValueError, "pct_start .* got 1.0"),
        (lambda: one_cycle(9, 0.6, three_phase=True), ValueError, "1/2 .* got 0.6"),
        (lambda: one_cycle(9, anneal_strategy="sin"), ValueError, "'linear', but got 'sin'"),
        (lambda: one_cycle(9, div_factor=0), ValueError, "div_factor .* got 0"),
        (lambda: one_cycle(9, final_div_factor=math.inf), ValueError, "final_div_factor"),
        (lambda: inverse_square_root(0), ValueError, "timescale .* got 0"),
        (lambda: warmup(-1), ValueError, "steps has to be at least 0, but got -1"),
        (lambda: warmup(5, start=1.5), ValueError, r"start .* \[0, 1\], but got 1.5"),
        (lambda: warmup(5, start=-0.1), ValueError, "start .* got -0.1"),
        (lambda: warmup(5, then=0.5), TypeError, "then has to be a function .* got 0.5"),
        (lambda: warmup(5, then=lambda t: -1.0), ValueError, r"then\(0\) .* got -1.0"),
        (lambda: constant()(-1), ValueError, "step has to be at least 0, but got -1"),
        (lambda: cosine(5)(2.0), TypeError, "step has to be an int, but got 2.0"),
        (lambda: warmup(5)(math.nan), TypeError, "step has to be an int, but got nan"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_by_name(call, error, words):
    with pytest.raises(error, match=words):
        call()


# --- ReduceLROnPlateau ---

PLATEAUS = [
    {"patience": 2},
    {"patience": 0, "factor": 0.5, "cooldown": 2},
    {"patience": 1, "factor": 0.3, "cooldown": 1, "threshold": 0.1},
    {"patience": 1, "factor": 0.3, "threshold": 0.05, "threshold_mode": "abs"},
    {"patience": 1, "factor": 0.5, "min_lr": [0.02, 0.2]},
    {"patience": 1, "factor": 0.5, "min_lr": 0.05, "eps": 0.03},
]


def two_groups(cls):
    return cls([{"params": [parameter()], "lr": 0.3}, {"params": [parameter()]}], lr=1.0)


@pytest.mark.parametrize("optimizer", [SGD, torch.optim.SGD])
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("options", PLATEAUS)
def test_plateau_equals_torch(options, mode, optimizer):
    g, lowered = generator(0), 0
    for shift in (0.0, 3.0):  # negative metrics among them, where "rel" is odd
        metrics = torch.randn(60, generator=g) / 4 + shift * torch.linspace(1, 0.5, 60)
        metrics[::11] = math.nan  # the first one too
        metrics[30:33] = metrics[29]
        mine = ReduceLROnPlateau(two_groups(optimizer), mode=mode, **options)
        torchs = two_groups(torch.optim.SGD)
        other = lr_scheduler.ReduceLROnPlateau(torchs, mode=mode, **options)
        for metric in metrics:
            other.step(metric)
            expected = [group["lr"] for group in torchs.param_groups]
            assert mine.step(metric) == expected
            assert [group["lr"] for group in mine.optimizer.param_groups] == expected
            assert (mine.best, mine.num_bad_epochs) == (other.best, other.num_bad_epochs)
        lowered += expected[0] < 0.3
    assert lowered


def test_nan_counts_as_no_improvement():
    plateau = ReduceLROnPlateau(SGD([parameter()], lr=1.0), patience=1, factor=0.5)
    assert [plateau.step(m) for m in (2.0, math.nan, 1.0)] == [[1.0]] * 3
    assert plateau.best == 1.0
    assert [plateau.step(math.nan) for _ in range(4)] == [[1.0], [0.5], [0.5], [0.25]]
    assert plateau.best == 1.0


def test_state_saved_and_resumed_continues_as_if_nothing_happened():
    metrics = (torch.randn(40, generator=generator(1)) + 5).tolist()
    options = {
        "mode": "max",
        "patience": 1,
        "cooldown": 2,
        "factor": 0.7,
        "min_lr": [0.01, 0.02],
    }
    through = ReduceLROnPlateau(two_groups(SGD), **options)
    expected = [through.step(m) for m in metrics]
    first = ReduceLROnPlateau(two_groups(SGD), **options)
    for m in metrics[:17]:
        first.step(m)
    file = io.BytesIO()
    torch.save([first.state_dict(), first.optimizer.state_dict()], file)
    file.seek(0)
    saved, of_optimizer = torch.load(file, weights_only=True)
    resumed = ReduceLROnPlateau(two_groups(SGD))
    resumed.load_state_dict(saved)
    resumed.optimizer.load_state_dict(of_optimizer)
    assert [resumed.step(m) for m in metrics[17:]] == expected[17:]
    with pytest.raises(
        ValueError, match=r"state_dict has to hold \['best'.* but got \['mode'\]"
    ):
        resumed.load_state_dict({"mode": "min"})


def test_a_rate_that_is_a_tensor_is_changed_in_place():
    lr = torch.tensor(0.5)
    optimizer = torch.optim.SGD([parameter()], lr=lr)
    plateau = ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    assert [plateau.step(1.0) for _ in range(2)] == [[0.5], [0.25]]
    assert optimizer.param_groups[0]["lr"] is lr


def test_train_lowers_the_rate_between_epochs():
    model, split = net(generator(0)).to(device()), data().to(device())
    optimizer = SGD(model.parameters(), lr=0.1)
    plateau = ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    history = train(
        model,
        split.X_train,
        split.y_train,
        optimizer,
        epochs=4,
        generator=generator(0),
        loss_fn=nn.functional.mse_loss,
        on_epoch=lambda epoch, model: plateau.step(float(epoch == 0)),
    )
    assert history.records == [[0.1], [0.1], [0.05], [0.025]]


def test_groups_may_be_added_later():
    optimizer = SGD([parameter()], lr=1.0)
    one, each = (ReduceLROnPlateau(optimizer, patience=0, min_lr=m) for m in (0.0, [0.0]))
    optimizer.add_param_group({"params": [parameter()], "lr": 0.5})
    assert [one.step(1.0), one.step(1.0)] == [[1.0, 0.5], [0.1, 0.05]]
    each.step(1.0)
    with pytest.raises(ValueError, match=r"min_lr has to hold 2 rates, but got \(0.0,\)"):
        each.step(1.0)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"optimizer": [parameter()]}, TypeError, "optimizer has to have param_groups"),
        ({"mode": "auto"}, ValueError, "mode has to be 'min' or 'max', but got 'auto'"),
        ({"threshold_mode": "x"}, ValueError, "threshold_mode .* got 'x'"),
        ({"factor": 1.0}, ValueError, r"factor has to be in \[0, 1\), but got 1.0"),
        ({"factor": -0.1}, ValueError, "factor .* got -0.1"),
        ({"patience": -1}, ValueError, "patience .* got -1"),
        ({"patience": 1.5}, TypeError, "patience .* got 1.5"),
        ({"cooldown": -1}, ValueError, "cooldown .* got -1"),
        ({"threshold": 1.0}, ValueError, r"threshold has to be in \[0, 1\), but got 1.0"),
        ({"threshold": -1e-4, "mode": "max"}, ValueError, "threshold .* got -0.0001"),
        ({"min_lr": [0.1, 0.1]}, ValueError, "min_lr has to hold 1 rates"),
        ({"min_lr": -1}, ValueError, r"min_lr\[0\] .* got -1"),
        ({"eps": math.nan}, ValueError, "eps .* got nan"),
    ],
)
def test_plateau_refuses_bad_input_by_name(options, error, words):
    with pytest.raises(error, match=words):
        ReduceLROnPlateau(**{"optimizer": SGD([parameter()])} | options)


@pytest.mark.parametrize("metrics", [torch.zeros(2), "low", None])
def test_plateau_needs_one_number(metrics):
    plateau = ReduceLROnPlateau(SGD([parameter()]))
    with pytest.raises(TypeError, match="metrics has to be one number, but got"):
        plateau.step(metrics)
