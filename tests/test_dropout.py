import copy
import doctest
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import vmap

import lib.blocks
from lib import dropout as module
from lib.data import digits
from lib.device import device, generator
from lib.dropout import (
    ClassicDropout,
    DropConnect,
    Dropout,
    Dropout1d,
    Dropout2d,
    classic_dropout,
    draw_mask,
    dropout,
    monte_carlo,
)
from lib.models import mlp
from lib.networks import Networks
from lib.noise import Noise
from lib.optimizers import SGD
from lib.study import study
from lib.train import noise_from, train

LAYERS = [
    (Dropout, (40, 50), (40, 50)),
    (ClassicDropout, (40, 50), (40, 50)),
    (Dropout1d, (40, 50, 3), (40, 50, 1)),
    (Dropout1d, (2000, 3), (2000, 1)),
    (Dropout2d, (40, 50, 3, 2), (40, 50, 1, 1)),
]
layers = pytest.mark.parametrize(("make", "shape", "drawn"), LAYERS)
rates = pytest.mark.parametrize("p", [0.1, 0.5, 0.8])


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=generator(seed)).to(dtype)


def close(mine, other, tolerance=1e-6):
    torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)


def assert_share(mask, share):
    """The mean of a mask of independent draws, within five standard deviations."""
    spread = math.sqrt(share * (1 - share) / mask.numel())
    assert mask.double().mean().item() == pytest.approx(share, abs=5 * spread)


def scale(make, p):
    return 1.0 if make is ClassicDropout else 1 / (1 - p)


def test_docstring_examples():
    failed, tried = doctest.testmod(module)
    assert tried >= 2
    assert failed == 0


# --- what a mask does ---


@rates
@layers
def test_each_draw_keeps_its_values_or_none(make, shape, drawn, p):
    x = randn(*shape).abs() + 0.1
    y = make(p, generator=generator(1))(x)
    mask = y != 0
    close(y, mask * x * scale(make, p))
    mask = mask.view(*drawn, -1)
    assert (mask == mask[..., :1]).all()
    assert_share(mask[..., 0], 1 - p)


@layers
def test_the_gradient_is_the_mask(make, shape, drawn):
    x = randn(*shape).requires_grad_()
    y, c = make(0.3, generator=generator(1))(x), randn(*shape, seed=2)
    (grad,) = torch.autograd.grad((c * y).sum(), x)
    close(grad, c * (y / x).detach())
    assert set((grad == 0).unique().tolist()) == {False, True}


@rates
@layers
def test_the_mean_over_masks_is_what_evaluation_returns(make, shape, drawn, p):
    layer, x = make(p, generator=generator(0)), randn(4, 3, *shape[2:]).exp()
    passes = 2000
    mean = torch.stack([layer(x) for _ in range(passes)]).mean(0)
    spread = scale(make, p) * math.sqrt(p * (1 - p) / passes)
    close(mean / x, layer.eval()(x) / x, 5 * spread)


@layers
def test_evaluation_and_rate_zero_draw_nothing_and_are_the_identity(make, shape, drawn):
    g = generator(0)
    before, x = g.get_state(), randn(*shape)
    assert make(0, generator=g)(x) is x
    y = make(0.25, generator=g).eval()(x)
    assert torch.equal(y, 0.75 * x) if make is ClassicDropout else y is x
    assert torch.equal(g.get_state(), before)


def test_elements_samples_and_calls_are_dropped_independently():
    g = generator(0)
    kept = torch.stack([draw_mask(torch.empty(20_000, 4), 0.3, g) for _ in range(3)], 1)
    flat = kept.flatten(1).T  # (3 calls * 4 units, 20000 samples)
    others = torch.corrcoef(flat) - torch.eye(12)
    assert others.abs().max() < 5 / math.sqrt(20_000)
    assert abs(torch.corrcoef(torch.stack([flat[0, 1:], flat[0, :-1]]))[0, 1]) < 0.036


def test_classic_and_inverted_share_masks_and_differ_by_a_factor():
    x = randn(30, 40)
    inverted, classic = (f(x, 0.2, True, generator(3)) for f in (dropout, classic_dropout))
    close(classic, 0.8 * inverted)
    close(classic_dropout(x, 0.2, training=False), 0.8 * dropout(x, 0.2, training=False))


# --- against torch ---


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("make", "other", "shape"),
    [
        (Dropout, nn.Dropout, (7, 9)),
        (Dropout, nn.Dropout, ()),
        (Dropout, nn.Dropout, (0, 3)),
        (Dropout1d, nn.Dropout1d, (5, 6, 4)),
        (Dropout1d, nn.Dropout1d, (60, 4)),
        (Dropout2d, nn.Dropout2d, (5, 6, 4, 3)),
    ],
)
def test_equal_to_torch_bit_for_bit_from_the_same_state(make, other, shape, dtype):
    x = randn(*shape, dtype=dtype).requires_grad_()
    for p in (0.5, 0.3, 0.9):
        found = []
        for layer, seed in ((make(p), 5), (make(p, generator=generator(5)), 6), (other(p), 5)):
            torch.manual_seed(seed)
            y = layer(x)
            found.append((y, *torch.autograd.grad(y.square().sum(), x)))
        for mine in found[:2]:
            assert all(torch.equal(a, b) for a, b in zip(mine, found[2], strict=True))
            assert mine[0].dtype == dtype
    assert make().p == other().p


def test_gradients_of_any_order_are_right():
    x = randn(6, 4, dtype=torch.float64).requires_grad_()

    def same_mask(layer):
        def f(x):
            layer.generator.manual_seed(0)
            return layer(x).square()

        return f

    for make in (Dropout, ClassicDropout):
        f = same_mask(make(0.3, generator=generator(0)))
        assert torch.autograd.gradcheck(f, x)
        assert torch.autograd.gradgradcheck(f, x)
    connect = DropConnect(4, 3, dtype=torch.float64, p=0.3, generator=generator(0))
    assert torch.autograd.gradcheck(same_mask(connect), x)


# --- DropConnect ---


def test_drop_connect_starts_and_evaluates_as_a_linear_layer():
    for bias in (True, False):
        torch.manual_seed(3)
        expected = nn.Linear(5, 4, bias)
        mine, x = DropConnect(5, 4, bias, generator=generator(3)), randn(2, 3, 5)
        for name, p in expected.named_parameters():
            assert torch.equal(p, mine.get_parameter(name))
        assert torch.equal(mine.eval()(x), expected(x))
        assert (
            torch.equal(DropConnect(5, 4, bias, p=0).train()(x[0, 0]).shape, (4,)) if 0 else 1
        )
        torch.manual_seed(3)
        assert torch.equal(DropConnect(5, 4, bias).weight, expected.weight)


@rates
def test_drop_connect_drops_weights_and_biases_of_each_sample_by_themselves(p):
    layer = DropConnect(3, 5, p=p, generator=generator(0))
    with torch.no_grad():
        layer.weight.copy_(10.0 ** torch.arange(3)).mul_(1 - p)  # digits tell what was kept
        layer.bias.fill_(1000 * (1 - p))
    y = layer(torch.ones(600, 4, 3))  # (600, 4, 5)
    kept = torch.stack([(y.round() // 10**k) % 10 for k in range(4)], -1)
    close(y, kept @ 10.0 ** torch.arange(4), 1e-3)
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert_share(kept, 1 - p)
    columns = kept.reshape(2400, 20).T
    assert (torch.corrcoef(columns) - torch.eye(20)).abs().max() < 5 / math.sqrt(2400)
    rows = kept.reshape(2400, 20)
    assert len(rows.unique(dim=0)) > 200


def test_drop_connect_passes_gradients_through_what_it_kept():
    layer, x = DropConnect(3, 2, p=0.5, generator=generator(0)), torch.ones(1, 3)
    y = layer(x)
    weight, bias = torch.autograd.grad(y.sum(), [layer.weight, layer.bias])
    close(((layer.weight * weight).sum(1) + layer.bias * bias).detach(), y[0].detach())
    assert set(torch.cat([weight.flatten(), bias]).tolist()) == {0.0, 2.0}


# --- among its kin ---

NETS = {
    "inverted": lambda n: Dropout(0.4),
    "classic": lambda n: ClassicDropout(0.4),
    "1d": lambda n: nn.Sequential(nn.Unflatten(1, (n, 1)), Dropout1d(0.4), nn.Flatten()),
    "2d": lambda n: nn.Sequential(nn.Unflatten(1, (n, 1, 1)), Dropout2d(0.4), nn.Flatten()),
    "connect": lambda n: DropConnect(n, n, p=0.4),
}
nets = pytest.mark.parametrize("name", NETS)


def net(name):
    return lambda g: mlp([64, 13, 10], norm=NETS[name], generator=g)


def run(name, seeds, **options):
    common = {
        "settings": {"one": {"model": net(name)}},
        "split": lambda seed: digits(seed, num_train=100),
        "block": 4, "lr": 0.3, "epochs": 2, "record": ("loss", "val_loss"),
    }  # fmt: skip
    return study(seeds=seeds, **{**common, **options})["one", "loss"]


@pytest.fixture
def stacked(monkeypatch):
    """Train as on a GPU, in one batched program, but on the device at hand."""
    monkeypatch.setattr(lib.blocks, "stacked", lambda device: True)


@nets
def test_masks_of_a_batched_program_depend_on_nobody_else(name, stacked):
    four, two, one = run(name, range(4)), run(name, [3, 1], block=2), run(name, [3])
    np.testing.assert_allclose(four[[3, 1]], two, rtol=1e-5)
    np.testing.assert_allclose(four[[3]], one, rtol=1e-5)
    often = run(name, range(4), every=[0, 1, 2])
    np.testing.assert_array_equal(four, often[:, 1:])


@pytest.mark.skipif(device().type != "cpu", reason="bit for bit on a CPU only")
@nets
def test_one_at_a_time_masks_are_the_plain_loops_in_any_company(name):
    torch.manual_seed(99)
    together = run(name, range(3), block=2)
    torch.manual_seed(1)
    np.testing.assert_array_equal(run(name, [2, 0]), together[[2, 0]])
    with noise_from(generator(2), torch.device("cpu")):  # DropConnect draws its start globally
        model = net(name)(generator(2))
    s, sgd = digits(2, num_train=100), SGD(model.parameters(), lr=0.3)
    history = train(model, s.X_train, s.y_train, sgd, epochs=2, generator=generator(2))
    assert history.loss == together[2].tolist()


@pytest.mark.parametrize("batched", [False, True])
@nets
def test_masks_differ_between_seeds_steps_and_layers(name, batched, monkeypatch):
    """Same weights and data for all seeds, full batches, no learning: only noise is left."""
    monkeypatch.setattr(lib.blocks, "stacked", lambda device: batched)

    class Difference(nn.Module):
        """What two equal layers make of one input, apart."""

        def __init__(self, first):
            super().__init__()
            self.layers = nn.ModuleList([first, copy.deepcopy(first)])

        def forward(self, x):
            return self.layers[0](x) - self.layers[1](x)

    def model(g):
        with noise_from(generator(0), torch.device("cpu")):
            return nn.Sequential(nn.Linear(64, 12), Difference(NETS[name](12)))

    found = run(
        name,
        [0, 1],
        settings={"one": {"model": model}},
        split=lambda seed: digits(0, num_train=100),
        loss_fn=lambda y_hat, y: y_hat.square().mean(),
        lr=0.0,
        batch_size=100,
        epochs=3,
        record=("loss",),
    )
    assert len(set(found.flatten())) == 6
    assert (found > 0).all()


@layers
def test_masks_under_vmap_are_as_random_as_they_should_be(make, shape, drawn):
    def two(key, x):
        with Noise(key, 1):
            return torch.stack([make(0.3)(x) for _ in range(2)])

    for in_dims, x in ((0, torch.ones(3, *shape)), (None, torch.ones(shape))):
        found = vmap(two, in_dims=(0, in_dims))(torch.tensor([0, 1, 2]), x)
        mask = (found / scale(make, 0.3)).reshape(6, *drawn, -1)
        assert (mask == mask[..., :1]).all()
        mask = mask[..., 0].flatten(1).round(decimals=6)
        assert set(mask.unique().tolist()) == {0.0, 1.0}
        assert_share(mask, 0.7)
        assert (torch.corrcoef(mask) - torch.eye(6)).abs().max() < 5 / math.sqrt(2000)


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_the_batched_program_computes_what_single_networks_do(rate):
    """In evaluation, and in training without masks."""

    def model(seed):
        return nn.Sequential(
            DropConnect(6, 4, p=rate, generator=generator(seed)), ClassicDropout(rate)
        )

    def found(seeds, stacked):
        networks = Networks([model(s) for s in seeds], seeds, torch.device("cpu"), stacked)
        networks.model.train(rate == 0)
        return networks.each(lambda m, X: m(X), networks.stack([randn(5, 6)] * len(seeds)))

    together = found([0, 1], True)
    for i in range(2):
        close(together[i], found([i], False))


def test_a_generator_of_its_own_decides_and_travels():
    x = randn(20, 30)
    layer = Dropout(0.5, generator=generator(1))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    again, first = copy.deepcopy(layer), layer(x)
    assert torch.equal(again(x), first)
    assert not torch.equal(again(x), first)
    assert torch.equal(torch.get_rng_state(), before)


# --- Monte Carlo ---


def noisy(own=None):
    model = nn.Sequential(
        nn.Linear(4, 30), nn.BatchNorm1d(30), Dropout(0.5, generator=own), nn.Dropout(0.2),
        nn.Sequential(nn.ReLU(), DropConnect(30, 3, p=0.3, generator=own)),
    )  # fmt: skip
    model(randn(50, 4))
    model.eval()
    model[1].train()
    model[4].train()
    return model


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_monte_carlo_leaves_modes_states_and_statistics(own, given):
    gs = [generator(1), generator(2), torch.default_generator]
    model = noisy(gs[0] if own else None)
    gs[1] = gs[1] if given else None

    def state():
        modes = [m.training for m in model.modules()]
        return (
            modes,
            [g.get_state().tolist() for g in gs if g],
            copy.deepcopy(model.state_dict()),
        )

    before, x = state(), randn(6, 4)
    first = monte_carlo(model, x, 3, gs[1])
    assert state()[:2] == before[:2]
    close(state()[2], before[2], 0)
    assert all(torch.equal(a, b) for a, b in zip(first, monte_carlo(model, x, 3, gs[1])))
    assert not any(y.requires_grad for y in first)
    torch.manual_seed(7)
    if given:  # it decides all
        gs[0].manual_seed(7)
        close(monte_carlo(model, x, 3, generator(2)), first, 0)
        assert not torch.equal(monte_carlo(model, x, 3, generator(3))[0], first[0])
    elif not own:
        assert not torch.equal(monte_carlo(model, x, 3)[0], first[0])


def test_monte_carlo_gives_mean_and_spread_of_the_masks_alone():
    model, x = nn.Sequential(nn.BatchNorm1d(3), Dropout(0.2), nn.Dropout(0.5)), randn(5, 3)
    model.eval()
    mean, std = monte_carlo(model, x, 4000, generator(0))
    variance = 1 / (0.8 * 0.5) - 1  # of both factors together
    expected = model(x)
    assert ((mean - expected).abs() < 5 * expected.abs() * math.sqrt(variance / 4000)).all()
    close(std, expected.abs() * math.sqrt(variance), 0.05)
    own = nn.Sequential(*(Dropout(0.5, generator=generator(0)) for _ in range(2)))
    mean, std = monte_carlo(own, torch.ones(20_000), 2, generator(0))
    assert_share((mean == 0) | (std == 0), 1 - 2 * 0.25 * 0.75)  # masks of their own


@pytest.mark.parametrize(
    "layer",
    [
        Dropout(), ClassicDropout(), Dropout1d(), Dropout2d(), DropConnect(2, 2),
        nn.Dropout(), nn.Dropout1d(), nn.Dropout2d(), nn.Dropout3d(), nn.AlphaDropout(),
        nn.FeatureAlphaDropout(),
    ],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_monte_carlo_wakes_every_kind_of_dropout_and_no_other_layer(layer):
    x = torch.ones(2, 30, 2) if "1d" in repr(layer) else torch.ones(2, 30, 2, 2)
    model = nn.Sequential(layer.eval(), nn.RReLU().eval())
    assert monte_carlo(model, x, 20, generator(0))[1].max() > 0.4
    with pytest.raises(ValueError, match="has to hold a dropout layer"):
        monte_carlo(model[1:], x)


def test_monte_carlo_divides_by_one_less_than_the_passes():
    x = torch.ones(400)
    mean, std = monte_carlo(nn.Dropout(0.5), x, 2, generator(0))
    close(std[mean == 1], torch.full_like(std[mean == 1], math.sqrt(2)))


def test_monte_carlo_restores_after_an_error():
    g = generator(0)
    model = nn.Sequential(Dropout(0.5, generator=g), nn.Linear(3, 2)).eval()
    before = g.get_state(), torch.get_rng_state()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        monte_carlo(model, torch.ones(2, 4), generator=generator(1))
    assert not any(m.training for m in model.modules())
    assert torch.equal(g.get_state(), before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


# --- bad input ---


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        *[
            (lambda f=f, p=p: f(p), ValueError, rf"probability .* \[0, 1\), but got {p}")
            for p in (-0.1, 1.0, 1.5, math.nan)
            for f in (
                Dropout, ClassicDropout, Dropout2d,
                lambda p: DropConnect(2, 2, p=p),
                lambda p: dropout(torch.ones(2), p),
                lambda p: classic_dropout(torch.ones(2), p, training=False),
            )
        ],
        (lambda: Dropout("0.5"), TypeError, "probability has to be a number, but got '0.5'"),
        (lambda: Dropout()(torch.ones(3).long()), TypeError, "float .* but got torch.int64"),
        (lambda: Dropout(0.0).eval()(torch.ones(3).bool()), TypeError, "got torch.bool"),
        (lambda: ClassicDropout().eval()(torch.ones(3).int()), TypeError, "got torch.int32"),
        (lambda: Dropout()([1.0, 2.0]), TypeError, "float tensor as input, but got list"),
        (lambda: DropConnect(3, 2)(torch.ones(3).long()), TypeError, "got torch.int64"),
        (lambda: DropConnect(3, 2)(torch.ones(2, 4)), RuntimeError, "size"),
        (lambda: Dropout1d()(torch.ones(3)), ValueError, "expected 2D or 3D .*got 1D"),
        (lambda: Dropout2d()(torch.ones(3, 2, 2)), ValueError, "expected 4D .*got 3D"),
        (lambda: monte_carlo(nn.ReLU(), torch.ones(2)), ValueError, r"but got ReLU\(\)"),
        (lambda: monte_carlo(Dropout(), torch.ones(2), 1), ValueError, "passes .* at least 2"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_by_name(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_layers_say_what_they_are():
    assert repr(Dropout(0.3)) == repr(nn.Dropout(0.3)).replace(", inplace=False", "")
    assert repr(DropConnect(3, 2, p=0.1)).endswith("out_features=2, bias=True, p=0.1)")
