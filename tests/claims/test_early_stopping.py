"""Claims on early stopping that need no page: what two listings do with scores we choose."""

import ast
import math
import types

import torch

from lib.claims import Exact
from lib.device import generator, seeds
from lib.early_stopping import EarlyStopping, stopping_epoch

SEEDS = seeds(20)

# The first listing, as printed, in the two loops that its indentation asks for.
LISTING = """\
def run(scores, patience, phases):
        best_evaluate, early_stop_counter = -math.inf, 0
        for model.epoch, of_epoch in enumerate(scores, 1):
            for phase in phases:
                epoch_evaluate = of_epoch[phase]
                if phase == 'val' and epoch_evaluate > best_evaluate:
                    early_stop_counter = 0
                    best_evaluate = epoch_evaluate
                    torch.save(model.state_dict(), best_model_params_path)

            if epoch_evaluate <= best_evaluate:
                early_stop_counter += 1

            if early_stop_counter >= patience:
                print("Early Stopping....\\n")
                break
        else:
            return None, early_stop_counter
        return model.epoch, early_stop_counter
"""


def listing(val, patience, train=None, phases=("train", "val")):
    """The epoch after which the listing stops, its counter then, and the epoch it saves."""
    saved, model = [], types.SimpleNamespace(epoch=0)
    model.state_dict = lambda: model.epoch
    names = {
        "math": math,
        "model": model,
        "torch": types.SimpleNamespace(save=lambda epoch, path: saved.append(epoch)),
        "best_model_params_path": "best.pt",
        "print": lambda text: None,
    }
    exec(LISTING, names)
    scores = [{"train": a, "val": b} for a, b in zip(train or val, val, strict=True)]
    return *names["run"](scores, patience, phases), saved[-1]


def as_described(val, patience):
    """The epoch after which it would stop if only a score below the best counted."""
    best, counter = -math.inf, 0
    for epoch, score in enumerate(val, 1):
        best, counter = (score, 0) if score > best else (best, counter + (score < best))
        if counter >= patience:
            return epoch
    return None


def curve(seed, n=40):
    """A validation loss that falls, with noise."""
    noise = torch.rand(n, generator=generator(seed), dtype=torch.float64)
    return (torch.exp(-torch.arange(n) / 10) + 0.2 * noise).tolist()


PEAK = [float(t) for t in [*range(10), *range(10, -50, -1)]]  # best at epoch 11


def test_the_counter_of_the_listing_adds_one_in_the_best_epoch_too(settle):
    assert listing(range(50), patience=1)[0] == 1  # each epoch is better than the last
    early = [listing(PEAK, p)[0] - as_described(PEAK, p) for p in range(1, 21)]
    settle("ES-03", Exact(max(early)))


def test_the_listing_stops_when_its_counter_reaches_patience(settle):
    settle("ES-04", Exact(max(listing(PEAK, p)[1] - p for p in range(1, 21))))


def test_the_listing_takes_a_higher_score_for_better(settle):
    def kept(val, better):
        """The epoch that the listing saves: 0 if it is the worst of all, 1 if the best."""
        score, worst, best = (
            val[listing(val, 99)[2] - 1],
            *sorted([min(val), max(val)], key=better),
        )
        return (score - worst) / (best - worst)

    def stops(phases):
        return listing([0.5] * 20, patience=5, train=[0.9] * 20, phases=phases)[0]

    assert [stops(("train", "val")), stops(("val", "train"))] == [5, None]
    settle(
        "ES-05",
        where=[kept([1 - x for x in curve(s)], lambda x: x) for s in SEEDS],
        where_not=[kept(curve(s), lambda x: -x) for s in SEEDS],
    )


def test_five_epochs_after_the_first_training_stops_at_the_sixth(settle):
    def run(seed):
        noise = torch.rand(29, generator=generator(seed), dtype=torch.float64)
        return [0.7761, *(0.7761 + noise).tolist()]

    assert {listing([-x for x in run(s)], 5)[0] for s in SEEDS} == {5}
    stops = [stopping_epoch(run(s), EarlyStopping(patience=5)).item() for s in SEEDS]
    settle("ES-08", [stop - 6 for stop in stops])


def test_the_log_line_and_the_stopping_rule_count_by_different_rules(settle):
    def line(val):
        """Epochs for which `ModelCheckpoint` reports an improvement: a new lowest value."""
        return [t for t, loss in enumerate(val) if loss < min(val[:t], default=math.inf)]

    def counted(val, min_delta):
        stopper = EarlyStopping(patience=99, min_delta=min_delta)
        return [t for t, loss in enumerate(val) if not stopper.step(loss) and not stopper.wait]

    def apart(seed, min_delta):
        val = curve(seed)
        return len(set(line(val)) ^ set(counted(val, min_delta)))

    assert line([3.0, 1.0, 2.0, 1.5]) == [0, 1]  # the last fell too, but not below the best
    settle(
        "ES-09",
        where=[apart(s, 0.0) for s in SEEDS],
        where_not=[apart(s, 0.1) for s in SEEDS],
    )


def test_training_stops_five_epochs_after_the_minimum(settle):
    def after_the_minimum(val):
        return next((t for t in range(1, 41) if val.index(min(val[:t])) + 1 == t - 5), 40)

    curves = [curve(s) for s in SEEDS]
    stops = [stopping_epoch(val, EarlyStopping(patience=5)).item() for val in curves]
    rises = [next(t for t in range(1, 40) if val[t] >= val[t - 1]) for val in curves]
    assert any(stop > rise + 5 for stop, rise in zip(stops, rises))  # a later fall counted
    assert min(stops) < 40
    settle("ES-10", [stop - after_the_minimum(val) for stop, val in zip(stops, curves)])


KERAS = """\
early_stop = keras.callbacks.EarlyStopping(
    monitor='val_loss', min_delta=0, patience=5, verbose=1)
model.fit(X_train, y_train, batch_size=batch_size, epochs=30, verbose=1,
    validation_data=(X_test, y_test), callbacks=[early_stop, save_best])
"""


def test_the_listing_never_defines_save_best(settle):
    names = [node for node in ast.walk(ast.parse(KERAS)) if isinstance(node, ast.Name)]

    def uses(name, kind):
        return sum(node.id == name and isinstance(node.ctx, kind) for node in names)

    assert [uses(name, ast.Load) for name in ("early_stop", "save_best")] == [1, 1]
    assert uses("early_stop", ast.Store) == 1
    settle("ES-12", Exact(uses("save_best", ast.Store)))
