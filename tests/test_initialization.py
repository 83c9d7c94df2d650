import copy
import doctest
import inspect
import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from lib import initialization as init
from lib.device import device, generator

SHAPES = {
    "linear": (30, 20),
    "square": (9, 9),
    "wide linear": (5, 40),
    "one unit": (1, 7),
    "conv1d": (6, 4, 5),
    "conv2d": (16, 3, 3, 5),
    "conv3d": (4, 2, 3, 3, 3),
    "grouped conv": (8, 1, 3, 3),  # Conv2d(8, 8, 3, groups=8)
    "no outputs": (0, 5),
    "no inputs": (5, 0),
    "empty kernel": (3, 2, 0),
    "nothing": (0, 0),
}
OF_TORCH = ["zeros_", "constant_", "uniform_", "normal_", "trunc_normal_", "xavier_uniform_",
            "xavier_normal_", "kaiming_uniform_", "kaiming_normal_", "orthogonal_"]  # fmt: skip
DRAWN = [*OF_TORCH[2:], "lecun_uniform_", "lecun_normal_"]
CONVOLUTIONS = [f"conv{kind}{d}d" for kind in ("", "_transpose") for d in (1, 2, 3)]
NONLINEARITIES = ["linear", *CONVOLUTIONS, "sigmoid", "tanh", "relu", "leaky_relu", "selu"]
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
quiet = pytest.mark.filterwarnings("ignore:Initializing zero-element", "ignore:mean is more")
drawn = pytest.mark.parametrize("name", DRAWN)
KAIMING = [
    {"a": a, "mode": mode, "nonlinearity": nonlinearity}
    for a, mode, nonlinearity in [
        *itertools.product((0, 0.2, 1, math.sqrt(5)), ("fan_in", "fan_out"), ("leaky_relu",)),
        *itertools.product((0.2,), ("fan_in", "fan_out"), NONLINEARITIES),
    ]
]
OPTIONS = {
    "uniform_": [{"a": -1, "b": 1}, {"a": 0.1, "b": 0.3}, {"a": -2}, {"a": 3, "b": 3}],
    "normal_": [{"mean": 3, "std": 0.02}, {"mean": -1}, {"std": 0}],
    "trunc_normal_": [
        {"std": 0.02},
        {"std": 0.02, "a": -0.04, "b": 0.04},
        {"mean": 1, "std": 2, "a": 0, "b": 3},
        {"a": 0.1, "b": 1.0},  # probabilities of 0.3015 and 0.2991
        {"a": 0.1, "b": 0.99},
        {"a": 2, "b": 3},  # tails
        {"a": -5, "b": -2},
        {"mean": 5, "a": -1, "b": 1.1},
        {"a": -0.2, "b": 0.3},  # the peak inside
        {"a": -1, "b": math.inf},
        {"a": 0.1, "b": 0.1},
    ],
    "xavier_uniform_": [{"gain": 5 / 3}, {"gain": 0}],
    "xavier_normal_": [{"gain": math.sqrt(2)}, {"gain": 0.1}],
    "kaiming_uniform_": KAIMING,
    "kaiming_normal_": KAIMING,
    "orthogonal_": [{"gain": math.sqrt(2)}, {"gain": 0}],
}
CALLS = [(name, kwargs) for name in OPTIONS for kwargs in [{}, *OPTIONS[name]]]


def start(seed=0):
    return generator(seed, device())


def zeros(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype, device=device())


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=generator(seed), dtype=dtype).to(device())


def bits(tensor):
    return tensor.contiguous().view(torch.uint8)  # 0.0 and -0.0 differ here


def same_as_torch(name, make, **kwargs):
    """Fill two tensors by the rule `name`, ours and torch's, from generators of one state."""
    ours, theirs, g, h = make(), make(), start(), start()
    assert getattr(init, name)(ours, **kwargs, generator=g) is ours
    getattr(nn.init, name)(theirs, **kwargs, generator=h)
    assert torch.equal(bits(ours), bits(theirs))
    assert torch.equal(g.get_state(), h.get_state())
    return ours


def test_docstring_examples():
    failed, tried = doctest.testmod(init)
    assert tried >= 1
    assert failed == 0


# --- against torch ------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*OF_TORCH, "calculate_gain"])
def test_names_order_and_defaults_are_those_of_torch(name):
    ours, theirs = (
        {p.name: p.default for p in inspect.signature(f).parameters.values()}
        for f in (getattr(init, name), getattr(nn.init, name))
    )
    if name in ("zeros_", "constant_"):  # every rule of ours takes a generator
        theirs["generator"] = None
    assert list(ours.items()) == list(theirs.items())


@dtypes
@shapes
@quiet
def test_the_bits_are_those_of_torch(shape, dtype):
    for name, kwargs in CALLS:
        if name.startswith("xavier") and shape in [(0, 0), (3, 2, 0)]:
            continue  # torch divides by zero
        same_as_torch(name, lambda: zeros(*shape, dtype=dtype), **kwargs)


@quiet
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_bits_are_those_of_torch_in_half_precision(dtype):
    for name, kwargs in CALLS:
        if name != "orthogonal_":  # torch has no QR decomposition of these
            same_as_torch(name, lambda: zeros(6, 50, dtype=dtype), **kwargs)


LAYOUTS = {
    "transposed": lambda: zeros(20, 30).T,
    "every other column": lambda: zeros(30, 40)[:, ::2],
    "channels last": lambda: zeros(8, 3, 5, 5).to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("make", LAYOUTS.values(), ids=LAYOUTS)
@quiet
def test_the_bits_are_those_of_torch_whatever_lies_in_memory(make):
    assert not make().is_contiguous()
    for name, kwargs in CALLS:
        if name == "orthogonal_":  # torch refuses some of these layouts
            dense = init.orthogonal_(torch.zeros_like(make()).contiguous(), generator=start())
            assert torch.equal(init.orthogonal_(make(), generator=start()), dense)
        else:
            same_as_torch(name, make, **kwargs)


def test_only_what_is_given_is_filled():
    whole = torch.full((6, 8), 7.0, device=device())
    for name in DRAWN:
        getattr(init, name)(whole[1:5, ::2], generator=start())
        assert (whole[1:5, ::2] != 7).all()
        assert (whole[:, 1::2] == 7).all()
        assert (whole[[0, 5]] == 7).all()


@drawn
def test_without_a_generator_the_global_one_is_drawn_from(name):
    rule = getattr(init, name)
    cuda = [device()] if device().type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(3)
        first, second = rule(zeros(9, 4)), rule(zeros(9, 4))
    assert torch.equal(first, rule(zeros(9, 4), generator=start(3)))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_gains_are_those_of_torch(nonlinearity):
    for param in (None, 0, 0.01, 0.2, 1, -0.5, math.sqrt(5), np.float64(0.3)):
        expected = nn.init.calculate_gain(nonlinearity, param)
        assert init.calculate_gain(nonlinearity, param) == expected


@shapes
def test_fans_are_those_of_torch(shape):
    expected = nn.init._calculate_fan_in_and_fan_out(zeros(*shape))
    assert init.fans(zeros(*shape)) == expected


# --- what the numbers mean ----------------------------------------------------------------

LAYER_KINDS = {
    "linear": (nn.Linear(6, 10), (6,)),
    "conv1d": (nn.Conv1d(3, 5, 4), (3, 15)),
    "conv2d": (nn.Conv2d(4, 6, (3, 2)), (4, 9, 9)),
    "conv3d": (nn.Conv3d(2, 3, 2), (2, 5, 5, 5)),
    "two groups": (nn.Conv2d(4, 6, 3, groups=2), (4, 9, 9)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4), (4, 9, 9)),
}


@pytest.mark.parametrize(("layer", "shape"), LAYER_KINDS.values(), ids=LAYER_KINDS)
def test_fans_count_the_inputs_of_an_output_and_the_outputs_of_an_input(layer, shape):
    x = torch.zeros(1, *shape)
    J = torch.autograd.functional.jacobian(layer, x)
    J = J.reshape(layer(x).numel(), x.numel()) != 0
    fan_in, fan_out = init.fans(layer.weight)
    assert set(J.sum(1).tolist()) == {fan_in}
    assert J.sum(0).max() == fan_out / getattr(layer, "groups", 1)  # less at the margins


def of_law(values, law):
    """The values are a sample of the law (Kolmogorov-Smirnov)."""
    assert stats.kstest(values.double().flatten().cpu().numpy(), law.cdf).pvalue > 1e-4


def uniform(bound):
    return stats.uniform(-bound, 2 * bound)


@pytest.mark.parametrize("shape", [(50, 200), (200, 50), (20, 15, 7), (24, 5, 3, 3)])
def test_every_rule_draws_from_the_law_that_it_documents(shape):
    fan_in, fan_out = math.prod(shape[1:]), shape[0] * math.prod(shape[2:])
    he = math.sqrt(2 / (1 + 0.3**2))
    laws = {
        ("uniform_",): stats.uniform(0, 1),
        ("uniform_", -3, 2): stats.uniform(-3, 5),
        ("normal_",): stats.norm(),
        ("normal_", 1, 0.2): stats.norm(1, 0.2),
        ("xavier_normal_", 1.5): stats.norm(0, 1.5 * math.sqrt(2 / (fan_in + fan_out))),
        ("xavier_uniform_", 1.5): uniform(1.5 * math.sqrt(6 / (fan_in + fan_out))),
        ("kaiming_normal_",): stats.norm(0, math.sqrt(2 / fan_in)),
        ("kaiming_normal_", 0.3): stats.norm(0, he / math.sqrt(fan_in)),
        ("kaiming_normal_", 0.3, "fan_out"): stats.norm(0, he / math.sqrt(fan_out)),
        ("kaiming_normal_", 0.3, "fan_in", "tanh"): stats.norm(0, 5 / 3 / math.sqrt(fan_in)),
        ("kaiming_uniform_",): uniform(math.sqrt(6 / fan_in)),
        ("kaiming_uniform_", 0.3, "fan_out"): uniform(he * math.sqrt(3 / fan_out)),
        ("lecun_normal_",): stats.norm(0, 1 / math.sqrt(fan_in)),
        ("lecun_uniform_",): uniform(math.sqrt(3 / fan_in)),
    }
    for (name, *args), law in laws.items():
        values = getattr(init, name)(
            zeros(*shape, dtype=torch.float64), *args, generator=start()
        )
        of_law(values, law)
        low, high = law.support()
        assert ((low <= values) & (values <= high)).all()


@pytest.mark.parametrize("kwargs", OPTIONS["trunc_normal_"][:-1])
def test_truncated_normal_has_the_shape_of_the_normal_and_stays_in_bounds(kwargs):
    mean, std, a, b = ({"mean": 0, "std": 1, "a": -2, "b": 2} | kwargs).values()
    values = init.trunc_normal_(
        zeros(100, 100, dtype=torch.float64), **kwargs, generator=start()
    )
    assert a <= values.min() <= values.max() <= b
    of_law(values, stats.truncnorm((a - mean) / std, (b - mean) / std, mean, std))


def test_truncating_lowers_the_std_as_documented():
    values = init.trunc_normal_(zeros(300, 300), generator=start())
    assert values.std().item() == pytest.approx(0.88, abs=0.005)


@dtypes
@shapes
def test_lecun_is_kaiming_of_torch_for_linear(shape, dtype):
    if 0 in shape:
        return
    for kind in ("uniform_", "normal_"):
        ours = getattr(init, "lecun_" + kind)(zeros(*shape, dtype=dtype), generator=start())
        rule = getattr(nn.init, "kaiming_" + kind)
        theirs = rule(zeros(*shape, dtype=dtype), nonlinearity="linear", generator=start())
        assert torch.equal(ours, theirs)


def test_gains_give_back_what_the_activation_takes():
    z = torch.linspace(-9, 9, 200_001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    for nonlinearity, slope in [("relu", None), ("leaky_relu", 0.2), ("leaky_relu", None)]:
        y = nn.functional.leaky_relu(z, 0.0 if nonlinearity == "relu" else slope or 0.01)
        energy = torch.trapezoid(y.square() * density, z).item()
        gain = init.calculate_gain(nonlinearity, slope)
        assert gain**2 * energy == pytest.approx(1, rel=1e-6)


@dtypes
@pytest.mark.parametrize("shape", [s for s in SHAPES.values() if 0 not in s])
@pytest.mark.parametrize("gain", [1, math.sqrt(2), 0.3])
def test_orthogonal_weights_are_orthogonal(shape, gain, dtype):
    W = init.orthogonal_(zeros(*shape, dtype=dtype), gain, generator=start()).flatten(1)
    gram = W @ W.T if len(W) <= W.shape[1] else W.T @ W
    eye = torch.eye(len(gram), dtype=dtype, device=device())
    torch.testing.assert_close(gram, gain**2 * eye, rtol=1e-5, atol=1e-5)


def test_orthogonal_weights_keep_lengths_through_many_layers():
    x = length = randn(5, 16, dtype=torch.float64)
    for seed in range(100):
        x = x @ init.orthogonal_(zeros(16, 16, dtype=torch.float64), generator=start(seed)).T
    torch.testing.assert_close(x.norm(dim=1), length.norm(dim=1))


def test_every_orthogonal_matrix_is_equally_likely():
    W = [init.orthogonal_(zeros(2, 2), generator=start(seed)) for seed in range(400)]
    W = torch.stack(W).double().cpu()  # (400, 2, 2)
    angle = torch.atan2(W[:, 1, 0], W[:, 0, 0])
    of_law(angle, uniform(math.pi))
    assert abs((torch.linalg.det(W) > 0).sum().item() - 200) < 4 * math.sqrt(400 / 4)


def test_constants_fill_and_draw_nothing():
    g = start()
    before = g.get_state()
    assert (init.constant_(randn(3, 4), 0.3, generator=g) == 0.3).all()
    assert (init.constant_(randn(3), -2) == -2).all()
    for tensor in (randn(3, 4), randn(5), randn(1)[0]):
        assert init.zeros_(tensor, generator=g) is tensor
        assert (tensor == 0).all()
    assert torch.equal(g.get_state(), before)


@pytest.mark.parametrize("name", [*DRAWN, "zeros_", "constant_"])
def test_a_rule_is_no_part_of_a_graph(name):
    rule = partial(init.constant_, val=2.0) if name == "constant_" else getattr(init, name)
    weight = nn.Parameter(zeros(4, 6))
    assert rule(weight) is weight
    assert weight.is_leaf
    assert weight.grad_fn is None
    assert weight.requires_grad
    weight.square().sum().backward()
    assert torch.equal(weight.grad, 2 * weight)
    loss = weight.square().sum()
    rule(weight)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()  # autograd is told that the values have changed


@drawn
def test_empty_tensors_stay_as_they_are(name, recwarn):
    g = start()
    before = g.get_state()
    for shape in [(0, 5), (5, 0), (0, 0), (3, 0, 2), (0, 3, 3)]:
        tensor = zeros(*shape)
        assert getattr(init, name)(tensor, generator=g) is tensor
    assert torch.equal(g.get_state(), before)
    assert not recwarn


# --- models -------------------------------------------------------------------------------


class Reversed(nn.Module):
    """Registers its layers in another order than it calls them, and one layer by keyword."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(7, 3)
        self.norm = nn.BatchNorm1d(7)
        self.middle = nn.Linear(9, 7, bias=False)
        self.first = nn.Linear(5, 9)

    def forward(self, X):
        h = torch.relu(self.first(input=X))  # (N, 9)
        return self.last(torch.tanh(self.norm(self.middle(h))))  # (N, 3)


def mlp(activation=nn.ReLU, sizes=(12, 20, 20, 20, 20, 3)):
    layers = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


def convnet():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, groups=4, stride=2), nn.ReLU(),
        nn.Sequential(nn.Flatten(2), nn.Conv1d(8, 5, 2, padding=1), nn.Tanh()),
        nn.Unflatten(1, (1, 5, 1)), nn.Conv3d(1, 4, (2, 1, 3)), nn.ReLU(), nn.Flatten(),
        nn.LazyLinear(2),
    )  # fmt: skip


def deep_with_noise():
    return nn.Sequential(
        nn.Linear(12, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(30, 30), nn.Dropout(0.9), nn.Linear(30, 4),
    )  # fmt: skip


MODELS = {
    "relu": (mlp, (64, 12)),
    "tanh": (partial(mlp, nn.Tanh), (64, 12)),
    "sigmoid": (partial(mlp, nn.Sigmoid), (64, 12)),
    "deep relu": (partial(mlp, sizes=(12, *[16] * 30)), (200, 12)),
    "conv": (convnet, (10, 3, 12, 12)),
    "reversed": (Reversed, (64, 5)),
    "noise": (deep_with_noise, (64, 12)),
    "one layer": (partial(nn.Linear, 12, 3), (64, 12)),
}
models = pytest.mark.parametrize(("make", "shape"), MODELS.values(), ids=MODELS)


def build(make, shape):
    """A model on the device, its lazy layers made, and a batch."""
    model = make()
    with torch.no_grad():
        model(torch.zeros(2, *shape[1:]))
    return model.to(device()), randn(*shape)


def layers_of(model):
    return [m for m in model.modules() if hasattr(m, "weight") and not hasattr(m, "eps")]


@models
def test_initialize_applies_the_rules_in_order_of_registration(make, shape):
    model, _ = build(make, shape)
    untouched = {k: v.clone() for k, v in model.state_dict().items() if "norm" in k}
    ours, theirs = copy.deepcopy(model), copy.deepcopy(model)
    assert init.initialize(ours, init.xavier_normal_, generator=start()) is ours
    g = start()
    for layer in layers_of(theirs):
        nn.init.xavier_normal_(layer.weight, generator=g)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters()):
        assert torch.equal(p, q), name
        assert p.grad_fn is None
        assert p.requires_grad
    for name, value in untouched.items():
        assert torch.equal(ours.state_dict()[name], value)


def test_initialize_draws_a_weight_then_its_bias():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).to(device())
    rule = partial(init.uniform_, a=-0.5, b=0.5)
    init.initialize(model, partial(init.kaiming_normal_, mode="fan_out"), rule, start())
    g = start()
    for layer in (model[0], model[2]):
        weight = nn.init.kaiming_normal_(
            torch.zeros_like(layer.weight), mode="fan_out", generator=g
        )
        assert torch.equal(layer.weight, weight)
        assert torch.equal(layer.bias, rule(torch.zeros_like(layer.bias), generator=g))


def test_initialize_leaves_other_modules_alone():
    model = nn.ModuleList(
        [nn.Embedding(5, 3), nn.BatchNorm1d(3), nn.Linear(3, 3), nn.LayerNorm(3), nn.GRU(3, 2)]
    ).to(device())
    before = copy.deepcopy(model.state_dict())
    init.initialize(model, init.orthogonal_, partial(init.constant_, val=9), start())
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"2.weight", "2.bias"}
    assert (model[2].bias == 9).all()


@quiet
def test_a_layer_without_units_is_initialized_to_nothing():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 0), nn.Linear(0, 2)).to(device())
    for name in DRAWN:
        init.initialize(model, getattr(init, name), generator=start())
        assert model[0].weight.any()
        assert (model[2].bias == 0).all()


# --- LSUV ---------------------------------------------------------------------------------


def variances(model, X):
    """The variance of the outputs of each layer in evaluation mode, at its last use."""
    found = {}
    hooks = [
        layer.register_forward_hook(
            lambda m, x, z: found.update({m: z.var(correction=0).item()})
        )
        for layer in layers_of(model)
    ]
    model = model.eval()
    with torch.no_grad():
        model(X)
    for hook in hooks:
        hook.remove()
    assert len(found) == len(layers_of(model))
    return list(found.values())


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
@pytest.mark.parametrize("tol", [0.1, 1e-4])
@models
def test_lsuv_brings_every_variance_to_one(make, shape, tol, scale):
    model, X = build(make, shape)
    assert init.lsuv_(model, scale * X, tol=tol, generator=start()) is model
    found = variances(model, scale * X)
    assert found == pytest.approx([1] * len(found), abs=1.001 * tol)


@models
def test_lsuv_weights_are_orthogonal_up_to_a_factor_and_biases_zero(make, shape):
    model, X = build(make, shape)
    init.lsuv_(model, X, generator=start())
    orthonormal = init.initialize(copy.deepcopy(model), init.orthogonal_, generator=start())
    for layer, other in zip(layers_of(model), layers_of(orthonormal)):
        ratio = layer.weight / other.weight
        torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-3, atol=0)
        assert ratio.mean() > 0
        assert layer.bias is None or (layer.bias == 0).all()


def test_lsuv_does_not_touch_what_is_within_the_tolerance():
    X = randn(500, 40)
    X = (X - X.mean()) / X.std(correction=0)
    model = nn.Linear(40, 40).to(device())
    orthonormal = init.orthogonal_(zeros(40, 40), generator=start())
    init.lsuv_(model, 1.04 * X, generator=start())  # variance 1.08
    assert torch.equal(model.weight, orthonormal)
    init.lsuv_(model, 1.04 * X, generator=start(), tol=0.05)
    torch.testing.assert_close(1.04 * model.weight, orthonormal, rtol=1e-3, atol=1e-4)


@models
def test_lsuv_leaves_everything_else_as_it_found_it(make, shape):
    model, X = build(make, shape)
    model.train()
    frozen = list(model.modules())[-1].eval()
    modes = [m.training for m in model.modules()]
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    hook = frozen.register_forward_hook(lambda *_: None)
    X_before, states = X.clone(), rng_states()
    init.lsuv_(model, X, generator=start())
    assert [m.training for m in model.modules()] == modes
    for name, b in model.named_buffers():
        assert torch.equal(b, buffers[name])
    for p in model.parameters():
        assert p.grad_fn is None
        assert p.is_leaf
        assert p.requires_grad
        assert p.grad is None
    assert torch.is_grad_enabled()
    assert torch.equal(X, X_before)
    assert all(map(torch.equal, rng_states(), states))
    hook.remove()
    assert not any(m._forward_hooks for m in model.modules())


def rng_states():
    cuda = [torch.cuda.get_rng_state()] if device().type == "cuda" else []
    return [torch.get_rng_state(), *cuda]


def test_lsuv_measures_in_evaluation_mode():
    model, X = build(deep_with_noise, (64, 12))
    model[1].running_var.fill_(25)  # a BatchNorm that divides by 5, whatever the batch
    init.lsuv_(model.train(), X, generator=start())
    assert variances(model, X) == pytest.approx([1, 1, 1], abs=0.101)


def test_lsuv_of_a_layer_used_twice_holds_for_the_last_use():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, X):
            return self.layer(torch.relu(self.layer(X)))

    model, X = build(Twice, (64, 8))
    init.lsuv_(model, X, generator=start())
    W = model.layer.weight.detach()
    orthonormal = init.orthogonal_(zeros(8, 8), generator=start())
    z = X @ orthonormal.T
    first = 1 if abs(z.var(correction=0) - 1) <= 0.1 else z.std(correction=0)
    second = (torch.relu(z / first) @ orthonormal.T / first).std(correction=0)
    torch.testing.assert_close(W, orthonormal / first / second)


def test_lsuv_draws_as_orthogonal_does():
    model, X = build(mlp, (64, 12))
    one, two = (init.lsuv_(copy.deepcopy(model), X, generator=start()) for _ in range(2))
    other = init.lsuv_(copy.deepcopy(model), X, generator=start(1))
    assert torch.equal(one[0].weight, two[0].weight)
    assert not torch.allclose(one[0].weight, other[0].weight)


# --- bad input ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*DRAWN, "zeros_", "constant_", "fans"])
@pytest.mark.parametrize(
    ("bad", "got"),
    [
        (torch.zeros(3, 3, dtype=torch.int64), r"torch\.int64"),
        (torch.zeros(3, 3, dtype=torch.bool), r"torch\.bool"),
        (torch.zeros(3, 3, dtype=torch.complex64), r"torch\.complex64"),
        (np.zeros((3, 3)), "float64"),
        ([[1.0, 2.0]], r"\[\[1\.0, 2\.0\]\]"),
        (None, "None"),
    ],
)
def test_only_float_tensors_are_filled(name, bad, got):
    function = partial(init.constant_, val=1) if name == "constant_" else getattr(init, name)
    with pytest.raises(TypeError, match=f"expected a float tensor, but got {got}"):
        function(bad)


@pytest.mark.parametrize(
    "name", [n for n in DRAWN if n not in ("uniform_", "normal_", "trunc_normal_")] + ["fans"]
)
@pytest.mark.parametrize("shape", [(), (5,)])
def test_a_weight_has_two_dimensions(name, shape):
    with pytest.raises(ValueError, match=f"at least 2 dimensions, but got {len(shape)}"):
        getattr(init, name)(zeros(*shape))


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("normal_", "std"),
        ("trunc_normal_", "std"),
        ("xavier_normal_", "gain"),
        ("xavier_uniform_", "gain"),
        ("orthogonal_", "gain"),
    ],
)
def test_scales_are_finite_and_not_negative(name, argument, bad):
    tensor = randn(3, 4)
    before = tensor.clone()
    with pytest.raises(ValueError, match=f"expected finite {argument} >= 0, but got {bad}"):
        getattr(init, name)(tensor, **{argument: bad})
    assert torch.equal(tensor, before)


@pytest.mark.parametrize(
    ("a", "b"),
    [(1, 0), (2, 1), (math.nan, 1), (0, math.nan), (-math.inf, 0), (0, math.inf)],
)
def test_uniform_needs_bounds_in_order(a, b):
    with pytest.raises(ValueError, match=f"expected finite a <= b, but got a={a}, b={b}"):
        init.uniform_(zeros(3), a, b)


@pytest.mark.parametrize(("a", "b"), [(1, 0), (2, -2), (math.nan, 1), (0, math.nan)])
def test_truncated_normal_needs_bounds_in_order(a, b):
    with pytest.raises(ValueError, match=f"a <= b, but got std=1, a={a}, b={b}"):
        init.trunc_normal_(zeros(3), a=a, b=b)


def test_truncated_normal_needs_width_and_a_tail_needs_an_end():
    with pytest.raises(ValueError, match="expected std > 0 and a <= b, but got std=0"):
        init.trunc_normal_(zeros(3), std=0)
    with pytest.raises(ValueError, match="expected finite a <= b, but got a=3, b=inf"):
        init.trunc_normal_(zeros(3), a=3, b=math.inf)


@pytest.mark.parametrize("bad", ["ReLU", "gelu", "", None, nn.ReLU])
def test_unknown_nonlinearity(bad):
    for call in (
        lambda: init.calculate_gain(bad),
        lambda: init.kaiming_normal_(zeros(3, 4), nonlinearity=bad),
        lambda: init.kaiming_uniform_(zeros(3, 4), nonlinearity=bad),
    ):
        with pytest.raises(
            ValueError, match=r"expected one of .*'relu'.*'leaky_relu'\], but got"
        ):
            call()


def test_a_slope_is_a_number():
    with pytest.raises(ValueError, match="'steep'"):
        init.calculate_gain("leaky_relu", "steep")
    with pytest.raises(TypeError, match="list"):
        init.calculate_gain("leaky_relu", [0.1])
    with pytest.raises(ValueError, match="expected finite std >= 0, but got nan"):
        init.kaiming_normal_(zeros(3, 4), a=math.nan)


@pytest.mark.parametrize("bad", ["fan_avg", "in", "", None, 1])
@pytest.mark.parametrize("rule", [init.kaiming_normal_, init.kaiming_uniform_])
def test_unknown_mode(rule, bad):
    with pytest.raises(ValueError, match=f"mode to be 'fan_in' or 'fan_out', but got {bad!r}"):
        rule(zeros(3, 4), mode=bad)


@pytest.mark.parametrize("model", [nn.ReLU(), nn.Sequential(), nn.LSTM(3, 2)])
def test_a_model_has_layers(model):
    with pytest.raises(
        ValueError, match="expected a model with linear or convolutional layers"
    ):
        init.initialize(model, init.xavier_normal_)
    with pytest.raises(
        ValueError, match="expected a model with linear or convolutional layers"
    ):
        init.lsuv_(model, randn(4, 3))


def test_lazy_layers_are_refused_until_they_have_a_shape():
    for rule in (init.xavier_normal_, init.normal_, init.orthogonal_):
        with pytest.raises(ValueError, match="uninitialized parameter"):
            init.initialize(nn.LazyLinear(3), rule)


def test_a_weight_rule_does_not_fit_biases():
    with pytest.raises(ValueError, match="at least 2 dimensions, but got 1"):
        init.initialize(mlp(), init.xavier_normal_, init.xavier_normal_)


@pytest.mark.filterwarnings(r"ignore:var\(\)")
@pytest.mark.parametrize(
    ("X", "got"),
    [
        (torch.zeros(64, 12), "0.0"),
        (torch.full((64, 12), math.nan), "nan"),
        (torch.full((64, 12), math.inf), "nan"),
        (torch.zeros(0, 12), "nan"),
    ],
)
def test_lsuv_refuses_a_batch_that_has_no_variance(X, got):
    model = mlp().to(device()).train()
    model[1].eval()
    with pytest.raises(ValueError, match=rf"variance 1 of Linear\(in_f.*=12.*, but got {got}"):
        init.lsuv_(model, X.to(device()), generator=start())
    assert [m.training for m in model] == [True, False] + [True] * 7
    assert not any(m._forward_hooks for m in model.modules())
    assert all(p.isfinite().all() for p in model.parameters())


def test_lsuv_says_when_it_does_not_converge():
    class Stubborn(nn.Linear):  # the length of the weight has no effect
        def forward(self, X):
            return nn.functional.linear(X, self.weight / self.weight.norm())

    model, X = build(lambda: Stubborn(12, 3), (64, 12))
    with pytest.raises(
        ValueError, match=r"expected outputs of variance 1 of Stubborn\(.*got 0"
    ):
        init.lsuv_(model, X, generator=start())


def test_lsuv_divides_at_most_max_iter_times():
    calls = []

    class Rooted(nn.Linear):  # the variance goes with the weight, not with its square
        def forward(self, X):
            calls.append(0)
            return nn.functional.linear(X, self.weight / self.weight.norm().sqrt())

    model, X = build(lambda: Rooted(12, 3), (64, 12))
    for max_iter in (0, 1, 2):
        calls.clear()
        with pytest.raises(ValueError, match="expected outputs of variance 1"):
            init.lsuv_(model, 100 * X, max_iter=max_iter, tol=1e-3, generator=start())
        assert len(calls) == 1 + max_iter
    init.lsuv_(model, 100 * X, max_iter=30, generator=start())
    assert variances(model, 100 * X) == pytest.approx([1], abs=0.1)


@pytest.mark.parametrize("argument", ["tol", "max_iter"])
@pytest.mark.parametrize("bad", [-1, math.nan, math.inf])
def test_lsuv_refuses_bad_limits(argument, bad):
    model = mlp()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=f"expected finite {argument} >= 0, but got {bad}"):
        init.lsuv_(model, torch.ones(4, 12), **{argument: bad})
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("bad", [torch.ones(4, 12, dtype=torch.uint8), np.ones((4, 12))])
def test_lsuv_takes_a_float_batch(bad):
    with pytest.raises(TypeError, match=r"expected a float tensor, but got .*(uint8|float64)"):
        init.lsuv_(mlp(), bad)
