"""Claims on what training makes of a start that no chapter trains from."""

import functools
import math

import numpy as np
import torch
from torch import nn

from lib import data, models
from lib.data_normalization import Standardizer
from lib.device import generator, seeds
from lib.initialization import (
    constant_,
    initialize,
    kaiming_uniform_,
    lsuv_,
    normal_,
    orthogonal_,
    xavier_normal_,
    zeros_,
)
from lib.optimizers import Adam
from lib.study import study

SEEDS = seeds(20)


def digits(seed):
    s = data.digits(seed)
    return s.map(Standardizer().fit(s.X_train))


def start(depth, rule, activation=nn.ReLU, **kwargs):
    """A factory of networks with `depth` hidden layers, started by `rule`."""

    def model(generator):
        net = models.mlp([64, *[64] * depth, 10], activation, generator=generator, **kwargs)
        return initialize(net, rule, generator=generator)

    return model


def normal(std, mean=0):
    return lambda w, generator=None: normal_(w, mean, std, generator)


def constant(w, generator=None):
    return constant_(w, 0.05)


def train(starts, record=("test_accuracy",), epochs=8, every=None, **settings):
    """Each start trained by SGD with momentum, or as the settings say."""
    sgd = {} if "optimizer" in settings else {"lr": 0.02, "momentum": 0.9}
    return study(
        {name: {"model": model} for name, model in starts.items()},
        split=digits,
        seeds=SEEDS,
        epochs=epochs,
        every=every or epochs,
        record=record,
        **sgd | settings,
    )


def accuracy(result, name, part="test"):
    """Final accuracy in percent, (seeds,); a run that diverged guesses."""
    return 100 * np.nan_to_num(result.final(name, f"{part}_accuracy"), nan=0.1)


def test_dropout_breaks_the_symmetry_of_a_start_that_is_not_random(settle):
    equal = {nn.Sigmoid: zeros_, nn.ReLU: constant}
    starts = {
        f"{f.__name__} {name} {rate}": start(1, rule, f, dropout=rate)
        for f in equal
        for name, rule in (("equal", equal[f]), ("random", xavier_normal_))
        for rate in (0.0, 0.2)
    }
    result = train(starts, optimizer=Adam, lr=0.01, batch_size=128, epochs=12)

    def lost(rate):
        return [
            accuracy(result, f"{f.__name__} random {rate}")
            - accuracy(result, f"{f.__name__} equal {rate}")
            for f in equal
        ]

    settle("INIT-06", where=np.minimum(*lost(0.0)), where_not=np.maximum(*lost(0.2)))


XAVIER = {"0.01": 0.01, "Xavier": 1 / 8, "4 × Xavier": 1 / 2, "1": 1.0}  # for 64 units
HE = {c: c * math.sqrt(2 / 64) for c in (0.7, 0.85, 1, 1.2)}


@functools.cache
def deep_sigmoid():
    starts = {name: start(6, normal(std), nn.Sigmoid) for name, std in XAVIER.items()}
    return train(starts, ("val_accuracy", "test_accuracy"), lr=0.1)


def test_a_search_beats_xavier_for_sigmoid_and_does_not_beat_he_for_relu(settle):
    def found_by_search(result, formula):
        best = max(result.settings, key=lambda name: accuracy(result, name, "val").mean())
        return accuracy(result, best) - accuracy(result, formula)

    relu = train(
        {str(c): start(6, normal(std)) for c, std in HE.items()},
        ("val_accuracy", "test_accuracy"),
    )
    settle(
        "INIT-17",
        where=found_by_search(deep_sigmoid(), "Xavier"),
        where_not=found_by_search(relu, "1"),
    )


def test_more_spread_helps_a_sigmoid_network_up_to_a_point(settle):
    def spread(name, seed):
        *hidden, _ = start(6, normal(XAVIER[name]), nn.Sigmoid)(generator(seed))
        return nn.Sequential(*hidden)(digits(seed).X_train).std().item()

    small, medium, large = names = "0.01", "4 × Xavier", "1"
    for s in SEEDS:
        assert spread(small, s) < spread(medium, s) < spread(large, s)
    acc = {name: accuracy(deep_sigmoid(), name) for name in names}
    settle("INIT-27", where=acc[medium] - acc[small], where_not=acc[large] - acc[medium])


def test_the_mean_of_the_weights_matters_and_their_shape_does_not(settle):
    result = train(
        {
            "normal": start(3, normal(HE[1])),
            "shifted": start(3, normal(HE[1], mean=HE[1])),
            "uniform": start(3, kaiming_uniform_),
            "orthogonal": start(
                3, lambda w, generator=None: orthogonal_(w, math.sqrt(2), generator)
            ),
        }
    )
    lost = {
        name: accuracy(result, "normal") - accuracy(result, name) for name in result.settings
    }
    settle(
        "INIT-49",
        where=lost["shifted"],
        where_not=np.maximum(lost["uniform"], lost["orthogonal"]),
    )


def test_orthogonal_weights_do_not_stay_orthogonal(settle):
    def off(weights):
        energies = torch.linalg.svdvals(weights["2.weight"]).square()
        return (energies - 1).square().mean().sqrt()

    starts = {"orthogonal": start(2, orthogonal_, nn.Tanh)}
    result = train(starts, inspect={"off": off}, every=[0, 8], lr=0.05)
    before, after = result["orthogonal", "off"].T  # (seeds,) each
    settle("INIT-75", after - before)

    X, W = torch.randn(1000, 64, generator=generator(SEEDS[0])), torch.empty(32, 64)
    h = X @ orthogonal_(W, generator=generator(SEEDS[0])).T
    kept = [x.square().sum() / X.square().sum() for x in (h, torch.relu(h))]
    assert abs(kept[0] - 1 / 2) < 0.05  # a layer that narrows to half
    assert abs(kept[1] - 1 / 4) < 0.05  # and a ReLU after it


def test_lsuv_needs_a_small_batch_only(settle):
    def lsuv(n):
        def model(generator):
            X = digits(generator.initial_seed()).X_train[:n]
            return lsuv_(models.mlp([64, *[64] * 10, 10]), X, generator=generator)

        return model

    result = train({"32": lsuv(32), "all": lsuv(None)}, epochs=10, lr=0.01)
    settle("INIT-80", accuracy(result, "all") - accuracy(result, "32"))


def test_a_small_start_is_not_held_small(settle):
    found = train(
        {"small": start(1, normal(0.01))},
        record=(),
        every=[0, 8],
        inspect={"size": lambda weights: weights["0.weight"].norm()},
    )
    first, last = found["small", "size"].T  # (20,) each
    settle("INIT-81", np.log2(last / first))
