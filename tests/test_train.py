import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib.data import digits, polynomial
from lib.device import device, generator
from lib.models import mlp
from lib.train import Diverged, accuracy, batches, evaluating, mean_loss, train


@pytest.fixture(scope="module")
def split():
    return digits(0, num_train=200).to(device())


def fit(split, *, seed=0, epochs=2, lr=0.1, dropout=0.0, callback=None, model=None, **options):
    if model is None:
        model = mlp([64, 16, 10], dropout=dropout, generator=generator(seed)).to(device())
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    options.setdefault("generator", generator(seed))
    X, y = split.X_train, split.y_train
    return model, train(model, X, y, optimizer, epochs=epochs, on_epoch=callback, **options)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# --- train ---


def test_training_learns(split):
    model, history = fit(split, epochs=40, lr=0.5)
    assert len(history.loss) == 40
    assert history.loss[-1] < 0.3 * history.loss[0]
    assert accuracy(model, split.X_train, split.y_train) > 0.95
    assert accuracy(model, split.X_test, split.y_test) > 0.8
    assert all(m.training for m in model.modules())


def test_training_equals_the_loop_written_out(split):
    model, history = fit(split, epochs=2, lr=0.2)
    mine = mlp([64, 16, 10], generator=generator(0)).to(device())
    g = generator(0)
    for epoch in range(2):
        total = 0.0
        order = torch.randperm(200, generator=g)
        for start in range(0, 200, 64):
            batch = order[start : start + 64].to(device())
            loss = F.cross_entropy(mine(split.X_train[batch]), split.y_train[batch])
            grads = torch.autograd.grad(loss, list(mine.parameters()))
            with torch.no_grad():
                for p, grad in zip(mine.parameters(), grads, strict=True):
                    p -= 0.2 * grad
            total += loss.item() * len(batch)
        assert history.loss[epoch] == pytest.approx(total / 200, rel=1e-6)
    torch.testing.assert_close(weights(model), weights(mine))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_generator_decides_everything(split, dropout):
    torch.manual_seed(1)
    model, history = fit(split, dropout=dropout)
    torch.manual_seed(2)
    again, same = fit(split, dropout=dropout)
    assert torch.equal(weights(model), weights(again))
    assert history.loss == same.loss
    other, _ = fit(split, dropout=dropout, generator=generator(99))
    assert not torch.equal(weights(model), weights(other))


def test_noise_differs_from_epoch_to_epoch(split):
    class Record(nn.Dropout):
        def forward(self, x):
            out = super().forward(x)
            self.masks.append(out == 0)
            return out

    layer = Record(0.5)
    layer.masks = []
    model = nn.Sequential(layer, nn.Linear(64, 10)).to(device())
    ones = torch.ones(200, 64, device=device())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train(
        model, ones, split.y_train, optimizer, epochs=2, batch_size=200, generator=generator(0)
    )
    assert not torch.equal(*layer.masks)


def test_training_leaves_the_global_generator_alone(split):
    before = torch.get_rng_state()
    fit(split, dropout=0.5)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_generator_torchs_global_one_decides(split):
    def run(global_seed):
        torch.manual_seed(global_seed)
        return weights(fit(split, dropout=0.5, generator=None)[0])

    assert torch.equal(run(3), run(3))
    assert not torch.equal(run(3), run(4))


def test_two_epochs_equal_twice_one(split):
    model, history = fit(split, epochs=2, dropout=0.3)
    g = generator(0)
    again, one = fit(split, epochs=1, dropout=0.3, generator=g)
    again, two = fit(split, epochs=1, model=again, generator=g)
    assert torch.equal(weights(model), weights(again))
    assert history.loss == one.loss + two.loss


def test_callbacks_are_recorded_and_cannot_disturb(split):
    def callback(epoch, model):
        torch.rand(7)
        model.eval()
        return epoch, accuracy(model, split.X_val, split.y_val)

    model, history = fit(split, epochs=3, dropout=0.3, callback=callback)
    quiet, silent = fit(split, epochs=3, dropout=0.3)
    assert [epoch for epoch, _ in history.records] == [0, 1, 2]
    assert torch.equal(weights(model), weights(quiet))
    assert silent.records == []


def test_training_never_sees_validation_or_test(split):
    """Ruining the other two sets changes nothing about the trained model."""
    model, _ = fit(split)
    ruined = digits(0, num_train=200).to(device())
    for part in (ruined.X_val, ruined.X_test, ruined.y_val, ruined.y_test):
        part.zero_()
    again, _ = fit(ruined)
    assert torch.equal(weights(model), weights(again))


def test_schedule_sets_the_rate_of_each_step_and_gives_it_back(split):
    seen = []

    class Spy(torch.optim.SGD):
        def step(self):
            seen.append([group["lr"] for group in self.param_groups])
            return super().step()

    model = mlp([64, 16, 10], generator=generator(0)).to(device())
    groups = [{"params": model[0].parameters(), "lr": 0.4}, {"params": model[2].parameters()}]
    optimizer = Spy(groups, lr=0.2)
    train(
        model,
        split.X_train,
        split.y_train,
        optimizer,
        epochs=2,
        batch_size=100,
        generator=generator(0),
        schedule=lambda step: 0.5**step,
    )
    assert seen == [[0.4 * 0.5**k, 0.2 * 0.5**k] for k in range(4)]
    assert [group["lr"] for group in optimizer.param_groups] == [0.4, 0.2]


def test_a_schedule_of_ones_changes_nothing(split):
    with_ones, _ = fit(split, schedule=lambda step: 1.0)
    without, _ = fit(split)
    assert torch.equal(weights(with_ones), weights(without))


def test_divergence_is_reported_with_step_and_loss_and_spares_the_weights(split):
    model = mlp([64, 16, 10], generator=generator(0)).to(device())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    X = split.X_train.clone()
    X[list(batches(200, 50, generator(0)))[2]] = math.nan
    with pytest.raises(Diverged, match="finite, but got nan at step 2") as caught:
        train(
            model,
            X,
            split.y_train,
            optimizer,
            epochs=1,
            batch_size=50,
            generator=generator(0),
            schedule=lambda step: 0.5,
        )
    assert isinstance(caught.value, ValueError)
    assert caught.value.step == 2
    assert math.isnan(caught.value.loss)
    assert weights(model).isfinite().all()
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_too_large_a_rate_diverges(split):
    with pytest.raises(Diverged):
        fit(split, lr=1e20, epochs=20)


def test_diverged_travels_between_processes():
    copy = pickle.loads(pickle.dumps(Diverged(3, math.inf)))
    assert (copy.step, copy.loss, str(copy)) == (3, math.inf, str(Diverged(3, math.inf)))


def test_regression(split):
    data = polynomial(0, n=64, noise=0.0).to(device())
    model = mlp([1, 32, 1], nn.Tanh, generator=generator(0)).to(device())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    train(
        model,
        data.X_train,
        data.y_train,
        optimizer,
        epochs=150,
        loss_fn=F.mse_loss,
        generator=generator(0),
    )
    assert mean_loss(model, data.X_test, data.y_test, F.mse_loss) < 0.05
    with pytest.raises(ValueError, match=r"shape of the model's output, \(64, 1\).* \(64,\)"):
        train(model, data.X_train, data.y_train[:, 0], optimizer, epochs=1, loss_fn=F.mse_loss)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"epochs": 0}, ValueError, "epochs has to be at least 1, but got 0"),
        ({"epochs": 1.5}, TypeError, "epochs has to be an int"),
        ({"batch_size": 0}, ValueError, "batch_size has to be at least 1, but got 0"),
        ({"schedule": lambda step: -1.0}, ValueError, "schedule has .* got -1.0 at step 0"),
        ({"schedule": lambda step: math.nan}, ValueError, "schedule has .* got nan"),
        ({"schedule": lambda step: math.inf}, ValueError, "schedule has .* got inf"),
        (
            {"loss_fn": lambda a, b: (a - 1) ** 2},
            ValueError,
            "loss_fn has to return one number",
        ),
    ],
)
def test_bad_options(split, options, error, match):
    with pytest.raises(error, match=match):
        fit(split, **options)


@pytest.mark.parametrize(
    ("X", "y", "error", "match"),
    [
        (
            torch.zeros(3, 4),
            torch.zeros(2).long(),
            ValueError,
            "of one length, but got 3 and 2",
        ),
        (torch.zeros(0, 4), torch.zeros(0).long(), ValueError, "X has to hold samples"),
        (torch.tensor(1.0), torch.zeros(1).long(), ValueError, "X has to hold samples"),
        ([[1.0]], torch.zeros(1).long(), TypeError, "X has to be a tensor, but got list"),
        (torch.zeros(1, 4), [0], TypeError, "y has to be a tensor, but got list"),
    ],
)
def test_bad_samples(X, y, error, match):
    model = nn.Linear(4, 2)
    for call in (
        lambda: train(model, X, y, torch.optim.SGD(model.parameters(), lr=0.1), epochs=1),
        lambda: accuracy(model, X, y),
        lambda: mean_loss(model, X, y),
    ):
        with pytest.raises(error, match=match):
            call()


# --- batches ---


@pytest.mark.parametrize(("n", "size"), [(10, 3), (9, 3), (2, 5), (1, 1)])
def test_batches_visit_every_sample_once(n, size):
    parts = list(batches(n, size, generator(0)))
    assert sorted(torch.cat(parts).tolist()) == list(range(n))
    assert all(len(part) == size for part in parts[:-1])
    assert all(part.device.type == "cpu" and part.dtype == torch.int64 for part in parts)


def test_drop_last_leaves_out_only_a_smaller_batch():
    assert [len(b) for b in batches(10, 4, generator(0), drop_last=True)] == [4, 4]
    assert [len(b) for b in batches(8, 4, generator(0), drop_last=True)] == [4, 4]
    full, cut = (list(batches(10, 4, generator(0), drop_last=d)) for d in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(full, cut, strict=False))


def test_batch_orders_follow_the_generator():
    def orders(seed):
        g = generator(seed)
        return [torch.cat(list(batches(50, 7, g))).tolist() for _ in range(2)]

    assert orders(0) == orders(0)
    assert orders(0) != orders(1)
    assert orders(0)[0] != orders(0)[1]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: batches(0, 4, None), "n has to be at least 1, but got 0"),
        (lambda: batches(4, 0, None), "batch_size has to be at least 1, but got 0"),
        (lambda: batches(4, 5, None, drop_last=True), "batch_size has to be between 1 and 4"),
    ],
)
def test_bad_batches_are_refused_at_the_call(call, match):
    with pytest.raises(ValueError, match=match):
        call()


# --- evaluation ---


def test_accuracy_and_mean_loss_by_hand():
    model = nn.Identity()
    X = torch.tensor([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0], [1.0, 0.0]])
    y = torch.tensor([0, 1, 1, 0])
    assert accuracy(model, X, y) == 0.75
    expected = -X.log_softmax(1)[range(4), y].mean()
    assert mean_loss(model, X, y) == pytest.approx(expected.item(), rel=1e-6)
    with pytest.raises(ValueError, match=r"accuracy needs .* got \(4, 2\) and \(4, 1\)"):
        accuracy(model, X, y[:, None])
    with pytest.raises(ValueError, match=r"got \(4,\) and \(4,\)"):
        accuracy(model, X[:, 0], y)


@pytest.mark.parametrize("measure", [accuracy, mean_loss])
def test_measuring_is_in_eval_mode_and_leaves_no_trace(split, measure):
    model = mlp([64, 16, 10], norm=nn.BatchNorm1d, dropout=0.5, generator=generator(0))
    model.to(device()).train()
    model[1].eval()  # a frozen layer, as in fine-tuning
    modes = [m.training for m in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    values = {measure(model, split.X_val, split.y_val) for _ in range(3)}
    assert len(values) == 1
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.is_grad_enabled()


def test_modes_return_even_after_an_error(split):
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))
    model[1].eval()
    with pytest.raises(RuntimeError):
        accuracy(model.to(device()), split.X_val, split.y_val)
    assert [m.training for m in model.modules()] == [True, True, False]
    assert torch.is_grad_enabled()


def test_a_layer_used_twice_keeps_its_mode():
    frozen = nn.Dropout(0.5).eval()
    model = nn.Sequential(nn.Sequential(frozen), nn.Sequential(frozen))
    with evaluating(model):
        assert not any(m.training for m in model.modules())
    assert not frozen.training
    assert model[0].training
    assert model[1].training


def test_evaluating_switches_mode_and_gradients_off(split):
    model = mlp([64, 10], generator=generator(0)).to(device())
    with evaluating(model) as inside:
        assert inside is model
        assert not model.training
        assert not model(split.X_val).requires_grad
    assert model.training
