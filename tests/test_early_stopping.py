"""Rules that end training, and runs that go on after a kill.

Run as a script, this file is the process that gets killed while it writes a checkpoint.
"""

import copy
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lib import checkpoint, optimizers
from lib.checkpoint import load_checkpoint, save_checkpoint
from lib.device import generator
from lib.early_stopping import GL, PQ, EarlyStopping, stopping_epoch, train_until
from lib.models import mlp
from lib.schedules import cosine
from lib.train import mean_loss, train

NAN, INF = math.nan, math.inf


def keras(scores, patience, min_delta=0.0, mode="min", baseline=None, start_from_epoch=0):
    """The rule as Keras documents it: (epoch it stops after or None, best epoch), from 1."""

    def improves(score, reference):
        if mode == "max":
            return score - min_delta > reference
        return score + min_delta < reference

    best, best_epoch, wait = None, None, 0
    for epoch, score in enumerate(scores, 1):
        if epoch <= start_from_epoch:
            continue
        wait += 1
        if best is None or improves(score, best):
            best, best_epoch = score, epoch
            if baseline is None or improves(score, baseline):
                wait = 0
        elif wait >= patience:
            return epoch, best_epoch
    return None, best_epoch


def replay(scores, stopper, losses=None):
    """Stop and best epoch of one curve."""
    stop = stopping_epoch(scores, stopper, losses)
    return stop.item() if stopper.stopped else None, stopper.best_epoch.item()


# --- patience ---


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("min_delta", [0.0, 0.125])
@pytest.mark.parametrize("baseline", [None, 0.5])
@pytest.mark.parametrize("start_from_epoch", [0, 3])
@pytest.mark.parametrize("patience", [1, 2, 5])
def test_the_rule_is_that_of_keras(mode, min_delta, baseline, start_from_epoch, patience):
    # Eighths, so that there are ties and gains of exactly min_delta, on a slow slope.
    g = generator(0)
    noise = torch.randint(0, 5, (60, 20), generator=g)
    slope = torch.linspace(0, 40 if mode == "max" else -40, 20)
    curves = (noise + slope * torch.rand(60, 1, generator=g)).round() / 8
    given = dict(
        patience=patience, min_delta=min_delta, mode=mode, baseline=baseline,
        start_from_epoch=start_from_epoch,
    )  # fmt: skip
    stopper = EarlyStopping(**given)
    found = stopping_epoch(curves, stopper)
    expected = [keras(curve, **given) for curve in curves.tolist()]
    assert found.tolist() == [stop or 20 for stop, _ in expected]
    assert stopper.stopped.tolist() == [stop is not None for stop, _ in expected]
    assert stopper.best_epoch.tolist() == [best for _, best in expected]
    assert len({stop for stop, _ in expected}) > 3  # the curves tell rules apart


@pytest.mark.parametrize(
    ("scores", "patience", "expected"),
    [
        ([0.7761, 0.9, 0.8, 0.8, 1, 0.9, 0.7], 5, (6, 1)),  # the run that the notes print
        ([5, 4, 3, 2, 1], 1, (None, 5)),
        ([2, 1, 3], 1, (3, 2)),
        ([2, 2, 2], 1, (2, 1)),  # a tie is no improvement
        ([1, 3, 2, 3, 2], 3, (4, 1)),  # neither is a fall that stays above the best
        ([1, 2, 0, 2, 2], 2, (5, 3)),
        ([NAN, NAN, 1], 3, (None, 3)),
        ([1, NAN, NAN, 0], 2, (3, 1)),
        ([NAN, NAN], 2, (2, 0)),
        ([INF, -1, NAN, INF], 2, (4, 2)),
    ],
)
def test_stops_worked_out_by_hand(scores, patience, expected):
    assert replay(scores, EarlyStopping(patience)) == expected
    assert replay([-s for s in scores], EarlyStopping(patience, mode="max")) == expected


def test_nan_is_counted_and_leaves_the_best_score():
    stopper = EarlyStopping(patience=2)
    stopping_epoch([[1.0, NAN, 2.0, NAN], [NAN, NAN, NAN, 0.0]], stopper)
    assert stopper.num_nan.tolist() == [1, 2]  # of a run that has stopped, nothing counts
    assert stopper.best.tolist() == [1, INF]
    assert stopper.stopped_epoch.tolist() == [3, 2]


def test_smoothing_takes_the_mean_of_the_last_scores():
    scores = [9.0, 4.0, 5.0, 0.0, 4.0, 4.0, 3.0, 8.0]  # means of 3: 9 6.5 6 3 3 2.67 3.67 5
    stopper = EarlyStopping(patience=2, smoothing=3)
    assert replay(scores, stopper) == (8, 6)
    assert stopper.best.item() == pytest.approx(8 / 3)
    assert replay(scores, EarlyStopping(patience=2)) == (6, 4)
    late = EarlyStopping(patience=2, smoothing=3, start_from_epoch=6)
    assert replay(scores, late) == (None, 7)  # means 3 and 5.5 of what counts


# --- Prechelt's rules ---


def prechelt(val, alpha, losses=None, strip=5):
    for t in range(1, len(val) + 1):
        loss = 100 * (val[t - 1] / min(val[:t]) - 1)
        if losses is None:
            if loss > alpha:
                return t
        elif t % strip == 0:
            k = losses[t - strip : t]
            if loss > alpha * 1000 * (sum(k) / (strip * min(k)) - 1):
                return t
    return None


@pytest.mark.parametrize("alpha", [0, 2, 10, 40])
def test_gl_and_pq_are_what_prechelt_defines(alpha):
    t = torch.arange(1, 41, dtype=torch.float64)
    noise = torch.rand(2, 30, 40, generator=generator(1), dtype=torch.float64)
    val = 1 / t + 0.02 * t + 0.2 * noise[0]
    losses = (1 / t) * (1 + 0.1 * noise[1])
    rules = [(GL(alpha), None, 5), (PQ(alpha / 10), losses, 5), (PQ(alpha / 10, 4), losses, 4)]
    for rule, train_losses, strip in rules:
        found = stopping_epoch(val, rule, train_losses)
        expected = [
            prechelt(v, rule.alpha, None if train_losses is None else e, strip)
            for v, e in zip(val.tolist(), losses.tolist())
        ]
        assert found.tolist() == [stop or 40 for stop in expected]
        assert len(set(expected)) > 1


def test_gl_and_pq_where_they_divide_by_nothing():
    assert replay([0.0, 0.0, 1e-9], GL(5)) == (3, 1)
    assert replay([NAN, 1.0, 1.0, NAN], GL(5)) == (4, 2)  # NaN is an infinite loss
    assert replay([NAN, NAN], GL(5)) == (None, 0)
    val = [1.0, 2.0, 2.0, 2.0]
    assert replay(val, PQ(1, strip=2), [0.3] * 4) == (2, 1)  # no progress
    assert replay(val, PQ(1, strip=3), [0.3] * 4) == (3, 1)
    # The mean of five times 0.47 is rounded to less than 0.47.
    assert replay([1.0, *[2.0] * 4], PQ(1), [0.47] * 5) == (5, 1)
    assert replay(val, PQ(1, strip=2), [3.0, 0.3, 0.3, 0.3]) == (4, 1)
    assert replay(val, PQ(1, strip=2), [3.0, NAN, 1.0, INF]) == (2, 1)
    assert replay([1.0] * 4, PQ(1, strip=2), [0.0] * 4) == (None, 1)  # no loss to speak of


# --- runs side by side ---


def rules():
    return [EarlyStopping(3, smoothing=2, baseline=0.9), GL(20), PQ(0.5, strip=3)]


@pytest.mark.parametrize("i", range(3))
def test_each_run_is_judged_and_kept_as_if_alone(i):
    val, losses, w = torch.rand(3, 6, 15, generator=generator(2), dtype=torch.float64)
    weights = [{"w": w[:, [t]] * torch.ones(4), "n": w[:, t]} for t in range(15)]
    together = rules()[i]
    for t in range(15):
        given = {name: x.clone() for name, x in weights[t].items()}
        done = together.step(val[:, t], train_loss=losses[:, t], weights=given)
        given["w"].zero_()  # what is kept is a copy
        assert done.shape == (6,)
    for r in range(6):
        alone = rules()[i]
        for t in range(15):
            one = {name: x[r] for name, x in weights[t].items()}
            if alone.step(val[r, t].item(), train_loss=losses[r, t].item(), weights=one):
                break  # what comes later changes nothing
        for name in ("best", "best_epoch", "stopped_epoch", "num_nan"):
            assert getattr(together, name)[r] == getattr(alone, name)
        if hasattr(alone, "wait"):
            assert together.wait[r] == alone.wait
        for name, x in alone.best_weights.items():
            assert torch.equal(together.best_weights[name][r], x)
            assert torch.equal(x, weights[alone.best_epoch - 1][name][r])
    assert len(set(together.stopped_epoch.tolist())) > 1


def test_epochs_index_the_recorded_curves():
    curves = np.array([[3.0, 1.0, 2.0, 2.0, 0.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    stopper = EarlyStopping(patience=2)
    stop = stopping_epoch(curves, stopper)
    assert stop.tolist() == [4, 5]
    assert curves[range(2), stopper.best_epoch - 1].tolist() == [1, 1] == stopper.best.tolist()
    assert stopping_epoch(curves[None], EarlyStopping(2)).tolist() == [[4, 5]]


# --- saved and resumed ---


@pytest.mark.parametrize("i", range(3))
def test_a_loaded_rule_goes_on_as_the_saved_one(i, tmp_path):
    val, losses = torch.rand(2, 8, 15, generator=generator(3))
    whole = rules()[i]
    expected = stopping_epoch(val, whole, losses)
    for cut in range(15):
        first, second = rules()[i], rules()[i]
        for t in range(15):
            if t == cut:
                torch.save(first.state_dict(), tmp_path / "rule.pt")
                second.load_state_dict(torch.load(tmp_path / "rule.pt", weights_only=True))
                first.step(torch.zeros(8) if t else 0.0, train_loss=torch.ones(8) if t else 1.0)
            (second if t >= cut else first).step(val[:, t], train_loss=losses[:, t])
        assert torch.equal(second.stopped_epoch.masked_fill(~second.stopped, 15), expected)
        assert torch.equal(second.best, whole.best)


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (GL(5), "rule of state_dict has to be EarlyStopping, but got GL"),
        (EarlyStopping(6), "settings of state_dict .*'patience': 5.* but got .*'patience': 6"),
        (EarlyStopping(5, mode="max"), "settings of state_dict"),
    ],
)
def test_the_state_of_another_rule_is_refused(other, match):
    stopper = EarlyStopping(5)
    stopper.step(1.0)
    before = stopper.state_dict()
    with pytest.raises(ValueError, match=match):
        stopper.load_state_dict(other.state_dict())
    broken = copy.deepcopy(before)
    del broken["state"]["wait"]
    with pytest.raises(ValueError, match=r"state of state_dict has to hold .*'wait'"):
        stopper.load_state_dict(broken)
    assert stopper.state_dict() == before


# --- train_until ---

X, Y = torch.randn(60, 5, generator=generator(5)), torch.arange(60) % 3
X_VAL, Y_VAL = torch.randn(30, 5, generator=generator(6)), torch.arange(30) % 3
RULES = {
    "patience": lambda: EarlyStopping(patience=3),
    "PQ": lambda: PQ(0.01, strip=3),
    "never": lambda: GL(1e9),
}


def score(model):
    return mean_loss(model, X_VAL, Y_VAL)


class Run:
    """A run that depends on all there is to save: noise, running means, moments, a schedule."""

    def __init__(self, rule="patience", own_generator=True, library=optimizers):
        self.model = mlp([5, 16, 3], norm=nn.BatchNorm1d, dropout=0.3, generator=generator(0))
        self.optimizer = library.AdamW(self.model.parameters(), lr=0.003)
        self.stopper = RULES[rule]()
        self.generator = generator(7) if own_generator else None
        torch.manual_seed(8)

    def until(self, score=score, **options):
        options = {
            "max_epochs": 14, "batch_size": 16, "generator": self.generator,
            "schedule": cosine(56),
        } | options  # fmt: skip
        return train_until(self.model, X, Y, self.optimizer, self.stopper, score, **options)

    def state(self):
        return copy.deepcopy(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "stopper": self.stopper.state_dict(),
                "generator": self.generator and self.generator.get_state(),
                "torch": torch.get_rng_state(),
            }
        )


def assert_same(a, b):
    """Bit for bit, in dicts and lists as well."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    elif isinstance(a, dict | list | tuple):
        assert list(a) == list(b) if isinstance(a, dict) else len(a) == len(b)
        for x, y in zip(*(c.values() if isinstance(c, dict) else c for c in (a, b))):
            assert_same(x, y)
    else:
        assert a == b


@pytest.fixture(scope="module")
def whole():
    """The run that nobody interrupts, its history and how it ends."""
    run = Run()
    history = run.until()
    return run, history, run.state()


def test_the_run_stops_early_and_ends_with_its_best_weights(whole):
    run, history, _ = whole
    stop, best = keras(history.records, patience=3)
    assert len(history.loss) == len(history.records) == stop == run.stopper.epoch
    assert 1 < best < stop < 14
    assert run.stopper.best_epoch == best
    assert score(run.model) == history.records[best - 1] == min(history.records)
    last = Run()
    assert last.until(restore_best_weights=False).records == history.records
    assert score(last.model) == history.records[-1]


def test_the_weights_of_each_epoch_are_those_of_plain_training(whole):
    run, history, _ = whole
    plain, best = Run(), run.stopper.best_epoch.item()
    for epochs in (best, len(history.loss)):
        plain = Run()
        expected = train(
            plain.model, X, Y, plain.optimizer, epochs=epochs, batch_size=16,
            generator=plain.generator, schedule=cosine(56),
        )  # fmt: skip
        assert expected.loss == history.loss[:epochs]
        if epochs == best:
            assert_same(plain.model.state_dict(), run.model.state_dict())


def test_a_run_that_never_gets_a_finite_score_keeps_its_last_weights():
    run = Run()
    history = run.until(lambda model: NAN)
    assert len(history.records) == 3 == run.stopper.num_nan
    first = Run()
    train(
        first.model, X, Y, first.optimizer, epochs=3, batch_size=16,
        generator=first.generator, schedule=cosine(56),
    )  # fmt: skip
    assert_same(run.model.state_dict(), first.model.state_dict())


def test_a_run_goes_on_from_where_max_epochs_ended_it(whole, tmp_path):
    _, history, end = whole
    Run().until(checkpoint=tmp_path / "run.pt", max_epochs=9)  # its best is epoch 8
    again = Run()
    assert again.until(checkpoint=tmp_path / "run.pt") == history
    assert_same(again.state(), end)


class Stop(BaseException):
    pass


@pytest.mark.parametrize(
    ("rule", "own_generator", "library", "epochs"),
    [
        ("patience", True, optimizers, range(4, 14)),
        ("PQ", False, optimizers, range(4, 14)),
        ("never", False, torch.optim, [14]),
    ],
)
def test_a_run_interrupted_in_every_epoch_ends_like_the_whole_one(
    rule, own_generator, library, epochs, tmp_path
):
    run, calls = Run(rule, own_generator, library), []
    expected = run.until()
    assert len(expected.loss) in epochs
    if rule == "PQ":
        assert len(expected.loss) == prechelt(expected.records, 0.01, expected.loss, strip=3)

    def every_other(model):
        calls.append(score(model))
        if len(calls) % 2:
            raise Stop
        return calls[-1]

    for _ in range(20):
        again = Run(rule, own_generator, library)
        try:
            found = again.until(every_other, checkpoint=tmp_path / "run.pt")
        except Stop:
            torch.rand(3)
            continue
        break
    assert len(calls) == 2 * len(expected.loss)
    assert found == expected
    assert_same(again.state(), run.state())
    more = Run(rule, own_generator, library)
    assert more.until(checkpoint=tmp_path / "run.pt") == expected  # nothing is left to do
    assert_same(more.state(), run.state())


def kill(path):
    """Start this file as a process, kill it once it says so, and return the epoch it is in."""
    process = subprocess.Popen(
        [sys.executable, __file__, str(path)],
        env=os.environ | {"PYTHONPATH": str(Path(checkpoint.__file__).parents[1])},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
    finally:
        process.kill()  # SIGKILL, or what Windows has
        process.communicate()
    assert process.returncode == (1 if os.name == "nt" else -9)
    return int(line)


def test_a_process_that_is_killed_goes_on_from_its_checkpoint(whole, tmp_path):
    _, history, end = whole
    path = tmp_path / "run.pt"
    assert kill(path) == 7  # with half of the checkpoint of epoch 7 written
    again = Run()
    calls = []
    found = again.until(lambda model: calls.append(0) or score(model), checkpoint=path)
    assert found == history
    assert len(calls) == len(history.loss) - 6 > 2
    assert_same(again.state(), end)
    assert os.listdir(tmp_path) == ["run.pt"]


def be_killed(path):
    run = Run()

    def save(content, file, save=torch.save):
        save(content, file)
        if run.stopper.epoch == 7:
            file.truncate(file.tell() // 2)
            file.flush()
            print(7, flush=True)
            time.sleep(600)

    torch.save = save
    run.until(checkpoint=path)


# --- checkpoints ---


@pytest.fixture
def saved(tmp_path):
    """A checkpoint and a run that is elsewhere."""
    path, run = tmp_path / "run.pt", Run()
    run.until(checkpoint=path, max_epochs=2)
    other = Run()
    other.until(max_epochs=3)
    return path, other


def assert_refused(path, run, match, error=ValueError, **parts):
    own = {"model": run.model, "optimizer": run.optimizer, "stopper": run.stopper}
    parts = own | {"generator": run.generator} | parts
    before = run.state(), _states(parts)
    with pytest.raises(error, match=match):
        load_checkpoint(path, **parts)
    assert_same((run.state(), _states(parts)), before)


def _states(parts):
    return copy.deepcopy([p.state_dict() for name, p in parts.items() if name != "generator"])


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(saved, share):
    path, run = saved
    raw = path.read_bytes()
    path.write_bytes(raw[: int(share * len(raw))])
    assert_refused(path, run, "whole file that save_checkpoint wrote, but got '.*run.pt'")


def test_a_damaged_checkpoint_is_refused(saved):
    path, run = saved
    weight = torch.load(path)["states"]["model"]["0.weight"]
    raw = bytearray(path.read_bytes())
    raw[raw.index(weight.numpy().tobytes())] ^= 1  # torch.load would not notice
    path.write_bytes(raw)
    assert_refused(path, run, "whole file that save_checkpoint wrote")


def test_other_files_are_refused(saved):
    path, run = saved
    torch.save(run.model.state_dict(), path)
    assert_refused(path, run, "'format'")
    torch.save({"format": "other"}, path)
    assert_refused(path, run, "its format is 'other'")
    path.unlink()
    assert_refused(path, run, "run.pt", FileNotFoundError)


def test_a_checkpoint_of_other_parts_is_refused(saved):
    path, run = saved
    wide = copy.deepcopy(run.model)
    wide[-1] = nn.Linear(16, 4)
    assert_refused(path, run, "model has to be what .*run.pt holds", model=wide)
    tanh = copy.deepcopy(run.model)
    tanh[2] = nn.Tanh()
    assert_refused(path, run, "(?s)ReLU.*but got.*Tanh", model=tanh)
    sgd = torch.optim.SGD(run.model.parameters(), lr=0.1)
    assert_refused(path, run, "optimizer .* AdamW, but got SGD", optimizer=sgd)
    some = optimizers.AdamW([run.model[-1].weight], lr=0.1)
    assert_refused(path, run, "optimizer has to fit what .*run.pt holds", optimizer=some)
    assert_refused(path, run, "stopper has to fit", stopper=EarlyStopping(4))
    assert_refused(path, run, "stopper .* EarlyStopping, but got GL", stopper=GL(4))
    assert_refused(path, run, r"parts have to be .* but got .*'more'", more=nn.Linear(1, 1))


def test_a_model_that_prints_alike_but_differs_is_refused_whole(saved):
    path, run = saved

    class Hidden(type(run.model[-1])):
        def __init__(self):
            super().__init__(16, 3)
            self.scale = nn.Parameter(torch.ones(()))

    Hidden.__name__ = "Linear"
    other = copy.deepcopy(run.model)
    other[-1] = Hidden()
    assert str(other) == str(run.model)
    assert_refused(path, run, r"(?s)model has to fit .*scale", model=other)


def test_a_save_puts_a_new_file_in_place_of_the_old(saved):
    path, run = saved
    before, link = path.read_bytes(), path.with_name("link.pt")
    os.link(path, link)
    save_checkpoint(path, model=run.model)
    assert path.read_bytes() != before == link.read_bytes()  # never half of each


def test_a_save_that_fails_leaves_the_old_checkpoint(saved):
    path, run = saved
    before = path.read_bytes()
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(path, data=lambda: 0, model=run.model)
    with pytest.raises(TypeError, match="model has to be a generator or have a state_dict"):
        save_checkpoint(path, model=[run.model])
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["run.pt"]


def test_rates_and_data_may_be_numbers_of_numpy(tmp_path):
    w = nn.Linear(2, 2)
    optimizer = optimizers.Adam(w.parameters(), lr=np.logspace(-3, -1, 3)[1])
    save_checkpoint(tmp_path / "a.pt", {"loss": [np.float32(0.5)]}, optimizer=optimizer)
    other = optimizers.Adam(w.parameters())
    assert load_checkpoint(tmp_path / "a.pt", optimizer=other) == {"loss": [0.5]}
    assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


# --- bad input ---


def stepped(*scores, **options):
    stopper = EarlyStopping(2)
    for score in scores:
        stopper.step(score, **options)
    return stopper


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: EarlyStopping(0), ValueError, "patience has to be at least 1, but got 0"),
        (lambda: EarlyStopping(1.5), TypeError, "patience has to be an int, but got 1.5"),
        (lambda: EarlyStopping(1, -0.1), ValueError, "min_delta .* but got -0.1"),
        (lambda: EarlyStopping(1, NAN), ValueError, "min_delta .* but got nan"),
        (lambda: EarlyStopping(1, mode="auto"), ValueError, "mode .* but got 'auto'"),
        (lambda: EarlyStopping(1, baseline=NAN), ValueError, "baseline .* but got nan"),
        (lambda: EarlyStopping(1, baseline="0"), TypeError, "baseline .* but got '0'"),
        (lambda: EarlyStopping(1, start_from_epoch=-1), ValueError, "start_from_epoch .* -1"),
        (lambda: EarlyStopping(1, smoothing=0), ValueError, "smoothing .* but got 0"),
        (lambda: GL(-1), ValueError, "alpha .* but got -1"),
        (lambda: PQ(1, strip=1), ValueError, "strip has to be at least 2, but got 1"),
        (lambda: stepped("low"), TypeError, "score has to consist of numbers, but got 'low'"),
        (lambda: stepped(None), TypeError, "score .* but got None"),
        (lambda: stepped([1.0, 2.0], 1.0), ValueError, r"score has to be \(2,\), but got \(\)"),
        (
            lambda: stepped([1.0, 2.0], train_loss=1.0),
            ValueError,
            r"train_loss has to be \(2,\), but got \(\)",
        ),
        (
            lambda: stepped([1.0, 2.0], weights={"w": torch.ones(3)}),
            ValueError,
            r"weights\['w'\] has to begin with \(2,\) .* but got \(3,\)",
        ),
        (
            lambda: stepped(1.0).step(1.0, weights={"w": torch.ones(3)}),
            ValueError,
            "weights have to be given in every epoch or in none",
        ),
        (lambda: GL(1).step(-0.1), ValueError, "score has to be a loss of at least 0"),
        (lambda: PQ(1).step(1.0), TypeError, "train_loss has to be given to PQ"),
        (lambda: PQ(1).step(1.0, train_loss=-1), ValueError, "train_loss has to be at least"),
        (lambda: stopping_epoch([], GL(1)), ValueError, r"scores .* but got \(0,\)"),
        (
            lambda: stopping_epoch([1.0], stepped(1.0)),
            ValueError,
            "new, but got one at epoch 1",
        ),
        (lambda: stopping_epoch([1.0], 5), TypeError, "stopper has to be a Stopper, but got 5"),
        (
            lambda: stopping_epoch([1.0], PQ(1), [1.0, 2.0]),
            ValueError,
            r"train_losses .*\(2,\)",
        ),
        (lambda: Run().until(max_epochs=0), ValueError, "max_epochs .* but got 0"),
    ],
)
def test_bad_input_is_refused_by_name(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_a_refused_score_changes_nothing():
    stopper = stepped([1.0, 2.0])
    before = copy.deepcopy(stopper.state_dict())
    with pytest.raises(ValueError, match="score"):
        stopper.step(1.0)
    assert_same(stopper.state_dict()["state"], before["state"])


if __name__ == "__main__":
    be_killed(sys.argv[1])
