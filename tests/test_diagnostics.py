"""Diagnostics: the numbers, what is found wrong and what not, and that nothing is changed."""

import contextlib
import io
import math
import warnings
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from lib.data import digits
from lib.device import device, generator
from lib.diagnostics import diagnose
from lib.models import convnet, mlp


@pytest.fixture(autouse=True)
def seeded():
    """Whatever ran before, torch's own layers start with the same weights."""
    torch.manual_seed(0)


def randn(*shape, seed=0, **options):
    return torch.randn(*shape, generator=generator(seed), **options)


def classes(n, k=10, seed=0):
    return torch.randint(k, (n,), generator=generator(seed))


class Net(nn.Module):
    """A module written as a function: Net(forward, fc=nn.Linear(2, 2), ...)."""

    def __init__(self, run, **attributes):
        super().__init__()
        self.run = run
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, *args):
        return self.run(self, *args)


def linear(weight, bias=None):
    weight = torch.tensor(weight)
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data, layer.bias.data = weight, torch.tensor(bias or [0.0] * len(weight))
    return layer


def he(model, seed=0):
    for i, m in enumerate(model.modules()):
        if isinstance(m, (nn.Linear, nn.Conv2d)):
            g = generator(1000 * seed + i)
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu", generator=g)
            nn.init.zeros_(m.bias)
    return model


def encoder(seed=0, **options):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, **options)
        return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def said(report, part):
    return [sentence for sentence in report.problems if part in sentence]


# --- numbers, by hand ---


def test_statistics_of_outputs():
    net = nn.Sequential(linear([[1.0, 0.0], [0.0, -1.0]]), nn.ReLU())
    X = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    before, after = diagnose(net, X).layers  # [[1, -2], [3, -4]] and [[1, 0], [3, 0]]
    assert (before.name, before.kind, before.role) == ("0", "Linear", "weights")
    assert (after.name, after.kind, after.role) == ("1", "ReLU", "activation")
    assert (before.shape, before.units, before.dead, before.zeros) == ((2, 2), 2, 0, 0)
    assert before.mean == -0.5
    assert before.std == pytest.approx(math.sqrt(7.25))
    assert before.rms == pytest.approx(math.sqrt(7.5))
    assert (after.mean, after.zeros, after.dead) == (1, 0.5, 1)
    assert after.std == pytest.approx(math.sqrt(1.5))
    assert (after.saturated, after.grad_rms) == (None, None)


def test_gradients_and_updates():
    net = nn.Sequential(linear([[1.0, 1.0], [-1.0, -1.0]]), nn.ReLU(), linear([[2.0, 5.0]]))
    X, y = torch.tensor([[1.0, 0.0], [1.0, 2.0]]), torch.tensor([[0.0], [2.0]])
    # outputs 2 and 6; loss = mean((y_hat - y)²) = (4 + 16) / 2; d loss / d y_hat = 2 and 4
    report = diagnose(net, X, y, loss_fn=F.mse_loss, lr=0.1)
    assert (report.loss, report.guess) == (10, None)
    rms = [layer.grad_rms for layer in report.layers]
    assert rms[2] == pytest.approx(math.sqrt((4 + 16) / 2))
    # times (2, 5); the second unit is off
    assert rms[1] == pytest.approx(math.sqrt((16 + 100 + 64 + 400) / 4))
    assert rms[0] == pytest.approx(math.sqrt((16 + 64) / 4))
    assert report.gradient_ratio == pytest.approx(rms[0] / rms[2])
    first, b1, last, b2 = report.weights
    assert [w.name for w in report.weights] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    # dW1 = (4, 0) (1, 0)ᵀ + (8, 0) (1, 2)ᵀ = [[12, 16], [0, 0]]; dW2 = 2 (1, 0) + 4 (3, 0)
    assert first.grad_rms == pytest.approx(10)
    assert last.grad_rms == pytest.approx(math.sqrt(14**2 / 2))
    assert report.weight_gradient_ratio == pytest.approx(10 / math.sqrt(98))
    assert (first.rms, first.update) == (1, pytest.approx(1.0))
    assert last.update == pytest.approx(0.1 * math.sqrt(98) / math.sqrt(29 / 2))
    assert b2.grad_rms == 6
    assert (b1.rms, b1.update) == (0, None)  # nothing to relate the change to


class Clipped(torch.optim.SGD):
    def step(self):
        nn.utils.clip_grad_norm_(self.param_groups[0]["params"], 1e-3)
        super().step()


def test_an_optimizer_takes_its_first_step_on_a_copy():
    net, X, y = mlp([4, 8, 3], nn.Tanh, generator=generator(0)), randn(5, 4), classes(5, 3)
    before = [p.detach().clone() for p in net.parameters()]
    report = diagnose(net, X, y, optimizer=lambda ps: torch.optim.Adam(ps, 1e-3, eps=0))
    assert all(map(torch.equal, net.parameters(), before))
    last = report.weights[-2]  # every entry has a gradient, and Adam's first step is ±lr
    assert last.update == pytest.approx(1e-3 / last.rms, rel=1e-6)
    sgd = diagnose(net, X, y, optimizer=lambda ps: torch.optim.SGD(ps, 0.3))
    assert sgd.weights == diagnose(net, X, y, lr=0.3).weights
    double = diagnose(net.double(), X.double(), y, lr=0.3)
    assert double.weights[0].update == pytest.approx(sgd.weights[0].update, rel=1e-5)
    decayed = diagnose(net, X.double(), y, optimizer=lambda ps: Clipped(ps, 0.3))
    assert decayed.weights[0].grad_rms == double.weights[0].grad_rms
    assert decayed.weights[0].update < double.weights[0].update
    assert sgd.weights[0].update == pytest.approx(
        0.3 * sgd.weights[0].grad_rms / sgd.weights[0].rms
    )


def test_loss_and_gradients_are_those_of_backward():
    net, X, y = mlp([6, 9, 9, 4], nn.Tanh, generator=generator(0)), randn(7, 6), classes(7, 4)
    kept = []
    report = diagnose(net, X, y)
    a = X
    for layer in net:
        a = layer(a)
        a.retain_grad()
        kept.append(a)
    loss = F.cross_entropy(a, y)
    loss.backward()
    assert report.loss == loss.item()
    assert report.guess == math.log(4)
    for layer, a in zip(report.layers, kept, strict=True):
        assert layer.grad_rms == pytest.approx(a.grad.square().mean().sqrt().item(), rel=1e-5)
        assert layer.rms == pytest.approx(a.square().mean().sqrt().item(), rel=1e-5)
    for weight, p in zip(report.weights, net.parameters(), strict=True):
        assert weight.grad_rms == pytest.approx(p.grad.square().mean().sqrt().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("activation", "flat"),
    [(nn.Tanh(), 2.1), (nn.Sigmoid(), 4.2), (nn.Hardtanh(), 0.98), (nn.Hardsigmoid(), 2.95)],
)
def test_saturated_where_the_slope_is_below_6_percent(activation, flat):
    X = torch.tensor([[-flat, -flat, 0.97 * flat, 0.0]])
    (layer,) = diagnose(nn.Sequential(activation), X).layers
    assert layer.saturated == 0.5


def test_functions_saturate_too():
    X = torch.tensor([[3.0, 0.0]])
    for f in (torch.tanh, F.tanh, torch.Tensor.tanh, lambda x: x.clone().tanh_()):
        (layer,) = diagnose(Net(lambda self, x, f=f: f(x)), X).layers
        assert (layer.name, layer.kind, layer.saturated) == ("model.tanh()", "tanh", 0.5)
    rnn = nn.RNN(2, 3)
    nn.init.constant_(rnn.bias_ih_l0, 99)
    assert diagnose(rnn, randn(4, 2, 2)).layers[0].saturated == 1


def test_a_unit_of_an_image_is_a_channel():
    conv = nn.Conv2d(1, 3, 3)
    nn.init.constant_(conv.bias, -99)
    conv.bias.data[1] = 99
    net = nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 5))
    for X in (randn(4, 1, 6, 6), randn(4, 1, 6, 6).to(memory_format=torch.channels_last)):
        layers = diagnose(net, X).layers
        assert [v.units for v in layers] == [3, 3, 3, 12, 5]
        assert [v.dead for v in layers] == [0, 2, 2, 8, 0]
    assert diagnose(nn.ReLU(), randn(2, 3, 4, 5)).layers[0].units == 3


def test_a_unit_of_a_sequence_is_a_channel_or_a_feature():
    X = randn(4, 2, 6)
    conv = nn.Sequential(nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3), nn.ReLU())
    assert [v.units for v in diagnose(conv, X).layers] == [3, 3, 3]
    dense = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.ReLU())
    assert [v.units for v in diagnose(dense, X).layers] == [5, 5, 5]
    mixed = Net(
        lambda self, x: F.relu(self.fc(F.relu(self.conv(x)).movedim(1, -1))),
        conv=nn.Conv2d(1, 3, 1),
        fc=nn.Linear(3, 7),
    )
    assert [v.units for v in diagnose(mixed, randn(2, 1, 4, 4)).layers] == [3, 3, 7, 7]


def test_channels_last_and_float64_give_the_same_numbers():
    net = convnet(8, generator=generator(0))
    X, y = randn(4, 64), classes(4)
    report = diagnose(net, X, y)
    last = diagnose(net.to(memory_format=torch.channels_last), X, y)
    double = diagnose(net.double(), X.double(), y)
    for other in (last, double):
        for a, b in zip(report.layers[1:], other.layers[1:], strict=True):
            assert (a.name, a.shape, a.dead) == (b.name, b.shape, b.dead)
            assert (a.rms, a.grad_rms) == pytest.approx((b.rms, b.grad_rms), rel=1e-4)


# --- which layers there are ---


def names(report):
    return [layer.name for layer in report.layers]


def test_layers_come_in_order_of_execution():
    net = Net(lambda self, x: self.a(self.b(x)), a=nn.Linear(3, 2), b=nn.Linear(2, 3))
    report = diagnose(net, randn(4, 2))
    assert names(report) == ["b", "a"]
    assert [w.name for w in report.weights] == ["a.weight", "a.bias", "b.weight", "b.bias"]
    assert names(diagnose(nn.Linear(2, 3), randn(4, 2))) == ["model"]


def test_nested_containers_count_where_they_compute():
    def residual(self, x):
        return x + self.body(x)

    block = Net(residual, body=nn.Sequential(nn.Sequential(nn.Linear(3, 3)), nn.Tanh()))
    net = nn.Sequential(nn.Linear(3, 3), block)
    report = diagnose(net, randn(4, 3))
    assert names(report) == ["0", "1.body.0.0", "1.body.1", "1"]
    assert [v.role for v in report.layers] == ["weights", "weights", "activation", ""]

    def in_place(self, x):
        y = self.body(x)
        y += x
        return y

    block.run = in_place  # the tensor is the body's, the numbers are not
    again = diagnose(net, randn(4, 3))
    assert names(again) == names(report)
    assert again.layers[-1].rms == pytest.approx(report.layers[-1].rms)
    block.run = lambda self, x: x.mul_(2)  # in place on what came in
    assert names(diagnose(net, randn(4, 3))) == ["0", "1"]


def test_functions_are_named_after_the_module_that_calls_them():
    block = Net(lambda self, x: F.gelu(self.fc(x)), fc=nn.Linear(3, 3))
    net = Net(lambda self, x: torch.relu(self.block(x)).relu(), block=block)
    X, y = randn(4, 3), classes(4, 3)
    report = diagnose(net, X, y)
    assert names(report) == ["block.fc", "block.gelu()", "model.relu()", "model.relu() #2"]
    assert names(diagnose(Net(lambda self, x: x / x.max()), X)) == ["model"]  # not max()
    assert [v.role for v in report.layers] == ["weights"] + ["activation"] * 3
    assert all(v.grad_rms > 0 for v in report.layers)


@pytest.mark.parametrize(
    "relu",
    [F.relu, torch.relu, torch.Tensor.relu, nn.ReLU(), nn.ReLU(inplace=True), F.relu_,
     lambda x: x.clamp(min=0), lambda x: torch.max(x, torch.zeros_like(x))],
)  # fmt: skip
def test_any_relu_gives_the_same_two_rows(relu):
    net = Net(
        lambda self, x: self.out(self.relu(self.fc(x))), fc=nn.Linear(3, 5), out=nn.Linear(5, 2)
    )
    net.relu = relu
    for i, p in enumerate(net.parameters()):
        p.data = randn(*p.shape, seed=i)
    X, y = randn(4, 3, seed=9), classes(4, 2)
    fc, after, _ = diagnose(net, X, y).layers
    assert fc.zeros == 0  # taken before an in-place ReLU wipes it out
    assert after.zeros > 0.2
    z = net.fc(X)
    a = F.relu(z)
    z.retain_grad()
    a.retain_grad()
    F.cross_entropy(net.out(a), y).backward()
    assert fc.rms == pytest.approx(z.square().mean().sqrt().item(), rel=1e-6)
    assert fc.grad_rms == pytest.approx(z.grad.square().mean().sqrt().item(), rel=1e-6)
    assert after.grad_rms == pytest.approx(a.grad.square().mean().sqrt().item(), rel=1e-6)


def test_one_layer_called_twice_is_two_calls_and_one_weight():
    fc = nn.Linear(3, 3)
    net = nn.Sequential(fc, nn.Tanh(), fc)
    report = diagnose(net, randn(4, 3), classes(4, 3))
    assert names(report) == ["0", "1", "0 #2"]
    assert report.layers[0].rms != report.layers[2].rms
    assert [(w.name, w.also) for w in report.weights] == [
        ("0.weight", ("2.weight",)),
        ("0.bias", ("2.bias",)),
    ]


def test_tied_weights_are_named_once():
    net = Net(lambda self, x: self.out(self.embed(x)), embed=nn.Embedding(7, 3))
    net.out = nn.Linear(3, 7, bias=False)
    net.out.weight = net.embed.weight
    report = diagnose(net, classes(5, 7), classes(5, 7))
    assert [(w.name, w.also) for w in report.weights] == [("embed.weight", ("out.weight",))]
    assert names(report) == ["embed", "out"]  # integer inputs, too


@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_seen_at_all_time_steps(cls):
    net = Net(
        lambda self, x: self.out(self.rnn(x)[0][:, -1]), rnn=cls(4, 6, 2, batch_first=True)
    )
    net.out = nn.Linear(6, 3)
    X, y = randn(5, 7, 4), classes(5, 3)
    report = diagnose(net, X, y)
    assert [v.shape for v in report.layers] == [(5, 7, 6), (5, 3)]
    expected = net.rnn(X)[0].square().mean().sqrt().item()
    assert report.layers[0].rms == pytest.approx(expected, rel=1e-5)
    assert report.layers[0].grad_rms > 0
    assert report.problems == []
    packed = nn.utils.rnn.pack_padded_sequence(X, [7, 5, 3, 2, 1], batch_first=True)
    assert diagnose(net.rnn, (packed,)).layers[0].shape == (18, 6)


def test_cells_in_a_loop_are_one_call_per_time_step():
    def run(self, x):
        h = None
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
        return h

    report = diagnose(Net(run, cell=nn.GRUCell(3, 4)), randn(2, 3, 3), classes(2, 4))
    assert names(report) == ["cell", "cell #2", "cell #3"]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("mode", [False, True])
def test_the_fast_path_of_transformers_hides_nothing(mode, frozen):
    net = encoder().train(mode)
    net.enable_nested_tensor, net.use_nested_tensor = True, True
    for p in net.parameters():
        p.requires_grad_(not frozen)
    X, padding = randn(3, 5, 16), torch.zeros(3, 5, dtype=torch.bool)
    padding[0, 3:] = True
    with torch.no_grad():
        report = diagnose(net, (X, None, padding))
    first = ["self_attn", "dropout1", "norm1", "linear1", "relu()"]
    per_layer = [*first, "dropout", "linear2", "dropout2", "norm2"]
    assert names(report) == [f"layers.{i}.{n}" for i in range(2) for n in per_layer]


def test_checkpointed_layers_count_once():
    fc = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    net = Net(lambda self, x: checkpoint(self.fc, x, use_reentrant=False), fc=fc)
    X, y = randn(4, 3), classes(4, 3)
    report, plain = diagnose(net, X, y), diagnose(fc, X, y)
    assert names(report) == ["fc.0", "fc.1"]
    assert [v.grad_rms for v in report.layers] == [v.grad_rms for v in plain.layers]


def test_a_compiled_model_runs_layer_by_layer():
    def backend(graph, _):
        compiled.append(graph)
        return graph.forward

    net, X, y = nn.Sequential(nn.Linear(3, 3), nn.Tanh()), randn(4, 3), classes(4, 3)
    compiled, fast = [], torch.compile(net, backend=backend)
    report = diagnose(fast, X, y)
    assert len(compiled) == 0
    fast(X)
    assert len(compiled) == 1
    assert [(v.kind, v.rms, v.grad_rms) for v in report.layers] == [
        (v.kind, v.rms, v.grad_rms) for v in diagnose(net, X, y).layers
    ]


def test_an_error_that_the_model_catches_confuses_nothing():
    def run(self, x):
        with contextlib.suppress(RuntimeError):
            self.wrong(x)
        return F.relu(self.right(x))

    net = Net(run, wrong=nn.Sequential(nn.Linear(9, 9)), right=nn.Linear(3, 3))
    assert names(diagnose(net, randn(4, 3))) == ["right", "model.relu()"]


# --- what is fed and what comes back ---


@pytest.mark.filterwarnings("ignore:.*nested tensors is in prototype")
def test_outputs_without_statistics_are_passed_over():
    X = classes(6, 5).view(2, 3)
    assert names(diagnose(nn.Sequential(nn.Identity(), nn.Embedding(5, 4)), X)) == ["1"]

    def run(self, x):
        ragged = self.a(torch.nested.as_nested_tensor([x[0, :2], x[1]]))
        self.b(x[:0])
        return self.c(ragged.to_padded_tensor(0.0))

    net = Net(run, a=nn.Linear(4, 4), b=nn.Linear(4, 4), c=nn.Linear(4, 4))
    assert names(diagnose(net, randn(2, 3, 4))) == ["c"]


def test_models_of_several_arguments_and_outputs():
    net = Net(lambda self, a, b: {"logits": self.fc(a + b), "extra": 1}, fc=nn.Linear(3, 4))
    X, y = (randn(5, 3), randn(5, 3, seed=1)), classes(5, 4)
    report = diagnose(net, X, y, output=lambda out: out["logits"])
    assert report.loss == F.cross_entropy(net(*X)["logits"], y).item()
    with pytest.raises(TypeError, match=r"model returned a dict: use output=lambda out"):
        diagnose(net, X, y)
    assert names(diagnose(net, X)) == ["fc"]  # no loss, no need for a tensor


def test_what_guessing_costs_is_known_for_cross_entropy_alone():
    net, X, y = mlp([3, 5, 4], generator=generator(0)), randn(6, 3), classes(6, 4)
    log_softmax = nn.Sequential(net, nn.LogSoftmax(1))
    for loss_fn in (F.cross_entropy, nn.CrossEntropyLoss(), nn.CrossEntropyLoss(torch.ones(4))):
        assert diagnose(net, X, y, loss_fn=loss_fn).guess == math.log(4)
    for loss_fn in (F.nll_loss, nn.NLLLoss()):
        assert diagnose(log_softmax, X, y, loss_fn=loss_fn).guess == math.log(4)
    assert diagnose(net, X, y, loss_fn=nn.CrossEntropyLoss(reduction="sum")).guess is None
    assert diagnose(net, X, net(X).detach(), loss_fn=F.l1_loss).guess is None


def test_empty_and_sparse_weights():
    net = nn.Sequential(nn.Embedding(9, 3, sparse=True), nn.Flatten(), nn.Linear(6, 4))
    net[2].none = nn.Parameter(torch.empty(3, 0))
    dense = nn.Sequential(nn.Embedding.from_pretrained(net[0].weight.detach(), False), *net[1:])
    X, y = classes(10, 9).view(5, 2), classes(5, 4)
    report, expected = diagnose(net, X, y, lr=0.01), diagnose(dense, X, y, lr=0.01)
    for a, b in zip(report.weights, expected.weights, strict=True):
        assert (a.rms, a.grad_rms) == (b.rms, b.grad_rms)
        assert a.update == pytest.approx(b.update)
    assert report.problems == []


def test_the_model_can_be_part_of_the_loss():
    net, X, y = nn.Linear(3, 4), randn(6, 3), classes(6, 4)

    def penalized(y_hat, y):
        return F.cross_entropy(y_hat, y) + 7 * net.weight.abs().sum()

    free, tied = diagnose(net, X, y), diagnose(net, X, y, loss_fn=penalized)
    assert tied.weights[0].grad_rms > 5 > free.weights[0].grad_rms
    assert tied.layers == free.layers


def test_it_looks_in_the_mode_that_the_model_is_in():
    net, X = nn.Sequential(nn.Linear(3, 50), nn.Dropout(0.5)), randn(20, 3)
    assert 0.4 < diagnose(net.train(), X).layers[1].zeros < 0.6
    assert diagnose(net.eval(), X).layers[1].zeros == 0


@pytest.mark.parametrize("outer", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_gradients_flow_whatever_the_caller_has_switched_off(outer):
    net, X, y = nn.Linear(3, 4), randn(5, 3), classes(5, 4)
    with outer():
        assert diagnose(net, X, y).weights[0].grad_rms > 0
        assert torch.is_grad_enabled() is (outer is torch.enable_grad)


@pytest.mark.parametrize(
    ("model", "X", "y", "options", "error", "words"),
    [
        (len, randn(2, 3), None, {}, TypeError, "model has to be an nn.Module .* got builtin"),
        (nn.Linear(3, 2), [1.0], None, {}, TypeError, "X has to be a tensor"),
        (nn.Linear(3, 2), randn(0, 3), None, {}, ValueError, r"but got shape \(0, 3\)"),
        (nn.Linear(3, 2), torch.ones(2, 3, device="meta"), None, {}, ValueError,
         "X has to be on the model's device, cpu, but is on meta"),
        (nn.LazyLinear(3), randn(2, 3), None, {}, ValueError, "lazy"),
        (nn.Linear(3, 2), randn(4, 3), classes(4, 2), {"lr": -1}, ValueError, "lr .* got -1"),
        (nn.Linear(3, 2), randn(4, 3), classes(4, 2), {"lr": math.nan}, ValueError, "got nan"),
        (nn.Linear(3, 2), randn(4, 3), None, {"lr": 1}, ValueError, "only with y"),
        (nn.Linear(3, 2), randn(4, 3), classes(4, 2), {"lr": 1, "optimizer": torch.optim.SGD},
         ValueError, "not both"),
        (nn.Linear(3, 1), randn(4, 3), randn(4), {"loss_fn": F.mse_loss}, ValueError,
         r"y has to have the shape of the model's output, \(4, 1\), but got \(4,\)"),
        (nn.Linear(3, 2), randn(4, 3), classes(4, 2),
         {"loss_fn": nn.CrossEntropyLoss(reduction="none")}, ValueError, r"got \(4,\)"),
        (nn.Linear(3, 2), randn(4, 3), classes(4, 2), {"loss_fn": lambda a, b: 1.0}, ValueError,
         "one number in a tensor, but got 1.0"),
    ],
)  # fmt: skip
def test_bad_input_is_named(model, X, y, options, error, words):
    with pytest.raises(error, match=words):
        diagnose(model, X, y, **options)


def test_an_empty_model_is_no_error():
    report = diagnose(nn.Sequential(), randn(4, 3), classes(4, 3), lr=0.1)
    assert (report.weights, report.gradient_ratio) == ([], None)
    assert report.problems == ["model: no registered parameter requires a gradient"]
    assert "no registered parameter" in str(report)
    assert len(report.figure()) == 2


# --- nothing is changed ---


def busy(fail=False):
    """A model that changes itself in every way when it runs."""

    def run(self, x):
        self.drawn = torch.rand(2, generator=self.noise)
        self.calls += 1
        self.cache = x
        self.count = self.count + 1  # a new tensor in the place of a buffer
        self.late, self.scale = nn.Linear(1, 1), nn.Parameter(torch.ones(1))
        with torch.no_grad():
            self.table.weight.mul_(2)
        x = self.drop(self.norm(self.frozen(x)))
        if fail:
            raise RuntimeError("on purpose")
        return self.fc(x) + self.hidden[0](x) + self.table.weight.sum()

    net = Net(run, frozen=nn.Linear(6, 6), norm=nn.BatchNorm1d(6), drop=nn.Dropout(0.5))
    net.frozen.requires_grad_(False)
    net.fc, net.table = nn.Linear(6, 3), nn.Embedding(2, 3)
    net.hidden = [nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3))]
    net.register_buffer("count", torch.zeros(2))
    net.register_buffer("sparse", torch.eye(3).to_sparse())
    net.register_buffer("expanded", torch.ones(1).expand(4))
    net.noise, net.calls = generator(3), 0
    net.norm.eval()
    net.fc.weight.grad = torch.full((3, 6), 2.0)
    return net


def state(net):
    inner = {"": net, **{f"hidden.{n}": m for n, m in net.hidden[0].named_modules()}}
    found = {"rng": torch.get_rng_state(), "noise": net.noise.get_state()}
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state()
    for prefix, module in inner.items():
        for name, t in [*module.named_parameters(), *module.named_buffers()]:
            key = f"{prefix}.{name}"
            found[key] = t.detach().to_dense().clone()
            found[key + ".id"] = id(t)
            found[key + ".requires_grad"] = t.requires_grad
            found[key + ".grad"] = None if t.grad is None else t.grad.clone()
            found[key + ".hooks"] = bool(t._backward_hooks)
        for name, m in module.named_modules(prefix=prefix):
            found[name + ".training"] = m.training
            found[name + ".vars"] = str([*vars(m)])
            hooks = (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks)
            found[name + ".nhooks"] = sum(map(len, hooks))
    found["calls"] = net.calls
    return found


def changes(before, after):
    def equal(a, b):
        return torch.equal(a, b) if isinstance(a, torch.Tensor) and b is not None else a == b

    common = before.keys() & after.keys()
    return (before.keys() ^ after.keys()) | {
        key for key in common if not equal(before[key], after[key])
    }


@pytest.mark.parametrize("fails", ["", "model", "loss", "backward", "optimizer", "output"])
def test_the_network_is_as_it_was(fails):
    net = busy(fail=fails == "model").to(device())
    net.hidden[0].to(device())
    X, y = randn(8, 6).to(device()), classes(8, 3).to(device())

    def fail(*_):
        raise RuntimeError("on purpose")

    def loss_fn(y_hat, y):
        if fails == "backward":
            y_hat.register_hook(fail)
        return fail() if fails == "loss" else F.cross_entropy(y_hat, y)

    options = {"output": fail if fails == "output" else None, "loss_fn": loss_fn}
    options["optimizer"] = fail if fails == "optimizer" else torch.optim.Adam
    before = state(net)
    if fails:
        with pytest.raises(RuntimeError, match="on purpose"):
            diagnose(net, X, y, **options)
    else:
        report = diagnose(net, X, y, **options)
        assert len(report.layers) == 7
        assert changes(before, state(net)) == set()
        assert diagnose(net, X, y, **options) == report  # same noise, hence same numbers
    assert changes(before, state(net)) == set()
    assert "cache" not in vars(net)


def test_the_battery_above_would_notice():
    net = busy()
    before = state(net)
    net(randn(8, 6))
    changed = changes(before, state(net))
    assert {"rng", "noise", "calls", ".count", ".table.weight", ".vars"} <= changed
    assert {".scale", ".late.weight"} <= changed
    assert "hidden..1.running_mean" in changed


def test_no_activation_is_kept():
    def run(self, x):
        x = self.a(x)
        first = weakref.ref(x)
        x = self.b(x)
        x = F.relu(self.b(x))
        assert first() is None
        return x

    net = Net(run, a=nn.Linear(3, 3), b=nn.Linear(3, 3)).requires_grad_(False)
    assert len(diagnose(net, randn(4, 3)).layers) == 4


def test_a_batch_of_one_meets_the_error_of_batch_norm():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        diagnose(net, randn(1, 3))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not any(m._forward_hooks for m in net.modules())
    assert names(diagnose(net.eval(), randn(1, 3))) == ["0", "1"]


def test_a_graph_that_the_caller_holds_can_still_go_backward():
    net, X, y = mlp([3, 8, 4], norm=nn.BatchNorm1d, dropout=0.2), randn(6, 3), classes(6, 4)
    torch.manual_seed(0)
    loss = F.cross_entropy(net(X), y)
    expected = torch.autograd.grad(loss, net[0].weight, retain_graph=True)[0]
    diagnose(net, X, y, lr=0.1)
    assert torch.equal(torch.autograd.grad(loss, net[0].weight)[0], expected)


def test_a_parameter_that_a_layer_returns_keeps_no_hook():
    token = Net(lambda self, x: self.w, w=nn.Parameter(torch.ones(4, 3)))
    net = Net(lambda self, x: x + self.token(x), token=token)
    assert diagnose(net, randn(4, 3), classes(4, 3)).layers[0].grad_rms > 0
    assert not token.w._backward_hooks


# --- problems, one by one ---


def test_dead_units():
    net = mlp([64, 100, 100, 10], generator=generator(0))
    net[2].bias.data[:97] = -100
    report = diagnose(net, randn(64, 64), classes(64))
    assert report.problems == ["3: 97 of 100 units are zero on every sample (dead)"]
    assert report.layers[3].dead == 97
    functional = Net(lambda self, x: self.b(F.relu(self.a(x))), a=net[2], b=net[4])
    (sentence,) = said(diagnose(functional, randn(64, 100)), "dead")
    assert sentence.startswith("model.relu(): 97 of 100 units are zero")
    net[2].bias.data[:97] = 0
    assert diagnose(net, randn(64, 64), classes(64)).problems == []


def test_a_dead_channel_is_named_once():
    net = convnet(8, generator=generator(0))
    net[1].bias.data[:] = -100
    report = diagnose(net, randn(16, 64), classes(16))
    assert said(report, "dead") == ["2: 16 of 16 units are zero on every sample (dead)"]


@pytest.mark.parametrize("activation", [nn.Tanh, nn.Sigmoid])
def test_saturation(activation):
    net = mlp([20, 50, 50, 10], activation, generator=generator(0))
    X, y = randn(64, 20), classes(64)
    assert diagnose(net, X, y).problems == []
    for layer in net[:3:2]:
        layer.weight.data = randn(*layer.weight.shape) * 5
    report = diagnose(net, X, y)
    share = f"{report.layers[1].saturated:.0%}"
    assert said(report, "saturated")[0] == f"1: {share} of the outputs are saturated"
    assert len(said(report, "saturated")) == 2


def test_gradients_that_vanish_and_explode():
    X, y = randn(64, 20), classes(64)
    deep = [20, *[50] * 8, 10]
    (sentence,) = diagnose(mlp(deep, nn.Sigmoid, generator=generator(0)), X, y).problems
    assert sentence.startswith("gradients vanish: rms ")
    assert " at 0, but " in sentence
    assert sentence.endswith(" at 16")
    net = mlp(deep, generator=generator(0))
    for p in net.parameters():
        p.data *= 10
    report = diagnose(net, X, y)
    assert report.gradient_ratio > 1e3
    assert said(report, "gradients explode: rms ")
    (sentence,) = said(report, "outputs explode: rms ")
    assert " at 16, but " in sentence
    for p in net.parameters():
        p.data *= 0.01 if p.ndim > 1 else 0
    assert said(diagnose(net, X), "outputs vanish")


def test_the_initial_loss_is_near_ln_10():
    split = digits(0, num_train=200)
    net = mlp([64, 100, 10], generator=generator(0))
    report = diagnose(net, split.X_train, split.y_train, lr=0.1)
    assert report.guess == math.log(10)
    assert abs(report.loss - math.log(10)) < 0.1
    assert report.problems == []
    net[-1].weight.data *= 100
    report = diagnose(net, split.X_train, split.y_train)
    (sentence,) = report.problems
    assert sentence == (
        f"loss: {report.loss:.3g}, but equal outputs for 10 classes cost ln 10 = 2.3"
    )


def test_learning_rates_out_of_proportion():
    net, X, y = mlp([20, 50, 10], generator=generator(0)), randn(64, 20), classes(64)
    assert diagnose(net, X, y, lr=0.1).problems == []
    report = diagnose(net, X, y, lr=100)
    w = report.weights[0]
    assert f"0: one step changes this by {w.update:.1g} of its size (weight)" in report.problems
    assert said(diagnose(net, X, y, lr=1e-7), "2: one step changes this by ")
    assert not said(report, "bias")


def test_layers_that_forward_forgets():
    net = Net(lambda self, x: self.a(x), a=nn.Linear(3, 4), forgotten=nn.Linear(4, 4))
    X, y = randn(5, 3), classes(5, 4)
    assert diagnose(net, X, y).problems == [
        "forgotten: no gradient, as forward never calls this layer (weight, bias)"
    ]
    assert diagnose(net, X).problems == []  # nobody asked for gradients
    assert diagnose(nn.ReLU(), X).problems == []
    net.forgotten.requires_grad_(False)
    report = diagnose(net, X, y)
    assert report.problems == []
    assert [w.state for w in report.weights] == ["", "", "frozen", "frozen"]


@pytest.mark.parametrize("how", ["detach", "no_grad", "item"])
def test_layers_cut_off_from_the_loss(how):
    def run(self, x):
        with torch.set_grad_enabled(how != "no_grad"):
            x = self.a(x)
        x = x.detach() if how == "detach" else torch.tensor(x.tolist()) if how == "item" else x
        return self.b(x)

    net = Net(run, a=nn.Linear(3, 4), b=nn.Linear(4, 4))
    report = diagnose(net, randn(5, 3), classes(5, 4), lr=0.1)
    why = "no gradient, as nothing leads from here to the loss (detach, no_grad?)"
    assert report.problems == [f"a: {why} (weight, bias)"]
    a, b = report.layers
    assert a.grad_rms is None
    assert b.grad_rms > 0
    assert report.weights[0].update is None


def test_a_frozen_layer_is_no_problem_and_passes_gradients_on():
    net = mlp([3, 5, 5, 4], nn.Tanh, generator=generator(0))
    net[2].requires_grad_(False)
    report = diagnose(net, randn(5, 3), classes(5, 4), lr=0.1)
    assert report.problems == []
    states = [(w.name, w.state, w.grad_rms is None) for w in report.weights]
    assert states[2:4] == [("2.weight", "frozen", True), ("2.bias", "frozen", True)]
    assert all(v.grad_rms > 0 for v in report.layers)
    net.requires_grad_(False)
    report = diagnose(net, randn(5, 3), classes(5, 4), lr=0.1)
    assert report.problems == ["model: no registered parameter requires a gradient"]
    assert [v.grad_rms for v in report.layers] == [None] * 5


def test_gradients_of_exactly_zero():
    net = mlp([3, 5, 4], nn.Tanh, generator=generator(0))
    nn.init.zeros_(net[2].weight)
    report = diagnose(net, randn(5, 3), classes(5, 4))
    assert report.problems == ["0: gradient is exactly 0 (weight, bias)"]


def test_nan_is_told_by_layer():
    net, X, y = mlp([3, 5, 5, 4], generator=generator(0)), randn(5, 3), classes(5, 4)
    root = Net(lambda self, x: (self.fc(x) - 1e9).sqrt().nan_to_num(1.0), fc=nn.Linear(3, 4))
    assert said(diagnose(root, X, y), "fc: gradient is NaN or infinite (weight, bias)")
    net[2].weight.data[0, 0] = math.inf
    report = diagnose(net, X, y)
    assert said(report, "outputs that") == [
        "2: the first layer with outputs that are NaN or infinite"
    ]
    assert "2: weights are NaN or infinite (weight)" in report.problems
    assert "loss: it is nan" in report.problems
    assert list(report.figure()[0].lines[0].get_xdata()) == [0, 1]
    X[1, 2] = math.nan
    report = diagnose(net, X, y)
    assert "X: 1 of 15 inputs are NaN or infinite" in report.problems
    assert "0: the first layer with outputs that are NaN or infinite" in report.problems


def test_layers_in_a_plain_list_are_not_registered():
    """The study note builds five layers, but linear4 and linear5 never join the network."""

    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.stack = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512))
            self.more = [nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)]

        def forward(self, x):
            x = self.stack(x)
            for layer in self.more:
                x = layer(x)
            return x

    net = Deep()
    assert len([*net.parameters()]) == 4
    report = diagnose(net, randn(16, 784), classes(16), lr=0.1)
    tail = "not registered, no optimizer sees it (use nn.ModuleList, nn.ParameterList or nn."
    assert report.problems == [
        f"more[0]: Linear with 262,656 numbers is {tail}Parameter)",
        f"more[2]: Linear with 5,130 numbers is {tail}Parameter)",
    ]
    assert names(report) == ["stack.0", "stack.1", "stack.2", "more[0]", "more[1]", "more[2]"]
    last = report.weights[-1]
    assert (last.name, last.state, last.update) == ("more[2].bias", "unregistered", None)
    assert last.grad_rms > 0
    assert not said(report, "stack")
    net.more = nn.ModuleList(net.more)
    assert diagnose(net, randn(16, 784), classes(16), lr=0.1).problems == []


def test_other_places_where_parameters_hide():
    w = nn.Parameter(torch.ones(3))
    inner = nn.Linear(3, 3)
    inner.scale = torch.ones(3, requires_grad=True)
    inner.deep = {"a": [(nn.Linear(3, 2),)], "plain": torch.ones(3), 5: "text"}
    inner.deep["loop"] = inner.deep
    net = Net(lambda self, x: self.inner(x), inner=inner, alias=[inner, inner.weight])
    net.table = (w, w.detach(), w * 2)
    net.frozen = [nn.Parameter(torch.ones(2), requires_grad=False)]
    object.__setattr__(net, "bypass", nn.Sequential(nn.Linear(2, 2)))
    net.bypass[0].nested = [nn.Linear(1, 1)]
    net.acts = [nn.ReLU(), nn.Sequential(inner)]  # have nothing of their own to learn
    report = diagnose(net, randn(4, 3))
    problems = report.problems
    assert names(report) == ["inner"]
    assert len(problems) == 6
    assert {sentence.split(" is not registered")[0] for sentence in problems} == {
        "bypass: Sequential with 6 numbers",
        "bypass.0.nested[0]: Linear with 2 numbers",
        "frozen[0]: Parameter with 2 numbers",
        "inner.deep['a'][0][0]: Linear with 8 numbers",
        "inner.scale: Tensor with 3 numbers",
        "table[0]: Parameter with 3 numbers",
    }


# --- no false alarms ---


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n", [1, 16, 256])
def test_nothing_is_wrong_with_a_he_initialized_relu_network(n, seed):
    split = digits(seed, num_train=256)
    scale = split.X_train.std(0) + 0.1
    X, y = (split.X_train[:n] - split.X_train.mean(0)) / scale, split.y_train[:n]
    net = he(mlp([64, *[100] * 5, 10]), seed)
    net[-1].weight.data *= 0.1
    report = diagnose(net, X, y, lr=0.001)
    assert report.problems == []
    assert len(report.layers) == 11
    report = diagnose(he(mlp([64, 100, 100, 10], norm=nn.BatchNorm1d)).eval(), X, y)
    assert not said(report, "dead")


@pytest.mark.parametrize("options", [{}, {"norm_first": True, "activation": "gelu"}])
@pytest.mark.parametrize("mode", [False, True])
def test_nothing_is_wrong_with_a_transformer(options, mode):
    torch.manual_seed(0)
    net = Net(
        lambda self, x: self.out(self.encoder(self.embed(x)).mean(1)),
        embed=nn.Embedding(30, 16),
        encoder=encoder(**options),
        out=nn.Linear(16, 5),
    ).train(mode)
    X, y = torch.randint(30, (32, 6), generator=generator(0)), classes(32, 5)
    report = diagnose(net, X, y, optimizer=lambda p: torch.optim.AdamW(p, 1e-3))
    assert report.problems == []
    assert all(w.grad_rms for w in report.weights)
    assert all(v.grad_rms for v in report.layers)


OWN = {
    "conv1d": (nn.Conv1d(2, 4, 3), nn.GELU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()),
    "conv3d": (nn.Conv3d(1, 4, 2), nn.SiLU(), nn.AdaptiveMaxPool3d(1), nn.Flatten()),
    "transposed": (nn.ConvTranspose2d(2, 4, 3), nn.GroupNorm(2, 4), nn.PReLU(), nn.Flatten()),
    "weight_norm": (nn.utils.parametrizations.weight_norm(nn.Linear(5, 9)), nn.SELU()),
    "spectral_norm": (nn.utils.parametrizations.spectral_norm(nn.Linear(5, 9)), nn.ELU()),
    "softmax": (nn.Linear(5, 9), nn.RMSNorm(9), nn.Softplus(), nn.Softmax(1)),
}
SHAPES = {"conv1d": (8, 2, 9), "conv3d": (8, 1, 3, 3, 3), "transposed": (8, 2, 3, 3)}


@pytest.mark.parametrize("name", OWN)
def test_torchs_own_layers(name):
    model = nn.Sequential(*OWN[name])
    before = {k: v.clone() for k, v in model.state_dict().items()}
    X, y = randn(*SHAPES.get(name, (8, 5))), classes(8, 4)
    report = diagnose(model, X, y)
    assert report.problems == []
    assert all(v.grad_rms is not None for v in report.layers)
    assert report.loss == pytest.approx(F.cross_entropy(model.eval()(X), y).item(), 0.05)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


# --- what a reader sees ---


@pytest.fixture
def report():
    net = mlp([4, 6, 3], nn.Tanh, generator=generator(0))
    return diagnose(net, randn(5, 4), classes(5, 3), lr=0.1)


def test_text(report):
    lines = str(report).splitlines()
    assert lines[0] == f"Loss {report.loss:.4g} (equal outputs cost 1.099)"
    assert lines[2].split()[:4] == ["name", "kind", "role", "shape"]
    assert lines[3].split()[:5] == ["0", "Linear", "weights", "5", "6"]
    assert lines[4].split()[1:3] == ["Tanh", "activation"]
    assert lines[-1] == "No problems found"
    assert f"{report.weights[0].update:.3g}" in str(report)
    assert "Loss" not in str(diagnose(nn.ReLU(), randn(2, 2)))


def test_table(report, capsys):
    report.table()
    shown = capsys.readouterr().out
    assert "Layers" in shown
    assert "Weights" in shown
    assert f"{report.layers[1].saturated:.3g}" in shown


def test_figure(report):
    from lib import plots

    outputs, gradients = report.figure()
    for ax, key in ((outputs, "rms"), (gradients, "grad_rms")):
        assert ax.get_yscale() == "log"
        x, y = ax.lines[0].get_data()
        assert list(x) == [0, 1, 2]
        assert list(y) == [getattr(v, key) for v in report.layers]
    with contextlib.redirect_stdout(io.StringIO()) as out, warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.show(*report.figure(), alt="Outputs and gradients of all three layers by index.")
    assert "Outputs and gradients" in out.getvalue()
    (ax,) = diagnose(nn.Linear(2, 2), randn(3, 2)).figure()  # no gradients
    (empty,) = diagnose(nn.ReLU(), -torch.ones(3, 2)).figure()  # no place on a log axis
    assert (len(ax.lines), len(empty.lines)) == (1, 0)
    empty.figure.savefig(io.BytesIO())


def test_reports_are_frozen(report):
    for thing, name in (
        (report, "loss"),
        (report.layers[0], "rms"),
        (report.weights[0], "rms"),
    ):
        with pytest.raises(AttributeError):
            setattr(thing, name, 0)
