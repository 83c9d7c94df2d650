import copy
import doctest
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import datasets, decomposition, preprocessing
from torch import nn

from lib import data_normalization
from lib.data_normalization import (
    MinMaxScaler,
    Standardizer,
    Whitener,
    condition_number,
    standardize_images,
)
from lib.device import device, generator

FACTORIES = {
    "standardizer": Standardizer,
    "minmax": lambda: MinMaxScaler(-2.0, 3.0),
    "pca": lambda: Whitener("pca"),
    "zca": lambda: Whitener(kind="zca"),
}
each = pytest.mark.parametrize("make", FACTORIES.values(), ids=FACTORIES.keys())
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64).to(
        device(), dtype
    )


def correlated(n=200, D=5, seed=0, dtype=torch.float64):
    """Features that are correlated, of unequal scales and not centred."""
    mix = randn(D, D, seed=seed + 100) * torch.logspace(-1, 1, D).to(device())
    return (randn(n, D, seed=seed) @ mix + torch.arange(D).to(device())).to(dtype)


def load(name, dtype=torch.float64):
    return torch.tensor(getattr(datasets, f"load_{name}")().data, dtype=dtype, device=device())


def covariance(Z):
    return torch.cov(Z.T, correction=0)


def close(actual, expected, *, single=1e-5, double=1e-10):
    """Equal in shape and in value, within `single` or `double`, the precision of `actual`."""
    expected = torch.as_tensor(expected, dtype=actual.dtype, device=actual.device)
    tol = double if actual.dtype == torch.float64 else single
    torch.testing.assert_close(actual, expected, rtol=tol, atol=tol)


def test_docstring_examples():
    failed, tried = doctest.testmod(data_normalization)
    assert tried >= 6
    assert failed == 0


# --- against scikit-learn and NumPy -------------------------------------------------------


@dtypes
@pytest.mark.parametrize("name", ["wine", "breast_cancer", "digits"])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("scale", [True, False])
def test_standardizer_agrees_with_scikit_learn(name, center, scale, dtype):
    X = load(name, dtype)
    reference = preprocessing.StandardScaler(with_mean=center, with_std=scale)
    expected = reference.fit_transform(X.double().cpu().numpy())
    ours = Standardizer(center=center, scale=scale).fit(X)
    close(ours(X), expected)
    assert ours(X).dtype == dtype
    close(ours.inverse(ours(X)), X)


@dtypes
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (-0.1, 0.3), (5, 7)])
def test_minmax_agrees_with_scikit_learn(low, high, dtype):
    X = load("wine", dtype)
    X[:, 3] = 4.0
    reference = preprocessing.MinMaxScaler((low, high)).fit(X[:100].double().cpu().numpy())
    ours = MinMaxScaler(low, high).fit(X[:100])
    close(ours(X), reference.transform(X.double().cpu().numpy()))
    close(ours.inverse(ours(X)), X)


@dtypes
def test_pca_whitening_agrees_with_scikit_learn_up_to_sign(dtype):
    X = correlated(dtype=dtype)
    n = len(X)
    expected = decomposition.PCA(whiten=True).fit_transform(X.double().cpu().numpy())
    Z = Whitener("pca").fit(X)(X)
    # theirs divides the covariance by n - 1, ours by n
    close(Z.abs(), np.abs(expected) * math.sqrt(n / (n - 1)))


def test_zca_matrix_is_the_inverse_root_of_the_covariance():
    X = correlated()
    zca = Whitener("zca").fit(X)
    variance, V = np.linalg.eigh(np.cov(X.cpu().numpy().T, bias=True))
    close(zca(X), (X - X.mean(0)).cpu().numpy() @ (V / np.sqrt(variance)) @ V.T)


def test_standardizer_per_channel():
    X = 5 + 3 * randn(6, 3, 4, 4)
    for dim in [(0, 2, 3), (0, -1, -2), [0, 2, 3]]:
        ours = Standardizer(dim=dim).fit(X)
        assert ours.mean.shape == ours.std.shape == (1, 3, 1, 1)
        std, mean = torch.std_mean(X, (0, 2, 3), correction=0, keepdim=True)
        close(ours(X), (X - mean) / std)
        assert ours(X[:2, :, 1:]).shape == (2, 3, 3, 4)  # other n, other height
    with pytest.raises(ValueError, match=r"expected X of shape \(n, 3, n, n\) as in fit, but"):
        ours(X[:, :2])


def test_standardizer_takes_targets_of_one_dimension():
    y = torch.tensor([1.0, 2.0, 6.0], device=device())
    close(Standardizer().fit(y)(y), (y - 3) / math.sqrt(14 / 3))


# --- precision ----------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [0.0, 1e4, -1e6, 1e8])
@dtypes
def test_a_large_mean_costs_no_accuracy(mean, dtype):
    X = (mean + 100 * randn(1000, 3)).to(dtype)  # what float32 holds is taken as exact
    expected = preprocessing.StandardScaler().fit_transform(X.double().cpu().numpy())
    close(Standardizer().fit(X)(X), expected, single=1e-6, double=1e-8)
    close(covariance(Whitener().fit(X)(X)), np.eye(3), double=1e-8)
    close(standardize_images(X.T)[0], expected[:, 0], single=1e-6, double=1e-8)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 1000, 99_999])
@pytest.mark.parametrize("value", [0.0, 0.1, -1 / 3, 1e8 + 0.1, 1e-30])
@dtypes
def test_a_constant_feature_becomes_zero(value, n, dtype):
    X = torch.full((n, 1), value, dtype=dtype, device=device())
    ours = Standardizer().fit(X)
    assert (ours(X) == 0).all()
    assert ours.std.item() == 1
    assert ours(X + 1).isfinite().all()


def test_a_constant_feature_is_only_shifted_at_test_time():
    X = torch.tensor([[3.0, 1.0], [3.0, 2.0]], device=device())
    X_test = torch.tensor([[5.5, 1.5]], device=device())
    assert Standardizer().fit(X)(X_test).tolist() == [[2.5, 0.0]]
    assert Standardizer(center=False).fit(X)(X_test)[0, 0] == 5.5
    assert MinMaxScaler(-1, 2).fit(X)(X)[:, 0].tolist() == [-1, -1]
    assert MinMaxScaler(-1, 2).fit(X)(X_test).tolist() == [[6.5, 0.5]]
    for kind in ("pca", "zca"):
        assert Whitener(kind).fit(X)(X_test).isfinite().all()
        close(Whitener(kind).fit(X)(X_test), [[0.0, 0.0]])


@dtypes
def test_constant_up_to_rounding_counts_as_constant(dtype):
    ulp = torch.finfo(dtype).eps
    base = torch.tensor([1.0, 1.0 + ulp], dtype=dtype, device=device())  # neighbouring floats
    X = base.repeat(50)[:, None] * torch.tensor([1.0, -1.5, 1024.0], device=device()).to(dtype)
    assert len(X[:, 0].unique()) == 2
    ours = Standardizer().fit(X)
    assert (ours.std == 1).all()
    assert ours(X).abs().max() <= 1024 * ulp
    assert (Standardizer(eps=0).fit(X).std != 1).all()  # unless told otherwise


@dtypes
def test_a_small_but_real_spread_is_not_constant(dtype):
    for mean in (1.0, -1.0):
        X = mean + torch.finfo(dtype).eps * torch.arange(9, device=device(), dtype=dtype)
        close(Standardizer().fit(X)(X), (np.arange(9) - 4) / math.sqrt(60 / 9), double=1e-6)
    tiny = 1e-30 * torch.arange(9, device=device(), dtype=dtype)  # small, not constant
    close(Standardizer().fit(tiny)(tiny), (np.arange(9) - 4) / math.sqrt(60 / 9), double=1e-6)


def test_eps_of_the_standardizer_is_relative_to_the_mean():
    X = torch.tensor([[99.0, -99.0, 0.0], [101.0, -101.0, 2.0]], device=device())
    assert Standardizer(eps=0.011).fit(X).std.tolist() == [[1, 1, 1]]
    X = X + torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]], device=device()) * 0.5
    assert Standardizer(eps=0.0051).fit(X).std.tolist() == [[1, 1, 1]]
    assert Standardizer(eps=0.0049).fit(X).std.tolist() == [[0.5, 0.5, 1]]


def test_one_row_standardizes_to_zero():
    X = randn(1, 4)
    assert (Standardizer().fit(X)(X) == 0).all()


def test_minmax_reaches_both_ends_exactly_and_clips_on_request():
    X = load("wine")
    for low, high in [(-0.1, 0.3), (0, 1), (1 / 3, 2 / 3)]:
        Z = MinMaxScaler(low, high).fit(X)(X)
        assert (Z.amin(0) == low).all()
        assert (Z.amax(0) == high).all()
    fit = MinMaxScaler(-1, 1).fit(torch.tensor([[0.0], [2.0]], device=device()))
    X_test = torch.tensor([[-1.0], [1.0], [4.0]], device=device())
    assert fit(X_test).tolist() == [[-2], [0], [3]]
    clipped = MinMaxScaler(-1, 1, clip=True).fit(torch.tensor([[0.0], [2.0]], device=device()))
    assert clipped(X_test).tolist() == [[-1], [0], [1]]


def test_zeros_stay_zero_without_centring():
    X = load("digits", torch.float32)
    Z = Standardizer(center=False).fit(X)(X)
    assert ((Z == 0) == (X == 0)).all()


# --- whitening ----------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("kind", ["pca", "zca"])
def test_whitened_covariance_is_the_identity(kind, dtype):
    for X in (correlated(dtype=dtype), load("wine", dtype)):
        Z = Whitener(kind).fit(X)(X)
        close(covariance(Z), np.eye(X.shape[1]), double=1e-8)
        close(Z.mean(0), np.zeros(X.shape[1]), double=1e-9)


def rank_deficient(name, dtype):
    """X and its rank after centring."""
    X = correlated(dtype=dtype)
    if name == "constant pixels":
        return load("digits", dtype), 61
    if name == "duplicate":
        return torch.cat([X, X[:, :2]], 1), 5
    if name == "rounded sum":
        X = 4 + randn(200, 2, dtype=dtype)
        return torch.cat([X, X.sum(1, keepdim=True)], 1), 2
    if name == "few rows":
        return randn(4, 9, dtype=dtype), 3
    return torch.full((7, 3), 0.1, dtype=dtype, device=device()), 0


@dtypes
@pytest.mark.parametrize("kind", ["pca", "zca"])
@pytest.mark.parametrize(
    "name", ["constant pixels", "duplicate", "rounded sum", "few rows", "all constant"]
)
def test_null_directions_vanish_and_the_others_stay_white(name, kind, dtype):
    X, rank = rank_deficient(name, dtype)
    ours = Whitener(kind).fit(X)
    Z = ours(X)
    eigenvalues = torch.linalg.eigvalsh(covariance(Z)).flip(0)
    close(eigenvalues, [1] * rank + [0] * (X.shape[1] - rank), double=1e-7)
    if kind == "pca":
        assert (Z[:, rank:] == 0).all()
        assert (ours.std[rank:] == 1).all()
    close(ours.inverse(Z), X, double=1e-7)
    far = X.mean(0) + 1e3 * randn(20, X.shape[1], dtype=dtype)
    assert ours(far).isfinite().all()
    null = torch.eye(X.shape[1], dtype=dtype, device=device()) - (ours.V @ ours.V.T).to(dtype)
    close(ours(X + 10 * null[0]), Z, single=1e-4, double=1e-7)


def test_eps_of_the_whitener_is_relative_to_the_largest_variance():
    X = randn(500, 3)
    X = Whitener().fit(X)(X) * torch.tensor([10.0, 1.0, 0.1], device=device())
    for eps, rank in [(0.0, 3), (0.9e-4, 3), (1.1e-4, 2), (0.9e-2, 2), (1.1e-2, 1)]:
        assert (Whitener(eps=eps).fit(X).V.norm(dim=0) > 0).sum() == rank


@dtypes
def test_the_default_eps_of_the_whitener_is_as_documented(dtype):
    rounding = max(torch.finfo(dtype).eps ** 2, torch.finfo(torch.float64).eps)
    square = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=dtype, device=device())
    for factor, rank in [(1.9, 1), (2.1, 2)]:  # D = 2
        X = square * torch.tensor([1, math.sqrt(factor * rounding)], device=device())
        assert (Whitener().fit(X.to(dtype)).V.norm(dim=0) > 0).sum() == rank


def test_pca_sorts_and_zca_stays_closest_to_the_data():
    X = correlated()
    pca, zca = Whitener("pca").fit(X), Whitener("zca").fit(X)
    assert (pca.std[:-1] >= pca.std[1:]).all()
    x = X - X.mean(0)
    W = torch.linalg.lstsq(x, zca(X)).solution
    close(W, W.T)  # zca is symmetric, pca is not
    assert torch.linalg.eigvalsh(W).min() > 0
    assert not torch.allclose(torch.linalg.lstsq(x, pca(X)).solution, W, atol=0.1)
    distance = (x - zca(X)).norm()
    assert distance < (x - pca(X)).norm()
    for seed in range(20):  # every other whitening is a rotation of this one
        Q, _ = torch.linalg.qr(torch.eye(5, device=device()) + 0.3 * randn(5, 5, seed=seed))
        Q = Q * torch.where(Q.diagonal() < 0, -1, 1)
        assert (x - zca(X) @ Q).norm() > distance


def test_whitening_uncorrelated_features_is_standardizing():
    X = torch.tensor([[0.0, 0.0], [0.0, 2.0], [4.0, 0.0], [4.0, 2.0]], device=device())
    close(Whitener("zca").fit(X)(X), Standardizer().fit(X)(X))


# --- images -------------------------------------------------------------------------------


@dtypes
def test_standardize_images_gives_each_image_its_own_scale(dtype):
    X = 3 + 2 * randn(5, 3, 8, 8, dtype=dtype)
    Z = standardize_images(X)
    std, mean = torch.std_mean(X.double(), (1, 2, 3), correction=0, keepdim=True)
    close(Z, (X.double() - mean) / std)
    close(standardize_images(7 * X + 1), Z)
    close(standardize_images(X[2:3]), Z[2:3])  # company does not matter
    close(standardize_images(Z), Z)
    assert standardize_images(X[:0]).shape == (0, 3, 8, 8)
    assert standardize_images(X.transpose(1, 3)).shape == (5, 8, 8, 3)  # not contiguous


@dtypes
def test_standardize_images_leaves_blank_images_blank(dtype):
    X = torch.full((2, 8, 8), 0.1, dtype=dtype, device=device(), requires_grad=True)
    Z = standardize_images(X)
    assert Z.abs().max() < 1e-12
    Z.square().sum().backward()
    assert X.grad.isfinite().all()
    faint = torch.zeros(1, 64, dtype=dtype, device=device())
    faint[0, ::2] = 0.02
    close(standardize_images(faint), (faint - 0.01) * math.sqrt(64))  # the floor


# --- condition number ---------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["wine", "correlated"])
def test_condition_number_is_a_ratio_of_eigenvalues(name, bias):
    X = correlated() if name == "correlated" else load("wine")
    Z = np.c_[X.cpu().numpy(), np.ones(len(X))] if bias else X.cpu().numpy()
    eigenvalues = np.linalg.eigvalsh(Z.T @ Z / len(Z))
    expected = pytest.approx(eigenvalues[-1] / eigenvalues[0], rel=1e-6)
    assert condition_number(X, bias) == expected
    assert isinstance(condition_number(X), float)


def test_condition_number_by_hand():
    X = torch.tensor([[3.0], [-3.0]], device=device())
    assert condition_number(X) == pytest.approx(9)  # eigenvalues 9 and 1
    assert condition_number(X, bias=False) == pytest.approx(1)
    shifted = torch.tensor([[101.0], [99.0]], device=device())
    trace, determinant = 10001 + 1, 1  # of [[10001, 100], [100, 1]]
    root = math.sqrt(trace**2 - 4 * determinant)
    assert condition_number(shifted) == pytest.approx((trace + root) ** 2 / 4)


@dtypes
def test_condition_number_of_deficient_input_is_infinite(dtype):
    assert condition_number(load("digits", dtype)) == math.inf
    X = correlated(dtype=dtype)
    assert condition_number(torch.cat([X, X[:, :1]], 1)) == math.inf
    assert condition_number(X[:4], bias=False) == math.inf
    assert condition_number(X[:5]) == math.inf  # with the bias, 6 columns
    assert condition_number(torch.zeros(3, 2, device=device(), dtype=dtype)) == math.inf
    constant = torch.cat([X, torch.full_like(X[:, :1], 0.1)], 1)
    assert condition_number(constant) == math.inf
    assert condition_number(constant, bias=False) < math.inf


def test_condition_number_falls_from_raw_to_standardized_to_white():
    X = load("wine")
    raw, standardized, white = (
        condition_number(Z) for Z in (X, Standardizer().fit(X)(X), Whitener().fit(X)(X))
    )
    assert raw > 1e6 * standardized > 1e6 * white
    assert white == pytest.approx(1)


def test_condition_number_sets_the_speed_of_gradient_descent():
    """The best fixed rate shrinks the error by (kappa - 1) / (kappa + 1) a step, at worst."""
    X = correlated(D=2)
    Z = torch.cat([X, torch.ones_like(X[:, :1])], 1)
    eigenvalues, V = torch.linalg.eigh(Z.T @ Z / len(Z))
    kappa = condition_number(X)
    lr = 2 / (eigenvalues[0] + eigenvalues[-1])
    error = V[:, 0]  # of the weights, along the flattest direction
    for _ in range(10):
        error = error - lr * Z.T @ (Z @ error) / len(Z)
    assert error.norm().item() == pytest.approx(((kappa - 1) / (kappa + 1)) ** 10)


# --- as modules ---------------------------------------------------------------------------


@each
def test_nothing_but_fit_computes_statistics(make):
    X = correlated()
    ours = make()
    assert ours.fit(X[:100]) is ours
    state, Z = copy.deepcopy(ours.state_dict()), ours(X[:100])
    for training in (True, False):
        other = ours.train(training)(torch.cat([X[:100], 1e3 + 50 * X[100:]]))
        assert torch.equal(other[:100], Z)
        ours.inverse(other)
    for name, value in ours.state_dict().items():
        assert torch.equal(value, state[name])


@each
def test_fit_forgets_what_was_fit_before_and_leaves_its_input_alone(make):
    X = correlated()
    original = X.clone()
    ours = make().fit(randn(9, 3)).fit(X)
    assert torch.equal(ours(X), make().fit(X)(X))
    assert torch.equal(X, original)


@each
@dtypes
def test_inverse_takes_back_also_on_new_data(make, dtype):
    ours = make().fit(correlated(dtype=dtype))
    X_test = correlated(seed=1, dtype=dtype)
    close(ours.inverse(ours(X_test)), X_test)
    assert ours.inverse(ours(X_test)).dtype == dtype


@each
def test_normalizing_twice_changes_nothing(make):
    X = correlated()
    Z = make().fit(X)(X)
    again = make().fit(Z)(Z)
    if make is FACTORIES["pca"]:  # equal variances: any rotation of Z is principal
        Z, again = Z @ Z.T, again @ again.T
    close(again, Z, double=1e-9)


@each
def test_gradients_reach_the_input_and_not_the_statistics(make):
    X = correlated(n=8, D=3).requires_grad_()
    ours = make().fit(X)
    assert not list(ours.parameters())
    for _, statistic in ours.named_buffers():
        assert statistic.grad_fn is None
        assert not statistic.requires_grad
    assert torch.autograd.gradcheck(ours, (X,))
    assert torch.autograd.gradcheck(ours.inverse, (X,))
    assert torch.autograd.gradcheck(standardize_images, (X,))


@each
def test_saved_statistics_load_into_a_fresh_module(make):
    X = correlated()
    ours = make().fit(X)
    file = io.BytesIO()
    torch.save(ours.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True, map_location=device())
    for other in (make(), make().fit(randn(9, 2))):  # empty, or of another size
        result = other.to(device()).load_state_dict(state)
        assert not result.missing_keys + result.unexpected_keys
        assert torch.equal(other(X), ours(X))
        assert torch.equal(other.inverse(X), ours.inverse(X))
    with pytest.raises(RuntimeError, match="Missing key"):
        make().load_state_dict({})


@each
def test_it_travels_inside_a_network(make):
    X = correlated(dtype=torch.float32)
    network = nn.Sequential(make().fit(X), nn.Linear(5, 2)).to(device())
    fresh = nn.Sequential(make(), nn.Linear(5, 2)).to(device())
    fresh.load_state_dict(network.state_dict())
    assert torch.equal(fresh(X), network(X))
    assert network(X).dtype == torch.float32
    expected = network(X)
    close(copy.deepcopy(network).double()(X.double()).float(), expected)
    close(copy.deepcopy(network).float()(X), expected, single=1e-4)
    from_cpu = make().fit(X.cpu()).to(device())  # statistics move along
    close(from_cpu.inverse(from_cpu(X)), X)


@each
def test_the_dtype_of_the_result_is_that_of_the_input(make):
    ours = make().fit(correlated(dtype=torch.float32))
    for statistic in ours.buffers():
        assert statistic.dtype == torch.float64
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        X = correlated(dtype=dtype)
        for module in (ours, copy.deepcopy(ours).float()):
            assert module(X).dtype == module.inverse(X).dtype == dtype


@given(
    x=st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20),
    a=st.floats(1e-2, 1e2) | st.floats(-1e2, -1e-2),
    b=st.floats(-1e3, 1e3),
)
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_standardizing_undoes_shift_and_scale(x, a, b):
    X = torch.tensor(x, dtype=torch.float64, device=device())[:, None]
    if X.std() < 1e-3:  # a x + b would be made of rounding
        X[0] += 1
    Z = Standardizer().fit(X)(X)
    close(Standardizer().fit(a * X + b)(a * X + b), math.copysign(1, a) * Z, double=1e-6)


# --- bad input ----------------------------------------------------------------------------


@each
def test_use_before_fit(make):
    X = randn(4, 3)
    loaded = make().fit(X)
    loaded.load_state_dict(make().state_dict())
    for ours in (make(), loaded):
        for method in (ours, ours.inverse):
            with pytest.raises(RuntimeError, match=r"has no statistics: call fit first"):
                method(X)


@each
def test_another_number_of_features(make):
    ours = make().fit(randn(20, 13))
    for shape in [(5, 12), (5, 1), (13,), (5, 13, 1), (1, 5, 13), ()]:
        message = rf"expected X of shape \(n, 13\) as in fit, but got \({str(shape)[1:-1]}\)"
        for method in (ours, ours.inverse):
            with pytest.raises(ValueError, match=message):
                method(torch.zeros(shape, device=device()))
    assert ours(torch.zeros(0, 13, device=device())).shape == (0, 13)


def test_one_feature_does_not_broadcast():
    with pytest.raises(ValueError, match=r"expected X of shape \(n, 1\) as in fit"):
        Standardizer().fit(randn(5, 1))(randn(5, 2))


BAD_TYPES = [
    (torch.zeros(3, 3, dtype=torch.uint8), r"torch\.uint8"),
    (torch.zeros(3, 3, dtype=torch.int64), r"torch\.int64"),
    (torch.zeros(3, 3, dtype=torch.bool), r"torch\.bool"),
    (torch.zeros(3, 3, dtype=torch.complex64), r"torch\.complex64"),
    (np.zeros((3, 3)), "numpy.ndarray"),
    ([[1.0, 2.0], [3.0, 4.0]], "list"),
]


@pytest.mark.parametrize(("X", "got"), BAD_TYPES)
def test_wrong_type_says_what_to_convert(X, got):
    message = (
        rf"expected float tensor X \(convert images: X\.float\(\) / 255\), but got .*{got}"
    )
    for make in FACTORIES.values():
        fitted = make().fit(randn(9, 3))
        for method in (make().fit, fitted, fitted.inverse):
            with pytest.raises(TypeError, match=message):
                method(X)
    for function in (standardize_images, condition_number):
        with pytest.raises(TypeError, match=message):
            function(X)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_fit_refuses_what_is_not_finite(bad):
    X = randn(5, 3)
    X[2, 1] = bad
    for function in [make().fit for make in FACTORIES.values()] + [condition_number]:
        with pytest.raises(ValueError, match=f"expected finite X, but got {bad}"):
            function(X)
    assert Standardizer().fit(randn(5, 3))(X).isfinite().sum() == 14  # forward passes it on


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), ()])
def test_empty_input(shape):
    X = torch.zeros(shape, device=device())
    for function in [make().fit for make in FACTORIES.values()] + [condition_number]:
        with pytest.raises(ValueError, match=rf"expected X .*but got \({str(shape)[1:-1]}\)"):
            function(X)


def test_too_few_rows_or_dimensions():
    for make in (MinMaxScaler, Whitener):
        with pytest.raises(ValueError, match=r"n >= 2, but got \(1, 3\)"):
            make().fit(randn(1, 3))
        assert make().fit(randn(2, 3))(randn(1, 3)).shape == (1, 3)
    for function in (Whitener().fit, condition_number):
        for shape in [(5,), (5, 3, 2)]:
            with pytest.raises(ValueError, match=r"expected X \(n, D\), n >= \d, but got \(5,"):
                function(randn(*shape))
    for shape in [(5,), (5, 0), (2, 3, 0), ()]:
        with pytest.raises(ValueError, match=r"expected X of shape \(n, \.\.\.\) with pixels"):
            standardize_images(torch.zeros(shape, device=device()))


@pytest.mark.parametrize("make", [Standardizer, Whitener])
@pytest.mark.parametrize("eps", [-1e-9, math.nan, -math.inf])
def test_bad_eps(make, eps):
    with pytest.raises(ValueError, match=rf"expected eps to be None or .*, but got {eps}"):
        make(eps=eps)


@pytest.mark.parametrize(
    ("low", "high"),
    [(1, 1), (2, -1), (math.nan, 1), (0, math.nan), (0, math.inf), (-math.inf, 0)],
)
def test_bad_range(low, high):
    with pytest.raises(ValueError, match=f"low < high, but got low={low}, high={high}"):
        MinMaxScaler(low, high)


def test_unknown_kind():
    with pytest.raises(ValueError, match="expected kind to be 'pca' or 'zca', but got 'PCA'"):
        Whitener("PCA")


def test_a_failed_fit_changes_nothing():
    X = randn(5, 3)
    for make in FACTORIES.values():
        ours = make().fit(X)
        Z = ours(X)
        with pytest.raises(ValueError, match="expected finite X"):
            ours.fit(X * math.nan)
        assert torch.equal(ours(X), Z)
