"""Optimizers from scratch: SGD with momentum, Adagrad, RMSprop, Adam, AMSGrad and AdamW.

Each rule is one pure function, `update`: from a gradient, the state and the parameter to the
change of the parameter and the next state. `step` applies it to parameter after parameter, as
`torch.optim` does; the study engine applies it to many networks at once, where a number such
as ``lr`` may be a tensor that broadcasts against the parameter, one entry per network:
(R, 1) against (R, P). Below, g is the gradient, w the parameter and t the number of the step.

Names, defaults and order of operations are those of `torch.optim`. Of its options, ``foreach``,
``fused``, ``capturable``, ``differentiable`` and ``maximize`` are missing, and so are sparse
and complex gradients. Errors: ValueError for numbers out of range, TypeError for anything else.
"""

import math

import torch
from torch import Tensor

from lib.device import check_numbers
from lib.optimizer import Number, Optimizer, mean_square, plus, used

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop"]


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if asked for (Polyak, 1964,
    https://doi.org/10.1016/0041-5553(64)90137-5). `torch.optim.SGD`.

    With the velocity v, which starts as the first gradient,

        v = momentum * v + (1 - dampening) * g,    w = w - lr * v

    Args:
        lr: learning rate.
        momentum: share of the velocity that survives a step.
        dampening: share of the gradient kept out of the velocity.
        weight_decay: multiple of w that is added to g (L2 penalty).
        nesterov: step along ``g + momentum * v`` instead of v (Sutskever et al., 2013,
            https://proceedings.mlr.press/v28/sutskever13.html).

    Example::

        >>> optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    """

    def __init__(
        self, params, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False,
    ):  # fmt: skip
        hyper = {"lr": lr, "momentum": momentum, "dampening": dampening}
        super().__init__(params, hyper | {"weight_decay": weight_decay, "nesterov": nesterov})

    @staticmethod
    def check(*, lr, momentum, dampening, weight_decay, nesterov):
        check_numbers(lr=lr, momentum=momentum, weight_decay=weight_decay)
        check_numbers(-math.inf, dampening=dampening)
        if nesterov and (momentum == 0 or dampening != 0):
            raise ValueError(
                "nesterov needs a momentum above 0 and no dampening, "
                f"but got momentum={momentum}, dampening={dampening}"
            )

    @staticmethod
    def update(grad, state, param, *, lr, momentum, dampening, weight_decay, nesterov):
        grad = plus(grad, param, weight_decay)
        if used(momentum):
            velocity = state.get("momentum_buffer")
            if velocity is None:
                velocity = grad.clone()
            else:
                velocity = plus(momentum * velocity, grad, 1 - dampening)
            state = {"momentum_buffer": velocity}
            grad = plus(grad, velocity, momentum) if nesterov else velocity
        return -lr * grad, state


class Adagrad(Optimizer):
    """Adagrad: a rate for each weight, which falls as its gradients add up (Duchi, Hazan and
    Singer, 2011, https://jmlr.org/papers/v12/duchi11a.html). `torch.optim.Adagrad`.

        s = s + g^2,    w = w - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)

    Args:
        lr: learning rate of the first step.
        lr_decay: how fast it falls with the number of steps.
        weight_decay: multiple of w that is added to g (L2 penalty).
        initial_accumulator_value: s at the start. Torch ignores a group's own value and takes
            the default; here it counts.
        eps: keeps the step finite where s is 0.

    Example::

        >>> optimizer = Adagrad(model.parameters(), lr=0.01)
    """

    def __init__(
        self, params, lr=1e-2, lr_decay=0.0, weight_decay=0.0, initial_accumulator_value=0.0,
        eps=1e-10,
    ):  # fmt: skip
        hyper = {"lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay, "eps": eps}
        hyper["initial_accumulator_value"] = initial_accumulator_value
        super().__init__(params, hyper)

    @staticmethod
    def check(**hyper):
        check_numbers(**hyper)

    def add_param_group(self, group):
        super().add_param_group(group)
        group = self.param_groups[-1]
        for p in group["params"]:  # torch expects the state even before the first gradient
            self.state[p] = _sum_at_start(p, group["initial_accumulator_value"])

    @staticmethod
    def update(
        grad, state, param, *, lr, lr_decay, weight_decay, initial_accumulator_value, eps
    ):
        state = state or _sum_at_start(param, initial_accumulator_value)
        grad = plus(grad, param, weight_decay)
        rate = lr / (1 + state["step"] * lr_decay)
        total = torch.addcmul(state["sum"], grad, grad)
        root = total.sqrt().add_(eps)
        return (grad / root).mul_(-rate), {"step": state["step"] + 1, "sum": total}


class RMSprop(Optimizer):
    """RMSprop (Tieleman and Hinton, 2012, lecture 6.5,
    https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf), centered by
    Graves (2013, https://arxiv.org/abs/1308.0850). `torch.optim.RMSprop`.

    With v, and for ``centered`` m, which start at 0,

        v = alpha * v + (1 - alpha) * g^2,    m = alpha * m + (1 - alpha) * g
        w = w - lr * g / (sqrt(v) + eps)    or    w = w - lr * g / (sqrt(v - m^2) + eps)

    For gradients that stay equal v - m^2 tends to 0 and rounding may make it negative: then the
    step is NaN, as it is in torch.

    Args:
        lr: learning rate.
        alpha: share of v that survives a step, in [0, 1); torch accepts more.
        eps: keeps the step finite where v is 0.
        weight_decay: multiple of w that is added to g (L2 penalty).
        momentum: if above 0, the step is lr times b = momentum * b + g / (sqrt(...) + eps).
        centered: divide by an estimate of the standard deviation of g.

    Example::

        >>> optimizer = RMSprop(model.parameters(), lr=0.01)
    """

    def __init__(
        self, params, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0,
        centered=False,
    ):  # fmt: skip
        hyper = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, hyper | {"momentum": momentum, "centered": centered})

    @staticmethod
    def check(*, lr, alpha, eps, weight_decay, momentum, centered):
        check_numbers(lr=lr, eps=eps, weight_decay=weight_decay, momentum=momentum)
        check_numbers(0, 1, alpha=alpha)

    @staticmethod
    def update(grad, state, param, *, lr, alpha, eps, weight_decay, momentum, centered):
        if not state:
            names = ("square_avg", "grad_avg", "momentum_buffer")
            state = {"step": 0} | dict.fromkeys(names, torch.zeros_like(param))
        grad = plus(grad, param, weight_decay)
        v = mean_square(state["square_avg"], grad, alpha)
        new = {"step": state["step"] + 1, "square_avg": v}
        if centered:
            m = new["grad_avg"] = torch.lerp(state["grad_avg"], grad, 1 - alpha)
            v = torch.addcmul(v, m, m, value=-1)
        step = grad / v.sqrt().add_(eps)
        if used(momentum):
            step = new["momentum_buffer"] = step.add_(momentum * state["momentum_buffer"])
        return -lr * step, new


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015, https://arxiv.org/abs/1412.6980). `torch.optim.Adam`.

    Two running means of the gradient, of itself and of its square, both starting at 0 and both
    divided after t steps by the weight they have gathered until then:

        m = beta1 * m + (1 - beta1) * g,      m_hat = m / (1 - beta1^t)
        v = beta2 * v + (1 - beta2) * g^2,    v_hat = v / (1 - beta2^t)
        w = w - lr * m_hat / (sqrt(v_hat) + eps)

    Args:
        lr: learning rate.
        betas: beta1 and beta2, each in [0, 1).
        eps: keeps the step finite where v is 0.
        weight_decay: multiple of w that is added to g (L2 penalty, not decoupled as in AdamW).
        amsgrad: in v_hat, take the largest v until now (Reddi, Kale and Kumar, 2018,
            https://openreview.net/forum?id=ryQu7f-RZ, where nothing corrects for t).

    Example::

        >>> optimizer = Adam(model.parameters(), lr=1e-3)
    """

    foreign = ("maximize", "decoupled_weight_decay")

    def __init__(
        self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False,
    ):  # fmt: skip
        hyper = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, hyper | {"amsgrad": amsgrad})

    @staticmethod
    def check(*, lr, betas, eps, weight_decay, amsgrad):
        check_numbers(lr=lr, eps=eps, weight_decay=weight_decay)
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise TypeError(f"betas has to hold two numbers, but got {betas!r}")
        for i, beta in enumerate(betas):
            check_numbers(0, 1, **{f"betas[{i}]": beta})

    @staticmethod
    def update(grad, state, param, *, lr, betas, eps, weight_decay, amsgrad):
        beta1, beta2 = betas
        if not state:
            zeros = torch.zeros_like(param)
            state = {"step": 0, "exp_avg": zeros, "exp_avg_sq": zeros}
        grad = plus(grad, param, weight_decay)
        t = state["step"] + 1
        v = mean_square(state["exp_avg_sq"], grad, beta2)
        new = {"step": t, "exp_avg_sq": v}
        if amsgrad:
            v = new["max_exp_avg_sq"] = torch.maximum(state.get("max_exp_avg_sq", v), v)
        root = v.sqrt().div_((1 - beta2**t) ** 0.5).add_(eps)
        m = new["exp_avg"] = torch.lerp(state["exp_avg"], grad, 1 - beta1)
        return (m / root).mul_(-lr / (1 - beta1**t)), new


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019,
    https://arxiv.org/abs/1711.05101). `torch.optim.AdamW`.

    The decay does not pass through m and v, so that large gradients do not weaken it:

        w = w - lr * weight_decay * w - lr * m_hat / (sqrt(v_hat) + eps)

    As in torch the decay is multiplied by lr; in the paper it follows the schedule alone.

    Args:
        lr, betas, eps, amsgrad: as in `Adam`.
        weight_decay: share of w, times lr, that a step takes away.

    Example::

        >>> optimizer = AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    """

    foreign = ("maximize",)

    def __init__(
        self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, amsgrad=False,
    ):  # fmt: skip
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad)

    @staticmethod
    def update(grad, state, param, *, lr, weight_decay, **hyper):
        change, state = Adam.update(grad, state, param, lr=lr, weight_decay=0.0, **hyper)
        return plus(change, param, -lr * weight_decay), state


def _sum_at_start(param: Tensor, value: Number) -> dict:
    return {"step": 0, "sum": torch.zeros_like(param) + value}
