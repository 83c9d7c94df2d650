"""Typical wrong answers to the exercises on weight decay."""

STEP = "def sgd_step(w, grad, v, lr, momentum, weight_decay, decoupled):\n"

LOSS = """
def penalized(model, X, y, l2=0.01):
    loss = F.cross_entropy(model(X), y)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            loss = loss + PENALTY
    return loss
"""

EFFECTS = """
def effects(factor, seeds):
    result = study(
        {
            "SGDW": {"optimizer": SGDW, "weight_decay": 0.1 * factor},
            "SGD": {"optimizer": SGD, "weight_decay": 0.1},
        },
        model=lambda g: models.mlp([64, 10], generator=g),
        split=lambda seed: data.digits(seed, num_train=200),
        seeds=seeds, epochs=4, every=4, batch_size=20, lr=0.02, momentum=0.9, record=(),
        inspect={"norm": lambda ps: sum(p.square().sum() for p in ps.values()).sqrt()},
    )
    a, b = (torch.tensor(result.final(arm, "norm")) for arm in ("SGDW", "SGD"))
    return a.log10() - b.log10()

verdicts = {1: "more", 10: "same"}
"""

PREDICTION = (
    'prediction = {"SGD": "most", "AdamW": "most", "Adam": "half", "Adam, weaker": "half", '
    '"AdamW, None": "all"}'
)

WRONG = {
    1: {
        "no rate": (
            "def half_life(lr, weight_decay):\n"
            "    return math.log(0.5) / math.log(1 - weight_decay)",
            "the rate is left out",
        ),
        "exponential": (
            "def half_life(lr, weight_decay):\n    return math.log(2) / (lr * weight_decay)",
            "as if the product were small",
        ),
        "linear": (
            "def half_life(lr, weight_decay):\n    return 0.5 / (lr * weight_decay)",
            "the same amount away",
        ),
        "rounded": (
            "def half_life(lr, weight_decay):\n"
            "    return math.ceil(math.log(0.5) / math.log(1 - lr * weight_decay))",
            "you round up",
        ),
    },
    2: {
        "coupled always": (
            STEP + "    v = momentum * v + grad + weight_decay * w\n    return w - lr * v, v",
            "the decay enters the velocity, although it is decoupled",
        ),
        "decay without rate": (
            STEP + "    v = momentum * v + grad + (0 if decoupled else weight_decay * w)\n"
            "    return w - lr * v - (weight_decay * w if decoupled else 0), v",
            "the decay is not multiplied by the rate",
        ),
        "momentum of Adam": (
            STEP + "    v = momentum * v + (1 - momentum) * (grad + weight_decay * w)\n"
            "    return w - lr * v, v",
            "multiplied by 1 - momentum",
        ),
        "in place": (
            STEP + "    v = momentum * v + grad + (0 if decoupled else weight_decay * w)\n"
            "    new = w - lr * v - (lr * weight_decay * w if decoupled else 0)\n"
            "    w.copy_(new) if decoupled else None\n"
            "    return new, v",
            "change what was passed in",
        ),
    },
    3: {
        "Adam as AdamW": (
            PREDICTION.replace('"Adam": "half"', '"Adam": "most"'),
            "The step is about lr",
        ),
        "a tenth decays less": (
            PREDICTION.replace('weaker": "half"', 'weaker": "most"'),
            "the strength cancels",
        ),
        "None is zero": (
            PREDICTION.replace('"all"', '"most"'),
            "passes over parameters whose grad is None",
        ),
    },
    4: {
        "as listed": (
            "def penalized(model, X, y, l2=0.01):\n"
            "    loss = F.cross_entropy(model(X), y)\n"
            "    for p in model.parameters():\n"
            "        loss = loss + l2 / 2 * p.data.norm()\n"
            "    return loss",
            "nothing is mended yet",
        ),
        "half": (
            LOSS.replace("PENALTY", "l2 / 2 * layer.weight.square().sum()"),
            "the factor 1/2 is still there",
        ),
        "norm": (
            LOSS.replace("PENALTY", "l2 * layer.weight.norm()"),
            "the norm is not squared",
        ),
        "biases": (
            "def penalized(model, X, y, l2=0.01):\n"
            "    loss = F.cross_entropy(model(X), y)\n"
            "    return loss + l2 * sum(p.square().sum() for p in model.parameters())",
            "the biases are penalized, too",
        ),
        "data": (
            LOSS.replace("PENALTY", "l2 * layer.weight.data.square().sum()"),
            "the penalty is cut from the graph",
        ),
    },
    5: {
        "natural logarithm": (
            EFFECTS.replace("a.log10() - b.log10()", "a.log() - b.log()"),
            "the logarithm is the natural one",
        ),
        "other way round": (
            EFFECTS.replace("a.log10() - b.log10()", "b.log10() - a.log10()"),
            "you subtract the other way round",
        ),
        "squared": (
            EFFECTS.replace("ps.values()).sqrt()", "ps.values())"),
            "the root is missing",
        ),
        "guessed verdict": (
            EFFECTS.replace('10: "same"', '10: "more"'),
            "from the interval of your own effects",
        ),
    },
}
