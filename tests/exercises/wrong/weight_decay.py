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

LISTED = """
def penalized(model, X, y, l2=0.01):
    loss = F.cross_entropy(model(X), y)
    for p in model.parameters():
        loss = loss + l2 / 2 * p.data.norm()
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
        "time constant": (
            "def half_life(lr, weight_decay):\n    return 1 / (lr * weight_decay)",
            "you give the time constant",
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
        "gradient in place": (
            STEP + "    if not decoupled:\n        grad += weight_decay * w\n"
            "    v = momentum * v + grad\n"
            "    return w - lr * v - (lr * weight_decay * w if decoupled else 0), v",
            "after a call with decoupled=False: at 'grad'",
        ),
        "no decay": (
            STEP + "    v = momentum * v + grad\n    return w - lr * v, v",
            "the weights are not decayed at all",
        ),
        "decay twice": (
            STEP + "    v = momentum * v + grad + (0 if decoupled else weight_decay * w)\n"
            "    return w - lr * weight_decay * w - lr * v, v",
            "decayed twice, in the velocity and in the step",
        ),
        "old velocity": (
            STEP + "    if decoupled:\n"
            "        return w - lr * weight_decay * w - lr * v, momentum * v + grad\n"
            "    v = momentum * v + grad + weight_decay * w\n    return w - lr * v, v",
            "the old velocity moves the weights",
        ),
        "rate in the velocity": (
            STEP + "    if decoupled:\n        v = momentum * v + lr * grad\n"
            "        return w - lr * weight_decay * w - v, v\n"
            "    v = momentum * v + grad + weight_decay * w\n    return w - lr * v, v",
            "the rate is multiplied into the velocity",
        ),
        "weights alone": (
            STEP + "    v = momentum * v + grad + (0 if decoupled else weight_decay * w)\n"
            "    return w - lr * v - (lr * weight_decay * w if decoupled else 0)",
            "expected a pair, the weights and the velocity, but got one tensor",
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
        "misspelt key": (
            PREDICTION.replace("Adam, weaker", "Adam weaker"),
            "the keys of prediction",
        ),
        "missing key": (
            'prediction = {"SGD": "most"}',
            "The names are 'SGD', 'AdamW', 'Adam', 'Adam, weaker', 'AdamW, None'",
        ),
        "misspelt answer": (
            PREDICTION.replace('"SGD": "most"', '"SGD": "Most"'),
            "expected 'all', 'most' or 'half', but got 'Most'",
        ),
    },
    4: {
        "as listed": (
            LISTED,
            "not squared, halved, and with the biases",
        ),
        "without data": (
            LISTED.replace("p.data", "p"),
            "the formula is still the old one",
        ),
        "norm of all": (
            LISTED.replace("l2 / 2 * p.data.norm()", "l2 * p.norm()"),
            "the norm is not squared, and biases are penalized",
        ),
        "norm and half": (
            LOSS.replace("PENALTY", "l2 / 2 * layer.weight.norm()"),
            "the norm is not squared, and the factor 1/2 is still there",
        ),
        "half of all": (
            LISTED.replace("p.data.norm()", "p.square().sum()"),
            "the factor 1/2 is still there, and biases are penalized",
        ),
        "biases of the linear layers": (
            LOSS.replace("PENALTY", "l2 * squares(layer.parameters())")
            + "\ndef squares(weights):\n    return sum(w.square().sum() for w in weights)",
            "if biases are penalized.",
        ),
        "children": (
            LOSS.replace("modules()", "children()").replace(
                "PENALTY", "l2 * layer.weight.square().sum()"
            ),
            "layers inside another are missed",
        ),
        "by name": (
            LISTED.replace(
                "for p in model.parameters():",
                "for p in [p for n, p in model.named_parameters() if 'bias' not in n]:",
            ).replace("l2 / 2 * p.data.norm()", "l2 * p.square().sum()"),
            "the weights of the batch normalization are penalized, too",
        ),
        "by dimensions": (
            LISTED.replace(
                "for p in model.parameters():",
                "for p in [p for p in model.parameters() if p.ndim == 2]:",
            ).replace("l2 / 2 * p.data.norm()", "l2 * p.square().sum()"),
            "the embedding is penalized, too",
        ),
        "cross-entropy cut": (
            LOSS.replace("model(X)", "model(X).detach()").replace(
                "PENALTY", "l2 * layer.weight.square().sum()"
            ),
            "Both parts of the loss have to stay in the graph",
        ),
        "half": (
            LOSS.replace("PENALTY", "l2 / 2 * layer.weight.square().sum()"),
            "if the factor 1/2 is still there.",
        ),
        "norm": (
            LOSS.replace("PENALTY", "l2 * layer.weight.norm()"),
            "if the norm is not squared.",
        ),
        "biases": (
            "def penalized(model, X, y, l2=0.01):\n"
            "    loss = F.cross_entropy(model(X), y)\n"
            "    return loss + l2 * sum(p.square().sum() for p in model.parameters())",
            "if biases are penalized, and all other parameters",
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
        "mean": (
            EFFECTS.replace("return a.log10() - b.log10()", "return (a / b).log10().mean()"),
            "Return all seeds, not their mean",
        ),
        "no return": (
            EFFECTS.replace("return a.log10", "a.log10"),
            "got None (is a `return` missing?)",
        ),
        "factor not used": (
            EFFECTS.replace("0.1 * factor", "0.1"),
            "the factor is not used",
        ),
        "factor in both arms": (
            EFFECTS.replace('SGD, "weight_decay": 0.1', 'SGD, "weight_decay": 0.1 * factor'),
            "the factor is in both arms",
        ),
        "factor with SGD": (
            EFFECTS.replace("0.1 * factor", "0.1").replace(
                'SGD, "weight_decay": 0.1', 'SGD, "weight_decay": 0.1 * factor'
            ),
            "the factor is with SGD",
        ),
        "one rule": (
            EFFECTS.replace('"optimizer": SGDW', '"optimizer": SGD'),
            "both arms are the same",
        ),
        "no momentum": (
            EFFECTS.replace("momentum=0.9", "momentum=0.0"),
            "or the momentum is missing",
        ),
        "guessed verdict": (
            EFFECTS.replace('10: "same"', '10: "more"'),
            "from the interval of your own effects",
        ),
    },
}
