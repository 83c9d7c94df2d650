import json
import math
import os
import pickle
import signal
import sys
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from multiprocessing import get_context

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import vmap

import lib.blocks
import lib.networks
import lib.optimizers
from lib.blocks import run_block
from lib.data import digits, polynomial
from lib.device import device, generator
from lib.models import mlp
from lib.noise import Noise
from lib.optimizers import SGD, Adam
from lib.result import Result
from lib.study import study
from lib.train import accuracy, mean_loss, train
from lib.work import spread

cpu_only = pytest.mark.skipif(device().type != "cpu", reason="bit for bit on a CPU only")
RECORD = ("loss", "train_loss", "val_loss", "val_accuracy", "test_loss", "test_accuracy")


def split(seed):
    return digits(seed, num_train=150)


class Centre(nn.Module):
    """Subtracts a running mean that it replaces, not updates, as a first draft would."""

    def __init__(self, n):
        super().__init__()
        self.register_buffer("mean", torch.zeros(n))

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return x - self.mean


NETS = {
    "plain": {},
    "batch norm": {"norm": nn.BatchNorm1d},
    "dropout": {"dropout": 0.3},
    "both": {"norm": nn.BatchNorm1d, "dropout": 0.3},
    "centred": {"norm": Centre},
}


def net(**options):
    """A factory; sizes and activation are those that break equality in a batch."""
    return lambda g: mlp([64, 13, 7, 10], nn.Sigmoid, generator=g, **options)


SETTINGS = {
    "batch norm and dropout": {"model": net(**NETS["both"])},
    "momentum": {"momentum": 0.9, "batch_size": 50},
    "Adam": {"optimizer": Adam, "lr": 0.01, "schedule": lambda step: 1 / (1 + step)},
}
COMMON = {"model": net(), "split": split, "lr": 0.3, "epochs": 2, "record": RECORD}


def run(settings=SETTINGS, seeds=range(4), **options):
    return study(settings, seeds=list(seeds), **{**COMMON, **options})


def alone(**options):
    """A study of one setting."""
    options = {**COMMON, **options}
    names = ("seeds", "epochs", "steps", "every", "record", "metrics", "inspect", "block")
    own = {name: options.pop(name) for name in list(options) if name not in names}
    return study({"one": own}, **{"seeds": [0, 1], **options})


def assert_equal(a, b, settings=None, seeds=None):
    """Bit for bit on a CPU, within rounding on a GPU, in what both hold."""
    seeds = a.seeds if seeds is None else seeds
    rows_a, rows_b = ([r.seeds.index(s) for s in seeds] for r in (a, b))
    for setting in settings or a.settings:
        for record in a.records:
            x, y = a[setting, record][rows_a], b[setting, record][rows_b]
            if device().type == "cpu":
                np.testing.assert_array_equal(x, y, err_msg=f"{setting} {record}")
            else:
                np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4)


def assert_close(a, b):
    for key in a.arrays:
        np.testing.assert_allclose(a.arrays[key], b.arrays[key], rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def result():
    return run()


@pytest.fixture
def stacked(monkeypatch):
    """Train as on a GPU, in one batched program, but on the device at hand."""
    monkeypatch.setattr(lib.blocks, "stacked", lambda device: True)


# --- what comes out ---


def test_shapes_and_names(result):
    assert list(result.settings) == list(SETTINGS)
    assert result.records == ["step", *RECORD, "diverged"]
    assert result["Adam", "loss"].shape == (4, 2)
    assert result["Adam", "test_accuracy"].shape == (4,)
    assert result["momentum", "step"].tolist() == [[3, 6]] * 4
    assert result.epochs == [1, 2]
    assert not any(lost.any() for lost in result.diverged.values())


def test_training_learns():
    found = alone(model=lambda g: mlp([64, 32, 10], generator=g), epochs=30)
    loss = found["one", "loss"]
    assert (loss[:, -1] < 0.3 * loss[:, 0]).all()
    assert (found["one", "test_accuracy"] > 0.75).all()


def test_steps_are_shared_or_refused(result):
    assert alone().steps.tolist() == [3, 6]
    with pytest.raises(ValueError, match="different steps"):
        _ = run({"a": {}, "b": {"batch_size": 10}}, record=()).steps


def test_difference_is_paired_and_at_the_end(result):
    expected = result["Adam", "test_loss"] - result["momentum", "test_loss"]
    assert (result.difference("Adam", "momentum", "test_loss") == expected).all()
    final = result["Adam", "loss"][:, -1]
    assert (result.final("Adam", "loss") == final).all()
    assert (result.difference("Adam", "Adam", "loss") == 0).all()


def test_repr_is_a_table_of_means(result):
    lines = repr(result).splitlines()
    assert lines[0] == "3 settings × 4 seeds, means at epoch 2"
    assert lines[1].split() == [*RECORD, "diverged"]
    mean = f"{result['Adam', 'test_accuracy'].mean():.4g}"
    assert lines[-1].split() == ["Adam", *lines[-1].split()[1:6], mean, "0"]


def test_settings_are_kept_in_words(result):
    adam = result.settings["Adam"]
    assert adam["optimizer"] == "Adam"
    assert adam["lr"] == 0.01
    assert adam["betas"] == [0.9, 0.999]
    assert adam["split"] == "split"


def test_unknown_names_are_told_apart(result):
    with pytest.raises(KeyError, match="no setting 'adam'"):
        result["adam", "loss"]
    with pytest.raises(KeyError, match="no record 'val_acc'"):
        result["Adam", "val_acc"]
    with pytest.raises(TypeError, match="setting, record"):
        result["Adam"]


def test_saved_and_loaded_it_is_the_same(result, tmp_path):
    path = tmp_path / "a result.npz"
    path.write_text("old")
    result.save(path)
    again = Result.load(path)
    assert list(again.arrays) == list(result.arrays)
    for key, array in result.arrays.items():
        assert again[key].dtype == array.dtype
        np.testing.assert_array_equal(again[key], array)
    assert (again.seeds, again.epochs) == (result.seeds, result.epochs)
    assert again.settings == json.loads(json.dumps(result.settings))
    assert repr(again) == repr(result)
    assert [p.name for p in tmp_path.iterdir()] == ["a result.npz"]


def test_other_files_are_no_results(tmp_path):
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    np.save(tmp_path / "objects.npz", np.array([{}], dtype=object))
    (tmp_path / "text.npz").write_text("text")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ValueError, match=f"Result.save wrote, but got '{path}"):
            Result.load(path)
    with pytest.raises(FileNotFoundError):
        Result.load(tmp_path / "none.npz")


# --- equal in any company ---


@pytest.mark.parametrize("block", [1, 2, 3])
def test_equal_in_blocks_of_any_size(result, block):
    assert_equal(run(block=block), result)


def test_equal_in_any_order(result):
    turned = dict(reversed(SETTINGS.items()))
    assert_equal(run(turned, seeds=[2, 0, 3, 1], block=3), result)


@pytest.mark.parametrize("name", SETTINGS)
def test_equal_alone(result, name):
    assert_equal(run({name: SETTINGS[name]}, seeds=[2]), result, [name], [2])


def test_equal_however_many_threads_torch_has(result):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert_equal(run(seeds=[1]), result, seeds=[1])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_equal_whatever_torchs_global_generator_holds(result):
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert_equal(run(seeds=[1]), result, seeds=[1])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_factory_that_forgets_its_generator_is_seeded_all_the_same():
    def forgetful(g):
        return nn.Linear(64, 10)

    torch.manual_seed(1)
    first = alone(model=forgetful, seeds=[0, 1])
    torch.manual_seed(2)
    assert_equal(alone(model=forgetful, seeds=[1, 0]), first)
    assert first["one", "loss"][0, 0] != first["one", "loss"][1, 0]


def test_recording_more_often_changes_nothing():
    often, seldom = (
        alone(steps=6, epochs=None, every=every, model=net(dropout=0.5)) for every in (1, 6)
    )
    assert (often["one", "test_loss"] == seldom["one", "test_loss"]).all()


# --- equal to the plain loop ---


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("rule", [SGD, Adam])
def test_equal_to_the_plain_loop(name, rule):
    found = run({"one": {"model": net(**NETS[name])}}, seeds=[3], optimizer=rule, lr=0.05)
    model = net(**NETS[name])(generator(3)).to(device())
    s = split(3).to(device())
    history = train(
        model,
        s.X_train,
        s.y_train,
        rule(model.parameters(), lr=0.05),
        epochs=2,
        generator=generator(3),
        on_epoch=lambda epoch, model: accuracy(model, s.X_val, s.y_val),
    )
    if device().type != "cpu" and NETS[name].get("dropout"):
        return  # other noise
    expected = {
        "loss": history.loss,
        "val_accuracy": history.records,
        "test_accuracy": accuracy(model, s.X_test, s.y_test),
        "test_loss": mean_loss(model, s.X_test, s.y_test),
    }
    for record, values in expected.items():
        if device().type == "cpu":
            np.testing.assert_array_equal(found["one", record][0], values, err_msg=record)
        else:
            np.testing.assert_allclose(found["one", record][0], values, rtol=1e-3)


@cpu_only
@pytest.mark.parametrize("rule", ["SGD", "Adam"])
def test_as_good_as_equal_to_torchs_optimizer(rule):
    options = {"lr": 0.05, "weight_decay": 0.01}
    found = alone(seeds=[0], optimizer=getattr(lib.optimizers, rule), **options)
    model, s = net()(generator(0)), split(0)
    optimizer = getattr(torch.optim, rule)(model.parameters(), **options)
    history = train(model, s.X_train, s.y_train, optimizer, epochs=2, generator=generator(0))
    np.testing.assert_allclose(found["one", "loss"][0], history.loss, rtol=1e-5)


def test_running_statistics_are_the_plain_loops():
    names = ("1.running_mean", "1.running_var", "1.num_batches_tracked", "0.weight")
    found = alone(
        seeds=[5, 6],
        model=net(norm=nn.BatchNorm1d),
        inspect={name: lambda w, name=name: w[name] for name in names},
    )
    for row, seed in enumerate((5, 6)):
        model, s = net(norm=nn.BatchNorm1d)(generator(seed)).to(device()), split(seed)
        s = s.to(device())
        sgd = SGD(model.parameters(), lr=0.3)
        train(model, s.X_train, s.y_train, sgd, epochs=2, generator=generator(seed))
        for name in names:
            value = model.state_dict()[name].cpu().numpy()
            np.testing.assert_allclose(found["one", name][row, -1], value, rtol=1e-4, atol=1e-6)
    assert found["one", "1.running_mean"].shape == (2, 2, 13)


# --- as one batched program ---


@pytest.mark.parametrize("name", ["plain", "batch norm", "centred"])
@pytest.mark.parametrize("rule", [SGD, Adam])
def test_the_batched_program_computes_the_same(name, rule, stacked, monkeypatch):
    settings = {
        "a": {"lr": 0.05, "weight_decay": 0.01},
        "b": {"lr": 0.1, "weight_decay": 0.1, "schedule": lambda step: 0.9**step},
        "c": {"batch_size": 40},
    }
    options = {"model": net(**NETS[name]), "optimizer": rule, "lr": 0.1}
    if (
        rule is Adam
    ):  # or it would blow up the rounding of gradients that are 0, as before a norm
        options["eps"] = 1e-3
    options["inspect"] = {"norm": lambda w: w["0.weight"].norm(dim=1)}
    together = run(settings, **options, block=4)
    monkeypatch.setattr(lib.blocks, "stacked", lambda device: False)
    assert_close(together, run(settings, **options))
    assert together["a", "norm"].shape == (4, 2, 13)


def test_only_runs_of_one_program_share_a_lane(stacked, monkeypatch):
    class Scale(nn.Module):
        """A number that is no parameter makes another program."""

        def __init__(self, factor):
            super().__init__()
            self.factor, self.layer = factor, nn.Linear(64, 10)

        def forward(self, x):
            return self.factor * self.layer(x)

    lanes = []
    train_lane = lib.blocks.Lane.train

    def spy(lane):
        lanes.append(sorted((run.name, run.seed) for run in lane.runs))
        return train_lane(lane)

    monkeypatch.setattr(lib.blocks.Lane, "train", spy)
    settings = {
        "SGD": {},
        "other rate": {"lr": 0.1},
        "momentum": {"momentum": 0.9},
        "more momentum": {"momentum": 0.99},
        "Nesterov": {"momentum": 0.9, "nesterov": True},
        "Adam": {"optimizer": Adam},
        "dropout": {"model": net(dropout=0.1)},
        "more dropout": {"model": net(dropout=0.2)},
        "once": {"model": lambda g: Scale(1.0)},
        "twice": {"model": lambda g: Scale(2.0)},
        "fewer samples": {"split": lambda seed: digits(seed, num_train=100)},
    }
    run(settings, seeds=[0, 1], block=2, epochs=1)
    together = [{"SGD", "other rate"}, {"momentum", "more momentum"}]
    assert sorted(map(len, lanes)) == [2] * 7 + [4, 4]
    for names in together:
        assert [(n, s) for n in sorted(names) for s in (0, 1)] in lanes


def test_batched_noise_depends_on_nobody_else(stacked):
    options = {"model": net(dropout=0.4, norm=nn.BatchNorm1d)}
    four, two = run({"a": options}, block=4), run({"a": options}, seeds=[3, 1], block=2)
    one = run({"a": options}, seeds=[3])
    np.testing.assert_allclose(four["a", "loss"][[3, 1]], two["a", "loss"], rtol=1e-5)
    np.testing.assert_allclose(four["a", "loss"][[3]], one["a", "loss"], rtol=1e-5)
    often = run({"a": options}, block=4, every=[0, 1, 2])
    np.testing.assert_array_equal(four["a", "loss"], often["a", "loss"][:, 1:])


def masks(seeds, draw, n=100_000, p=0.3):
    """Two dropout masks for each seed, (seeds, 2, n)."""

    def one(key):
        with Noise(key, draw):
            return torch.stack([F.dropout(torch.ones(n), p) for _ in range(2)])

    return vmap(one)(torch.tensor(seeds))


def test_noise_is_as_random_as_it_should_be():
    found = torch.cat([masks([0, 1, 2, 2**32 - 1], draw) for draw in (1, 2)]).flatten(0, 1)
    assert set(found.unique().tolist()) == {0.0, 1 / np.float32(0.7)}
    dropped = (found == 0).double()
    assert (dropped.mean(1) - 0.3).abs().max() < 5 * math.sqrt(0.21 / 100_000)
    correlation = torch.corrcoef(dropped) - torch.eye(len(dropped))
    assert correlation.abs().max() < 5 / math.sqrt(100_000)
    shifted = torch.corrcoef(torch.stack([dropped[0, 1:], dropped[0, :-1]]))[0, 1]
    assert abs(shifted) < 5 / math.sqrt(100_000)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_takes_the_place_of_torchs(dtype):
    def one(key, x):
        with Noise(key, 1):
            return (
                torch.rand(50, 40, dtype=dtype),
                torch.randn((50, 40), dtype=dtype),
                torch.rand_like(x),
                torch.randn_like(x),
                torch.bernoulli(torch.full_like(x, 0.2)),
                x.bernoulli(0.2),
            )

    drawn = vmap(one)(torch.tensor([0, 1]), torch.zeros(2, 50, 40, dtype=dtype))
    for x, mean, std in zip(drawn, (0.5, 0, 0.5, 0, 0.2, 0.2), (0.29, 1, 0.29, 1, 0.4, 0.4)):
        assert x.shape == (2, 50, 40)
        assert x.dtype == dtype
        assert not torch.equal(x[0], x[1])
        assert x.mean().item() == pytest.approx(mean, abs=0.1)
        assert x.std().item() == pytest.approx(std, abs=0.1)


def test_dropout_at_its_limits():
    x = torch.ones(3)
    with Noise(torch.tensor(0), 1):
        assert torch.equal(F.dropout(x, 0.0), x)
        assert torch.equal(F.dropout(x, 1.0), torch.zeros(3))
        assert torch.equal(F.dropout(x, 0.5, training=False), x)


# --- paired seeds ---


def test_settings_of_a_seed_share_weights_order_noise_and_split():
    found = run({"a": {"model": net(dropout=0.5)}, "b": {"model": net(dropout=0.5)}})
    assert (found["a", "loss"] == found["b", "loss"]).all()
    assert len(set(found["a", "test_loss"])) == 4  # another seed, other numbers


def test_a_split_is_made_once_for_each_seed():
    calls = []

    def counted(seed):
        calls.append(seed)
        return split(seed)

    run({"a": {}, "b": {"lr": 0.1}}, split=counted, block=1)
    assert calls == [0, 1, 2, 3]


def test_noise_differs_between_seeds_steps_and_layers():
    """Same weights and data for all seeds, full batches, no learning: only noise is left."""
    found = alone(
        seeds=[0, 1],
        split=lambda seed: split(0),
        model=lambda g: mlp([64, 13, 10], dropout=0.5, generator=generator(0)),
        lr=0.0,
        batch_size=150,
        epochs=3,
        record=("loss", "val_loss"),
    )
    assert len(set(found["one", "loss"].flatten())) == 6
    assert len(set(found["one", "val_loss"].flatten().round(9))) == 1


# --- the three sets ---


class Watched:
    """A split that counts who looks at what."""

    def __init__(self, split, log):
        self.split, self.log = split, log

    def __getattr__(self, name):
        self.log.append(name)
        return getattr(self.split, name)


@pytest.mark.parametrize("batched", [False, True])
def test_the_test_set_is_read_once_and_last(batched, monkeypatch):
    monkeypatch.setattr(lib.blocks, "stacked", lambda device: batched)
    log = []
    options = {"split": lambda seed: Watched(split(seed), log), "seeds": [0], "epochs": 3}
    alone(**options)
    assert log.count("X_test") == log.count("y_test") == 1
    assert log[-2:] == ["X_test", "y_test"]
    log.clear()
    alone(**options, record=("loss", "val_loss"))
    assert "X_test" not in log


# --- when to record, and what ---


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"epochs": 4}, [3, 6, 9, 12]),
        ({"epochs": 5, "every": 2}, [6, 12, 15]),
        ({"epochs": 3, "every": [0, 1]}, [0, 3, 9]),
        ({"epochs": None, "steps": 7}, [7]),
        ({"epochs": None, "steps": 7, "every": 3}, [3, 6, 7]),
        ({"epochs": None, "steps": 4, "every": [0, 1, 4]}, [0, 1, 4]),
    ],
)
def test_records_stand_where_they_should(options, steps):
    found = alone(seeds=[0], **options)
    assert found.steps.tolist() == steps
    loss = found["one", "loss"][0]
    assert np.isnan(loss).tolist() == [step == 0 for step in steps]
    assert np.isfinite(found["one", "val_loss"]).all()


def test_steps_and_epochs_are_the_same_steps():
    by_epochs, by_steps = alone(epochs=2), alone(epochs=None, steps=6, every=3)
    assert (by_epochs["one", "loss"] == by_steps["one", "loss"]).all()
    assert by_steps.epochs is None
    assert "at the last step" in repr(by_steps)


def test_regression_with_a_loss_and_a_metric_of_ones_own():
    found = alone(
        seeds=[0, 1],
        split=polynomial,
        model=lambda g: mlp([1, 20, 1], nn.Tanh, generator=g),
        loss_fn=F.mse_loss,
        metrics={"worst_error": lambda y_hat, y: (y_hat - y).abs().max()},
        record=("loss", "val_loss", "val_worst_error", "test_worst_error"),
        epochs=200,
        batch_size=20,
        lr=0.1,
    )
    assert (found["one", "val_loss"][:, -1] < found["one", "val_loss"][:, 0]).all()
    assert (found["one", "val_worst_error"] ** 2 > found["one", "val_loss"]).all()


def test_a_frozen_parameter_stays_and_an_unused_one_does_no_harm():
    def model(g):
        built = net()(g)
        built[0].weight.requires_grad_(False)
        built.register_parameter("unused", nn.Parameter(torch.ones(3)))
        return built

    kept = {name: lambda w, name=name: w[name] for name in ("0.weight", "0.bias", "unused")}
    found = alone(model=model, inspect=kept, every=[0, 1])
    assert (found["one", "0.weight"][:, 0] == found["one", "0.weight"][:, -1]).all()
    assert (found["one", "unused"] == 1).all()
    assert (found["one", "0.bias"][:, 0] != found["one", "0.bias"][:, -1]).any()


def test_schedule_is_a_factor_on_the_rate():
    steady = alone(lr=0.05)
    scheduled = alone(lr=0.1, schedule=lambda step: 0.5)
    assert (steady["one", "loss"] == scheduled["one", "loss"]).all()
    stopping = alone(epochs=4, schedule=lambda step: float(step < 6))
    val = stopping["one", "val_loss"]
    assert (val[:, 1:] == val[:, 1:2]).all()
    assert (val[:, 0] != val[:, 1]).all()


# --- divergence ---


@pytest.mark.parametrize("batched", [False, True])
def test_a_run_that_diverges_leaves_the_others_alone(batched, monkeypatch):
    monkeypatch.setattr(lib.blocks, "stacked", lambda device: batched)

    def poisoned(seed):
        """Seed 2 meets an infinite pixel in its second step."""
        s = split(seed)
        if seed == 2:
            second = torch.randperm(150, generator=generator(2))[64:128]
            s.X_train[second[0]] = math.inf
        return s

    options = {"every": 1, "block": 4, "inspect": {"norm": lambda w: w["0.bias"].norm()}}
    options |= {"epochs": None, "steps": 5, "lr": 0.1}
    good = run({"a": {}, "b": {"lr": 0.2}}, **options)
    bad = run({"a": {}, "b": {"lr": 0.2}}, **options, split=poisoned)
    for name in ("a", "b"):
        assert bad.diverged[name].tolist() == [False, False, True, False]
        for record in (*RECORD, "norm"):
            x, y = good[name, record], bad[name, record]
            if batched:
                np.testing.assert_allclose(x[[0, 1, 3]], y[[0, 1, 3]], rtol=1e-5)
            else:
                np.testing.assert_array_equal(x[[0, 1, 3]], y[[0, 1, 3]])
            assert np.isnan(y[2, ..., 1:] if y.ndim > 1 else y[2]).all()
        assert bad[name, "loss"][2, 0] == pytest.approx(good[name, "loss"][2, 0])


def test_weights_that_overflow_in_the_last_step_count_as_diverged():
    found = alone(
        epochs=None, steps=1, lr=1e39 + 0.0, model=lambda g: mlp([64, 10], generator=g)
    )
    assert found.diverged["one"].all()
    assert np.isnan(found["one", "test_accuracy"]).all()


# --- memory ---


def test_no_more_than_a_block_is_built_at_a_time(monkeypatch):
    sizes = []
    monkeypatch.setattr(
        "lib.study.run_block", lambda plan, s: sizes.append(len(s)) or run_block(plan, s)
    )
    run(seeds=range(5), block=2, epochs=1)
    assert sizes == [2, 2, 1]


@cpu_only
def test_on_a_cpu_one_network_is_alive_at_a_time():
    alive, most = [0], [0]

    class Counted(nn.Linear):
        def __init__(self):
            super().__init__(64, 10)
            alive[0] += 1
            most[0] = max(most[0], alive[0])

        def __del__(self):
            alive[0] -= 1

    alone(model=lambda g: Counted(), seeds=range(6), block=6, epochs=1)
    assert most[0] <= 2  # the next is built while the last still has its name


# --- executors ---


@pytest.fixture(scope="module")
def dask():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs="CRITICAL"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client.get_executor()


def doubling(flag):
    """A function that kills the process that first calls it, unless that is this one.

    It needs no torch, which a process that is not there for long need not import.
    """
    here = os.getpid()

    def double(x):
        if not flag.exists() and os.getpid() != here:
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return 2 * x

    return double


class Parcels(ThreadPoolExecutor):
    """Threads that take and give plain pickles, as the processes of a pool do."""

    def submit(self, fn, *args):
        sent = pickle.dumps((fn, args))

        def call():
            fn, args = pickle.loads(sent)
            return pickle.loads(pickle.dumps(fn(*args)))

        return super().submit(call)


def test_equal_on_threads_that_take_turns(result):
    with Parcels(3) as executor:
        assert_equal(run(block=1, executor=executor), result)


@pytest.mark.filterwarnings("error::RuntimeWarning")  # as of work that is done here
def test_equal_on_loky_which_may_lose_a_worker(result, tmp_path):
    pytest.importorskip("loky")
    assert_equal(run(block=1, executor=2), result)
    assert spread(doubling(tmp_path / "killed"), [1, 2, 3], 2) == [2, 4, 6]
    assert (tmp_path / "killed").exists()


def test_equal_on_dask_which_may_lose_a_worker(result, dask, tmp_path):
    assert spread(doubling(tmp_path / "killed"), [1, 2, 3], dask) == [2, 4, 6]
    assert (tmp_path / "killed").exists()
    assert_equal(run(block=1, executor=dask), result)


def test_a_process_pool_that_breaks_hands_over_to_this_process(tmp_path):
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        assert spread(doubling(tmp_path), [1, 2], executor) == [2, 4]
        with pytest.warns(RuntimeWarning, match="2 of 2 blocks run in this process"):
            found = spread(doubling(tmp_path / "killed"), [1, 2], executor)
    assert found == [2, 4]


class Losing(Executor):
    """Loses every worker but the one that comes after so many."""

    def __init__(self, times, error):
        self.times, self.error = times, error

    def submit(self, fn, *args):
        future = Future()
        if self.times > 0:
            future.set_exception(self.error)
        else:
            future.set_result(fn(*args))
        self.times -= 1
        return future


KilledWorker = type("KilledWorker", (Exception,), {})  # as distributed calls it


@pytest.mark.parametrize("error", [BrokenExecutor(), CancelledError(), KilledWorker()])
def test_a_block_that_loses_its_worker_is_tried_again_twice(error):
    def double(x):
        return 2 * x

    assert spread(double, [1, 2], Losing(4, error)) == [2, 4]
    with pytest.raises(RuntimeError, match="worker was lost 3 times at 1"):
        spread(double, [1, 2], Losing(6, error))


def test_an_error_in_a_worker_comes_back_as_it_is():
    def broken(g):
        raise ArithmeticError("as the author wrote it")

    with (
        ThreadPoolExecutor(1) as executor,
        pytest.raises(ArithmeticError, match="as the author wrote it"),
    ):
        run({"a": {"model": broken}}, executor=executor)


def test_a_pool_that_was_shut_down_is_replaced_by_this_process(result):
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.warns(RuntimeWarning, match="after shutdown"):
        assert_equal(run(executor=executor), result)


def test_progress_goes_to_a_terminal_only(capsys, monkeypatch):
    run({"a": {}}, epochs=1)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    run({"a": {}}, epochs=1)
    out, err = capsys.readouterr()
    assert out == ""
    assert "4/4" in err


# --- the device ---


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_tells_the_same_story(monkeypatch):
    settings = {"plain": {}, "batch norm": {"model": net(norm=nn.BatchNorm1d)}}
    found = {}
    for name in ("cpu", "cuda"):
        monkeypatch.setenv("COURSE_DEVICE", name)
        found[name] = run(settings)
    for key, values in found["cpu"].arrays.items():
        np.testing.assert_allclose(found["cuda"][key], values, rtol=1e-2, atol=1e-2)


# --- bad input ---


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"settings": {}}, TypeError, "settings has to be a dict"),
        ({"settings": {"a": 3}}, TypeError, "dicts by name, but got 'a': 3"),
        ({"momentun": 0.9}, TypeError, "'a' has to consist of model.* but got momentun"),
        ({"lr": -1}, ValueError, "setting 'a': lr .* but got -1"),
        ({"lr": math.nan}, ValueError, "setting 'a': lr .* but got nan"),
        ({"optimizer": torch.optim.SGD}, TypeError, "optimizer of 'a' .* lib.optimizers"),
        ({"model": nn.Linear(2, 2).weight}, TypeError, "model of 'a' has to be a function"),
        ({"model": lambda g: 3}, TypeError, "model of 'a' has to return a module, but got 3"),
        ({"model": lambda g: nn.ReLU()}, ValueError, "trainable parameters .* but got none"),
        (
            {"model": lambda g: nn.Sequential(nn.Linear(64, 9), nn.Linear(9, 10).double())},
            ValueError,
            "one dtype on the CPU",
        ),
        ({"split": None}, TypeError, "split of 'a' has to be a function, but got None"),
        ({"schedule": 0.5}, TypeError, "schedule of 'a' has to be a function"),
        ({"schedule": lambda step: -1}, ValueError, "schedule has to return"),
        ({"batch_size": 0}, ValueError, "setting 'a': batch_size .* but got 0"),
        ({"seeds": []}, ValueError, "seeds has to hold"),
        ({"seeds": [1, 1]}, ValueError, r"that differ, but got \[1, 1\]"),
        ({"seeds": [0.5]}, TypeError, "seeds has to be an int, but got 0.5"),
        ({"epochs": None}, TypeError, "epochs or steps, but got None and None"),
        ({"steps": 3}, TypeError, "epochs or steps, but got 2 and 3"),
        ({"epochs": 0}, ValueError, "epochs has to be at least 1, but got 0"),
        ({"every": 0}, ValueError, "every has to be at least 1"),
        ({"every": [2, 1]}, ValueError, r"rising list, but got \[2, 1\]"),
        ({"every": [3]}, ValueError, "every has to be between 0 and 2, but got 3"),
        ({"record": "loss"}, TypeError, "list of names, but got the string 'loss'"),
        ({"record": ["vall_loss"]}, ValueError, "but got 'vall_loss'"),
        ({"inspect": {"loss": len}}, ValueError, "another name than 'loss'"),
        ({"block": 0}, ValueError, "block has to be at least 1"),
        ({"executor": 0}, ValueError, "executor has to be at least 1"),
        ({"executor": "loky"}, TypeError, "executor has to be None.* but got 'loky'"),
        (
            {"metrics": {"two": lambda y_hat, y: y_hat[0, :2]}, "record": ["val_two"]},
            ValueError,
            "'two'",
        ),
    ],
)
def test_bad_input_is_refused_by_name(options, error, words):
    with pytest.raises(error, match=words):
        run(**{"settings": {"a": {}}, **options})
