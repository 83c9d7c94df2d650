import copy
import doctest
import io
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib import batch_norm as module
from lib.batch_norm import BatchNorm1d, BatchNorm2d, batch_norm, fold, scale_and_shift
from lib.device import generator
from lib.diagnostics import diagnose
from lib.models import mlp
from lib.networks import Networks

CLASSES = {2: (BatchNorm1d, nn.BatchNorm1d), 4: (BatchNorm2d, nn.BatchNorm2d)}
CLASSES[3] = CLASSES[2]
SHAPES = [(8, 5), (2, 3), (4, 3, 7), (1, 3, 2), (3, 4, 5, 2), (1, 2, 1, 2)]
OPTIONS = [
    {},
    {"momentum": None},
    {"momentum": 0.7, "eps": 0.1},
    {"momentum": 1.0, "affine": False},
    {"track_running_stats": False},
    {"affine": False, "track_running_stats": False},
]
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def close(mine, other, tolerance):
    torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)


def pair(shape, dtype=torch.float64, ours=None, **options):
    """Ours and torch's with equal, uneven parameters."""
    make, other = CLASSES[len(shape)]
    mine, theirs = ((ours or make)(shape[1], **options), other(shape[1], **options))
    for layer in (mine, theirs):
        for i, p in enumerate(layer.parameters()):
            p.data = 1 + 0.5 * randn(shape[1], seed=i, dtype=dtype)
    return mine.to(dtype), theirs.to(dtype)


def trace(layer, batches):
    """What a layer returns, passes back and keeps, over batches in training and one in eval."""
    found = []
    for k, X in enumerate([*batches, batches[0]]):
        layer.train(k < len(batches))
        X = X.clone().requires_grad_()
        y = layer(X)
        wanted = [X, *layer.parameters()]
        grads = torch.autograd.grad((y * randn(*y.shape, seed=9, dtype=y.dtype)).sum(), wanted)
        assert all(b.grad_fn is None and not b.requires_grad for b in layer.buffers())
        found += [y.detach(), *grads, *(b.clone() for b in layer.buffers())]
    return found


def check_parity(shape, dtype, *, mean=0.0, tolerance=None, ours=None, **options):
    batches = [mean + 3 * randn(*shape, seed=seed, dtype=dtype) for seed in range(3)]
    mine, theirs = pair(shape, dtype, ours, **options)
    close(trace(mine, batches), trace(theirs, batches), tolerance or TOLERANCE[dtype])


def test_docstring_examples():
    failed, tried = doctest.testmod(module)
    assert tried >= 3
    assert failed == 0


# --- against torch ---


@dtypes
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equal_to_torch_on_any_shape(shape, dtype):
    # Two values per channel leave no gradient but rounding, which eps = 0.1 keeps small.
    check_parity(shape, dtype, eps=0.1 if shape[0] * len(shape) < 8 else 1e-5)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", [(8, 5), (3, 4, 5, 2)], ids=str)
def test_equal_to_torch_with_any_options(shape, options):
    check_parity(shape, torch.float64, **options)


def check_large_mean(ours=None):
    """Within what float32 can tell apart at 1e4 (0.001) of torch in float64."""
    X = 1e4 + randn(64, 3, dtype=torch.float32)
    mine, theirs = pair(X.shape, torch.float32, ours)
    exact = copy.deepcopy(theirs).double()
    found, expected = trace(mine, [X]), trace(exact, [X.double()])
    for a, b in zip(found, expected, strict=True):
        close(a.to(b.dtype), b, 2e-3)


def test_a_large_mean_costs_no_accuracy():
    check_parity((8, 5), torch.float64, mean=1e4, tolerance=1e-8)
    check_parity((8, 5, 3), torch.float64, mean=-1e4, tolerance=1e-8)
    check_large_mean()


class UnbiasedInThePass(BatchNorm1d):
    def _normalize(self, x, weight, bias):
        var, mean = torch.var_mean(x, 0)
        return scale_and_shift(x - mean, (var + self.eps).rsqrt(), weight, bias), mean, var, 1e9


class BiasedInTheBuffer(BatchNorm1d):
    def _track(self, mean, var, n):
        super()._track(mean, var, 1e9)


class KeepsItsGraph(BatchNorm1d):
    def _normalize(self, x, weight, bias):
        return *batch_norm(x, weight, bias, self.eps), len(x)

    def _track(self, mean, var, n):
        super()._track(mean, var, n)
        self.running_mean = self.running_mean + 0 * mean


class Cancels(BatchNorm1d):
    def _normalize(self, x, weight, bias):
        mean, var = x.mean(0), x.square().mean(0) - x.mean(0).square()
        y = scale_and_shift(x - mean, (var + self.eps).rsqrt(), weight, bias)
        return y, mean, var, len(x)


@pytest.mark.parametrize("wrong", [UnbiasedInThePass, BiasedInTheBuffer, KeepsItsGraph])
def test_the_checks_above_find_known_mistakes(wrong):
    with pytest.raises(AssertionError):
        check_parity((8, 5), torch.float64, ours=wrong)


def test_the_check_of_a_large_mean_finds_cancellation():
    check_parity((8, 5), torch.float64, ours=Cancels)  # right in exact arithmetic
    with pytest.raises(AssertionError):
        check_large_mean(Cancels)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_state_goes_to_torch_and_comes_back(options):
    for source, target in (pair((8, 5), **options), pair((8, 5), **options)[::-1]):
        trace(source, [randn(8, 5, seed=3)] * 2)
        target.load_state_dict(source.state_dict(), strict=True)
        assert source.state_dict().keys() == target.state_dict().keys()
        close(target.eval()(randn(4, 5)), source.eval()(randn(4, 5)), 1e-12)
        close(trace(target, [randn(8, 5)]), trace(source, [randn(8, 5)]), 1e-12)


def test_repr_names_what_was_chosen():
    expected = "(7, eps=1e-05, momentum=None, affine=True, track_running_stats=False)"
    found = BatchNorm2d(7, momentum=None, track_running_stats=False)
    assert repr(found) == f"BatchNorm2d{expected}"


def test_a_copy_is_independent_and_a_file_brings_all_back():
    mine, _ = pair((8, 5))
    trace(mine, [randn(8, 5)])
    file = io.BytesIO()
    torch.save(mine.state_dict(), file)
    file.seek(0)
    loaded = BatchNorm1d(5, dtype=torch.float64)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    expected = trace(copy.deepcopy(mine), [randn(8, 5, seed=1)])  # changes the copy only
    for other in (pickle.loads(pickle.dumps(mine)), loaded, mine):
        close(trace(other, [randn(8, 5, seed=1)]), expected, 0)


# --- the backward pass ---


@pytest.mark.parametrize("shape", [(4, 3), (2, 2, 3), (2, 2, 2, 2)], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_first_and_second_derivatives_are_those_of_finite_differences(shape, training):
    mine, _ = pair(shape)
    trace(mine, [randn(*shape, seed=5)])
    mine.train(training)
    inputs = [randn(*shape), *mine.parameters()]
    inputs = [t.detach().requires_grad_() for t in inputs]

    def call(x, weight, bias):
        return torch.func.functional_call(mine, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


@dtypes
def test_by_hand_and_by_autograd_are_equal(dtype):
    mine, _ = pair((6, 3, 4, 4), dtype)
    X = randn(6, 3, 4, 4, dtype=dtype).requires_grad_()
    weights, wanted = randn(6, 3, 4, 4, seed=2, dtype=dtype), [X, mine.weight, mine.bias]
    by_hand = mine(X)
    assert "ByHand" in type(by_hand.grad_fn).__name__
    by_autograd, *_ = batch_norm(X, mine.weight, mine.bias)
    close(by_hand, by_autograd, 0)
    a, b = (torch.autograd.grad((y * weights).sum(), wanted) for y in (by_hand, by_autograd))
    close(a, b, TOLERANCE[dtype])


def test_the_gradient_of_the_input_has_no_part_that_training_would_undo():
    """A shift or a stretch of all inputs changes no output, hence no loss."""
    mine = BatchNorm1d(3, eps=1e-12, dtype=torch.float64)
    X = randn(9, 3).requires_grad_()
    (grad,) = torch.autograd.grad((mine(X) * randn(9, 3, seed=1)).sum(), X)
    close(grad.sum(0), torch.zeros(3, dtype=torch.float64), 1e-12)
    close((grad * X).sum(0), torch.zeros(3, dtype=torch.float64), 1e-9)


def test_memory_layout_and_in_place_neighbours_do_not_matter():
    mine, theirs = pair((4, 3, 5, 6))
    X = randn(4, 3, 5, 6)
    X = X.to(memory_format=torch.channels_last)
    close(trace(mine, [X, X.flip(2)]), trace(theirs, [X, X.flip(2)]), 1e-12)
    assert mine(X).is_contiguous(memory_format=torch.channels_last)
    found = []
    for layer in (mine, theirs):
        leaf = X.clone().requires_grad_()
        found.append(torch.autograd.grad(F.relu_(layer(leaf * 2)).square().sum(), leaf))
    close(*found, 1e-12)


# --- among its kin ---


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("images", [False, True])
def test_three_networks_in_one_batched_program_equal_three_single_ones(momentum, images):
    def model(seed):
        g = generator(seed)
        if not images:
            return mlp(
                [6, 5, 4, 3], norm=lambda n: BatchNorm1d(n, momentum=momentum), generator=g
            )
        net = nn.Sequential(
            nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2), BatchNorm2d(4, momentum=momentum),
            nn.ReLU(), nn.Flatten(), BatchNorm1d(8, affine=False), nn.Linear(8, 3),
        )  # fmt: skip
        for p in net.parameters():
            p.data.normal_(generator=g)
        return net

    def loss(model, X, y):
        return F.cross_entropy(model(X), y)

    def run(seeds, stacked):
        networks = Networks([model(s) for s in seeds], seeds, torch.device("cpu"), stacked)
        found = []
        for step in range(3):
            X = [randn(8, 6, seed=10 * s + step, dtype=torch.float32) for s in seeds]
            y = [torch.arange(8) % 3 for _ in seeds]
            losses = networks.each(loss, networks.stack(X), networks.stack(y))
            networks.backward(losses)
            networks.weights -= 0.1 * networks.gradient
            found += [losses.detach(), networks.gradient.clone()]
        networks.model.eval()
        with torch.no_grad():
            found.append(networks.each(loss, networks.stack(X), networks.stack(y)))
        return [
            *found,
            networks.inspect(lambda state: {k: v.clone() for k, v in state.items()}),
        ]

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as a missing batching rule
        together = run([0, 1, 2], stacked=True)
    for i in range(3):
        alone = run([i], stacked=False)
        for a, b in zip(together[:-1], alone[:-1], strict=True):
            close(a[i], b, 1e-5)
        state = {name: value[i] for name, value in together[-1].items()}
        close(state, alone[-1], 1e-5)
        assert state["2.num_batches_tracked" if images else "1.num_batches_tracked"] == 3


def test_diagnose_reads_a_network_with_it_and_leaves_it_as_it_was():
    def model(norm):
        return mlp([6, 5, 4, 3], norm=norm, generator=generator(0))

    X, y = randn(32, 6, dtype=torch.float32), torch.arange(32) % 3
    mine, theirs = model(BatchNorm1d), model(nn.BatchNorm1d)
    before = copy.deepcopy(mine.state_dict())
    report, expected = (diagnose(m, X, y, lr=0.1) for m in (mine, theirs))
    close(mine.state_dict(), before, 0)
    assert [v.name for v in report.layers] == [v.name for v in expected.layers]
    for v, w in zip(report.layers, expected.layers, strict=True):
        assert v.rms == pytest.approx(w.rms, rel=1e-4)
        assert v.grad_rms == pytest.approx(w.grad_rms, rel=1e-4)
    assert report.problems == expected.problems


# --- folding ---

LAYERS = [
    (lambda: nn.Linear(4, 3), (6, 4)),
    (lambda: nn.Linear(4, 3, bias=False), (6, 4)),
    (lambda: nn.Conv1d(4, 3, 2, padding=1), (6, 4, 5)),
    (lambda: nn.Conv2d(4, 6, 3, groups=2, stride=2, bias=False), (6, 4, 5, 5)),
]


@pytest.mark.parametrize(("make", "shape"), LAYERS)
@pytest.mark.parametrize("affine", [True, False])
def test_folded_they_are_one_layer_that_does_the_same(make, shape, affine):
    layer = make().double()
    X = randn(*shape)
    for norm in pair(layer(X).shape, affine=affine):
        for seed in range(3):
            norm(2 + 3 * layer(randn(*shape, seed=seed)))
        with pytest.raises(ValueError, match="batch_norm has to be in eval mode"):
            fold(layer, norm)
        norm.eval()
        before = copy.deepcopy(layer.state_dict())
        folded = fold(layer, norm)
        assert type(folded) is type(layer)
        close(folded(X), norm(layer(X)), 1e-12)
        close(layer.state_dict(), before, 0)
        assert all(p.is_leaf and p.requires_grad for p in folded.parameters())


# --- bad input ---


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: BatchNorm1d(3)(torch.ones(1, 3)), ValueError, r"more than 1 .* size \(1, 3\)"),
        (lambda: BatchNorm1d(3)(torch.ones(0, 3)), ValueError, r"more than 1 .* size \(0, 3\)"),
        (
            lambda: BatchNorm2d(3, track_running_stats=False).eval()(torch.ones(1, 3, 1, 1)),
            ValueError,
            "more than 1 value per channel",
        ),
        (lambda: BatchNorm1d(3)(torch.ones(3)), ValueError, "expected 2D or 3D .*got 1D"),
        (lambda: BatchNorm2d(3)(torch.ones(2, 3)), ValueError, "expected 4D .*got 2D"),
        (lambda: BatchNorm1d(3)(torch.ones(2, 4)), ValueError, r"3 channels .* \(2, 4\)"),
        (lambda: BatchNorm1d(3)(torch.ones(2, 3).double()), TypeError, "float32 as .*float64"),
        (lambda: BatchNorm1d(3)(torch.ones(2, 3).bfloat16()), TypeError, "got torch.bfloat16"),
        (
            lambda: BatchNorm1d(3, dtype=torch.float16)(torch.ones(2, 3).half()),
            TypeError,
            "got torch.float16",
        ),
        (
            lambda: BatchNorm1d(3, affine=False, track_running_stats=False)(
                torch.ones(2, 3, dtype=torch.long)
            ),
            TypeError,
            "expected input of float32 or float64, but got torch.int64",
        ),
        (lambda: BatchNorm1d(0), ValueError, "num_features has to be at least 1, but got 0"),
        (lambda: BatchNorm1d(3, eps=0), ValueError, "eps has to be positive.* but got 0"),
        (
            lambda: BatchNorm1d(3, momentum=1.5),
            ValueError,
            r"momentum .* \[0, 1\], but got 1.5",
        ),
        (lambda: fold(nn.ReLU(), BatchNorm1d(3).eval()), TypeError, r"but got ReLU\(\)"),
        (lambda: fold(nn.Linear(3, 2), BatchNorm1d(3).eval()), ValueError, "have 3 outputs"),
        (
            lambda: fold(nn.Linear(3, 3), BatchNorm1d(3, track_running_stats=False).eval()),
            ValueError,
            "running statistics",
        ),
    ],
)
def test_bad_input_is_refused_by_name(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_refused_batch_leaves_no_trace_and_evaluation_takes_any_size():
    mine, theirs = pair((8, 5))
    with pytest.raises(ValueError, match="more than 1"):
        mine(randn(1, 5))
    assert mine.num_batches_tracked == 0
    for n in (0, 1):
        close(mine.eval()(randn(n, 5)), theirs.eval()(randn(n, 5)), 1e-12)
