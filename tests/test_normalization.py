import copy
import doctest

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from lib import normalization
from lib.device import generator
from lib.diagnostics import diagnose
from lib.models import mlp
from lib.normalization import GroupNorm, LayerNorm, RMSNorm

CASES = [
    ("LayerNorm", (5,), {}, (4, 5)),
    ("LayerNorm", ((3, 5),), {"eps": 0.1}, (2, 4, 3, 5)),
    ("LayerNorm", ([5],), {"bias": False}, (1, 5)),
    ("LayerNorm", (5,), {"elementwise_affine": False}, (4, 2, 5)),
    ("RMSNorm", (5,), {}, (4, 5)),
    ("RMSNorm", ((3, 5),), {"eps": 0.1}, (2, 3, 5)),
    ("RMSNorm", (5,), {"elementwise_affine": False}, (1, 5)),
    ("GroupNorm", (2, 6), {}, (3, 6)),
    ("GroupNorm", (1, 6), {"eps": 0.1}, (1, 6, 5)),
    ("GroupNorm", (6, 6), {"affine": False}, (2, 6, 3, 4)),
    ("GroupNorm", (3, 6), {}, (2, 6, 3, 4)),
]
cases = pytest.mark.parametrize(("name", "args", "options", "shape"), CASES)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def close(mine, other, tolerance=1e-12):
    torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)


def pair(name, args, options, dtype=torch.float64):
    """Ours and torch's; torch's gets uneven parameters, and hands its state to ours."""
    mine, theirs = (
        getattr(source, name)(*args, **options, dtype=dtype) for source in (normalization, nn)
    )
    for i, p in enumerate(theirs.parameters()):
        p.data = 1 + 0.5 * randn(*p.shape, seed=i, dtype=dtype)
    before = {key: value.clone() for key, value in mine.state_dict().items()}
    mine.load_state_dict(theirs.state_dict(), strict=True)
    assert list(before) == list(theirs.state_dict())
    for key, value in before.items():
        assert (value == (key == "weight")).all()
    return mine, theirs


def trace(layer, X):
    X = X.clone().requires_grad_()
    y = layer(X)
    weights = randn(*y.shape, seed=9, dtype=y.dtype)
    return [y, *torch.autograd.grad((y * weights).sum(), [X, *layer.parameters()])]


@cases
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)]
)
def test_equal_to_torch(name, args, options, shape, dtype, tolerance):
    mine, theirs = pair(name, args, options, dtype)
    X = 1 + 3 * randn(*shape, dtype=dtype)
    close(trace(mine, X), trace(theirs, X), tolerance)
    close(trace(mine.eval(), X), trace(mine.train(), X), 0)


@cases
def test_a_large_mean_costs_no_accuracy(name, args, options, shape):
    mine, theirs = pair(name, args, options, torch.float32)
    X = 1e4 + randn(*shape, dtype=torch.float32)
    expected = trace(theirs.double(), X.double())
    # float32 tells numbers near 1e4 apart by 0.001
    close([t.double() for t in trace(mine, X)], expected, 5e-3)


def test_tiny_inputs_meet_the_default_eps_of_rms_norm():
    X = torch.full((1, 2), 1e-8, dtype=torch.float64)
    mine, theirs = pair("RMSNorm", (2,), {})
    close(mine(X), theirs(X), 1e-12)
    close(mine.float()(X.float()), theirs.float()(X.float()), 1e-6)


@pytest.mark.parametrize("make", [LayerNorm, RMSNorm, lambda n: GroupNorm(2, n)])
def test_at_home_in_a_batched_program_and_in_diagnose(make):
    nets = [mlp([6, 4, 3], norm=make, generator=generator(seed)) for seed in range(3)]
    X = randn(3, 8, 6, dtype=torch.float32)
    params, buffers = stack_module_state(nets)

    def one(params, X):
        return functional_call(nets[0], (params, buffers), (X,))

    close(vmap(one)(params, X), torch.stack([net(x) for net, x in zip(nets, X)]), 1e-5)
    close(copy.deepcopy(nets[0])(X[0]), nets[0](X[0]), 0)
    assert len(diagnose(nets[0], X[0], torch.arange(8) % 3).layers) == 4


def test_docstrings_link_the_papers():
    for cls, paper in ((LayerNorm, "1607.06450"), (RMSNorm, "1910.07467"), (GroupNorm, "1803")):
        assert f"https://arxiv.org/abs/{paper}" in cls.__doc__
    assert doctest.testmod(normalization).failed == 0


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: LayerNorm(3)(torch.ones(2, 4)), ValueError, r"\(\*, 3\), but got \(2, 4\)"),
        (lambda: LayerNorm((2, 3))(torch.ones(3)), ValueError, r"\(\*, 2, 3\), but got \(3,\)"),
        (lambda: RMSNorm(3)(torch.ones(2, 4)), ValueError, r"\(\*, 3\), but got \(2, 4\)"),
        (lambda: GroupNorm(1, 3)(torch.ones(2, 4)), ValueError, r"\(N, 3, ...\), .* \(2, 4\)"),
        (lambda: GroupNorm(1, 3)(torch.ones(3)), ValueError, r"but got \(3,\)"),
        (lambda: LayerNorm(3)(torch.ones(2, 3).half()), TypeError, "torch.float32 .*float16"),
        (lambda: GroupNorm(1, 3)(torch.ones(2, 3).double()), TypeError, "got torch.float64"),
        (
            lambda: RMSNorm(3, elementwise_affine=False)(torch.ones(2, 3).bfloat16()),
            TypeError,
            "float32 or float64, but got torch.bfloat16",
        ),
        (lambda: LayerNorm(0), ValueError, "normalized_shape has to be at least 1, but got 0"),
        (lambda: LayerNorm(()), ValueError, "normalized_shape has to hold a size"),
        (lambda: RMSNorm(2.0), TypeError, "normalized_shape has to be an int, but got 2.0"),
        (lambda: LayerNorm(3, eps=-1), ValueError, "eps .* but got -1"),
        (lambda: GroupNorm(2, 3), ValueError, "num_channels=3, num_groups=2"),
        (lambda: GroupNorm(0, 3), ValueError, "num_groups has to be at least 1, but got 0"),
    ],
)
def test_bad_input_is_refused_by_name(call, error, words):
    with pytest.raises(error, match=words):
        call()
