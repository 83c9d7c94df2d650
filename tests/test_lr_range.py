"""The learning-rate range test: its curve, what it makes of it, and that nothing is changed."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib.data import digits
from lib.device import device, generator
from lib.lr_range import lr_range_test
from lib.models import mlp
from lib.optimizers import SGD, Adam


@pytest.fixture(scope="module")
def split():
    return digits(0, num_train=200).to(device())


def model(seed=0, **options):
    return mlp([64, 16, 10], generator=generator(seed), **options).to(device())


def run(split, net=None, seed=0, **options):
    net = model() if net is None else net
    X, y = split.X_train, split.y_train
    return lr_range_test(net, X, y, **{"generator": generator(seed)} | options)


def scripted(losses, **options):
    """The test of a network whose losses are given."""
    left = iter(losses)
    net, X = nn.Linear(1, 1).to(device()), torch.zeros(8, 1, device=device())
    return lr_range_test(
        net,
        X,
        X,
        loss_fn=lambda y_hat, y: y_hat.sum() * 0 + next(left),
        generator=generator(0),
        **{"batch_size": 4, "num_steps": len(losses), "lr_min": 1e-4, "lr_max": 1.0} | options,
    )


# --- the curve ---


@pytest.mark.parametrize(
    ("ours", "theirs", "hyper"),
    [(SGD, torch.optim.SGD, {"momentum": 0.5}), (Adam, torch.optim.Adam, {})],
)
def test_curve_equals_the_loop_written_out(split, ours, theirs, hyper):
    options = {"lr_min": 1e-3, "lr_max": 0.3, "num_steps": 20, "batch_size": 60}
    found = run(split, optimizer=ours, **options, **hyper)
    net, g, losses = model(), generator(0), []
    optimizer = theirs(net.parameters(), lr=1.0, **hyper)
    for i in range(20):
        if i % 3 == 0:  # 200 samples make three full batches
            order = torch.randperm(200, generator=g)
        batch = order[60 * (i % 3) :][:60].to(device())
        loss = F.cross_entropy(net(split.X_train[batch]), split.y_train[batch])
        losses.append(loss.item())
        optimizer.param_groups[0]["lr"] = 1e-3 * 300 ** (i / 19)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert found.loss == pytest.approx(losses, rel=1e-5)
    assert found.lr == pytest.approx([1e-3 * 300 ** (i / 19) for i in range(20)])
    assert (found.lr[0], found.lr[-1]) == pytest.approx((1e-3, 0.3))
    assert run(split, optimizer=theirs, **options, **hyper).loss == pytest.approx(
        losses, rel=1e-5
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.8])
def test_smoothed_is_the_weighted_mean_of_the_losses_so_far(smoothing):
    losses = [2 + math.sin(i) for i in range(30)]
    found = scripted(losses, smoothing=smoothing)
    for i, mean in enumerate(found.smoothed):
        weights = [smoothing ** (i - j) for j in range(i + 1)]
        expected = sum(w * x for w, x in zip(weights, losses)) / sum(weights)
        assert mean == pytest.approx(expected)


def test_on_a_parabola_the_loss_rises_once_the_rate_exceeds_two_over_the_curvature():
    net = nn.Linear(1, 1, bias=False).to(device())  # loss w^2, curvature 2
    X = torch.ones(1, 1, device=device())
    found = lr_range_test(
        net, X, 0 * X, generator=generator(0), loss_fn=F.mse_loss, batch_size=1, smoothing=0,
        lr_min=1e-3, lr_max=100.0,
    )  # fmt: skip
    lowest = min(range(len(found.loss)), key=found.loss.__getitem__)
    assert found.lr[lowest - 1] < 1 < found.lr[lowest]
    assert found.suggestion < 1 < found.diverged_at < 100
    assert found.diverged_at == found.lr[-2]  # the step on the last batch is not taken


@pytest.mark.parametrize(
    ("options", "good"),
    [
        ({}, (0.2, 2)),
        ({"momentum": 0.9}, (0.06, 0.6)),
        ({"optimizer": Adam, "lr_max": 1.0}, (0.01, 0.1)),
    ],
)
def test_the_suggestion_trains_a_network_on_digits(split, options, good):
    found = run(split, **options)
    assert good[0] < found.suggestion < good[1]
    assert f"steeply around a rate of {found.suggestion:.3g}" in found.reason
    assert str(found) == found.reason


# --- what it makes of a curve ---

FLAT, FALL = [2.0] * 40, [2.0 - 0.05 * i for i in range(30)]  # down to 0.55


def rate(i, n):
    return 1e-4 * 1e4 ** (i / (n - 1))


def test_suggests_the_middle_of_the_steepest_fall():
    slow = [2.0 - 0.005 * i for i in range(60)]  # to 1.7
    fast = [1.7 - 0.1 * i for i in range(11)]  # to 0.7, steps 60 to 70
    rest = [0.7 - 0.01 * i for i in range(1, 11)] + [0.6 + 0.05 * i for i in range(1, 20)]
    found = scripted([*slow, *fast, *rest], smoothing=0)
    assert found.suggestion == pytest.approx(rate(65, 100))
    assert found.diverged_at is None
    assert f"minimum at {rate(80, 100):.3g}." in found.reason
    assert len(found.lr) == len(found.loss) == len(found.smoothed) == 100


def test_a_single_lucky_batch_is_no_fall():
    losses = [*FLAT, *FALL, *[0.6] * 30]
    calm, lucky = scripted(losses).suggestion, list(losses)
    lucky[10] = 1.8  # steeper than any step of the fall
    assert scripted(lucky).suggestion == pytest.approx(calm)
    first = list(losses)
    first[0] = 2.5  # a first loss stands alone in its mean
    assert scripted(first).suggestion == pytest.approx(calm)


def test_no_suggestion_where_the_loss_never_fell():
    g = generator(0)
    noise = (2 + 0.2 * torch.randn(100, generator=g)).tolist()
    for losses, advice in (
        (noise, "a larger lr_max"),
        (FLAT, "a larger lr_max"),
        ([2.1**i for i in range(1, 40)], "a smaller lr_min"),
        ([2.0, 1.8, 1.6, 1.4, 1.2, 1.0, *[2.1**i for i in range(54)]], "a smaller lr_min"),
    ):
        found = scripted(losses)
        assert found.suggestion is None
        assert "the loss never fell clearly; try " + advice in found.reason


def test_no_suggestion_from_rates_too_small_to_learn(split):
    found = [run(split, model(s), s, lr_min=1e-9, lr_max=1e-7, batch_size=32) for s in range(5)]
    assert [f.suggestion for f in found] == [None] * 5


def test_says_when_the_loss_still_falls_at_the_end():
    found = scripted([*FLAT, *FALL])
    assert found.suggestion is not None
    assert "still falling at lr_max" in found.reason
    assert "still falling" not in scripted([*FLAT, *FALL, *[0.8] * 10]).reason


# --- the end of the test ---


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_ends_the_test_with_a_message(bad):
    found = scripted([*FLAT, *FALL, bad, 1.0])
    assert len(found.loss) == len(found.lr) == 70
    assert all(map(math.isfinite, found.loss))
    assert found.diverged_at == found.lr[-1] == pytest.approx(rate(69, 72))
    assert found.suggestion < found.diverged_at
    assert (
        f"ended at a loss of {bad} after a step of rate {found.diverged_at:.3g}."
        in found.reason
    )


def test_ends_once_the_loss_is_above_its_start_and_far_above_its_minimum():
    found = scripted([*FLAT, *FALL, 2.1, 2.1, 2.3, 9.0, 9.0], smoothing=0)
    assert found.loss[-1] == pytest.approx(2.3)  # above 4 * 0.55
    assert found.diverged_at == pytest.approx(rate(71, 75))
    low = [2.0, *[0.1] * 19, 0.5, 1.9, 2.1, 2.1]  # 0.5 is far above, yet below the start
    assert scripted(low, smoothing=0).loss[-1] == pytest.approx(2.1)
    assert len(scripted(low, smoothing=0).loss) == 23
    negative = [-2 - i / 10 for i in range(20)]
    assert scripted([*negative, *[1.0] * 10], smoothing=0).diverged_at is None


def test_a_network_that_diverges_is_no_crash(split):
    found = run(split, lr_max=1e20, momentum=0.9, num_steps=60)
    assert 0.1 < found.diverged_at < 1e20
    assert found.suggestion < found.diverged_at


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_first_loss_that_is_not_finite_is_an_error(bad):
    with pytest.raises(ValueError, match=f"finite before any step, but got {bad}"):
        scripted([bad, *FLAT])


# --- what it leaves alone ---


def test_model_modes_gradients_and_random_states_stay(split):
    net = model(norm=nn.BatchNorm1d, dropout=0.5)
    net[1].eval()
    F.cross_entropy(net(split.X_train), split.y_train).backward()
    state = copy.deepcopy(net.state_dict())
    grads = [p.grad.clone() for p in net.parameters()]
    modes = [m.training for m in net.modules()]
    before = torch.get_rng_state()
    run(split, net, num_steps=20)
    assert torch.equal(torch.get_rng_state(), before)
    assert [m.training for m in net.modules()] == modes
    torch.testing.assert_close(dict(net.state_dict()), dict(state), rtol=0, atol=0)
    assert all(torch.equal(p.grad, g) for p, g in zip(net.parameters(), grads))


def test_an_error_leaves_random_states_too(split):
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        run(split, model(dropout=0.5), loss_fn=lambda y_hat, y: 1 / 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_generator_decides_batches_and_noise(split):
    torch.manual_seed(1)
    first = run(split, model(dropout=0.5), num_steps=20)
    torch.manual_seed(2)
    assert run(split, model(dropout=0.5), num_steps=20) == first
    assert run(split, model(dropout=0.5), seed=1, num_steps=20).loss != first.loss


def test_the_copy_trains_in_training_mode_whatever_the_mode_of_the_model(split):
    net = model(dropout=0.5)
    assert run(split, net.eval(), num_steps=20) == run(split, net.train(), num_steps=20)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"lr_min": 1.0, "lr_max": 1.0}, ValueError, "0 < lr_min < lr_max .* got 1.0 and 1.0"),
        ({"lr_min": 0.0}, ValueError, "got 0.0 and 10.0"),
        ({"lr_max": math.inf}, ValueError, "got 1e-05 and inf"),
        ({"lr_max": math.nan}, ValueError, "got 1e-05 and nan"),
        ({"lr_min": "0.1"}, TypeError, "lr_min has to be a number, but got '0.1'"),
        ({"lr_max": True}, TypeError, "lr_max has to be a number, but got True"),
        ({"num_steps": 19}, ValueError, "num_steps has to be at least 20, but got 19"),
        ({"num_steps": 20.0}, TypeError, "num_steps has to be an int"),
        ({"smoothing": 1.0}, ValueError, r"smoothing has to be in \[0, 1\), but got 1.0"),
        ({"smoothing": math.nan}, ValueError, "smoothing .* got nan"),
        ({"batch_size": 201}, ValueError, "batch_size .* between 1 and 200, but got 201"),
        ({"generator": None}, TypeError, "generator has to be a torch.Generator, but got None"),
        ({"lr": 0.1}, TypeError, "lr_min and lr_max stand in place of lr, but got lr=0.1"),
        ({"momentum": -1}, ValueError, "momentum .* got -1"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_by_name(split, options, error, words):
    with pytest.raises(error, match=words):
        run(split, **options)


def test_samples_and_targets_have_to_match(split):
    with pytest.raises(ValueError, match="one length, but got 200 and 199"):
        lr_range_test(model(), split.X_train, split.y_train[1:], generator=generator(0))
