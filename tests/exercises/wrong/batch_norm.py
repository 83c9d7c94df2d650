"""Typical wrong answers to the exercises on batch normalization."""

EFFECTS = """
def effects(seeds):
    sizes = [64, 32, 32, 10]
    result = study(
        {
            "plain": {"model": lambda g: models.mlp(sizes, generator=g)},
            "BN": {"model": lambda g: models.mlp(sizes, norm=nn.BatchNorm1d, generator=g)},
        },
        split=lambda seed: data.digits(seed, num_train=200),
        seeds=seeds, epochs=3, every=3, lr=0.01, momentum=0.9, record=("val_accuracy",),
    )
    return SCALE * result.difference("BN", "plain", "val_accuracy")

verdict = "more"
"""

WRONG = {
    1: {
        "unbiased variance": (
            "def normalize(X, eps=1e-5):\n    return (X - X.mean(0)) / (X.var(0) + eps).sqrt()",
            "the variance is divided by N - 1",
        ),
        "eps outside the root": (
            "def normalize(X, eps=1e-5):\n"
            "    return (X - X.mean(0)) / (X.std(0, correction=0) + eps)",
            "eps is added to the standard deviation",
        ),
        "per sample": (
            "def normalize(X, eps=1e-5):\n"
            "    var = X.var(1, correction=0, keepdim=True)\n"
            "    return (X - X.mean(1, keepdim=True)) / (var + eps).sqrt()",
            "those of a sample, not of a feature",
        ),
    },
    2: {
        "biased": (
            "def update(m, v, X, momentum=0.1):\n"
            "    k = momentum\n"
            "    return (1 - k) * m + k * X.mean(0), (1 - k) * v + k * X.var(0, correction=0)",
            "the remembered variance is the biased one",
        ),
        "momentum of others": (
            "def update(m, v, X, momentum=0.1):\n"
            "    k = 1 - momentum\n"
            "    return (1 - k) * m + k * X.mean(0), (1 - k) * v + k * X.var(0)",
            "momentum is taken as the share of the old value",
        ),
    },
    3: {
        "scale matters": (
            'prediction = {"bias": "same", "scale": "changes", "sign": "changes", '
            '"company": "changes", "eval company": "same"}',
            "is in the standard deviation, too, and cancels",
        ),
        "samples are independent": (
            'prediction = {"bias": "same", "scale": "same", "sign": "changes", '
            '"company": "same", "eval company": "same"}',
            "those of the whole batch",
        ),
    },
    4: {
        "no eval": (
            "@torch.no_grad()\n"
            "def accuracy(model, X, y):\n"
            "    return (model(X).argmax(1) == y).double().mean().item()",
            "Is model.eval() missing?",
        ),
        "mode not given back": (
            "@torch.no_grad()\n"
            "def accuracy(model, X, y):\n"
            "    model.eval()\n"
            "    return (model(X).argmax(1) == y).double().mean().item()",
            "the model back in training mode",
        ),
        "divided by the batch size": (
            "@torch.no_grad()\n"
            "def accuracy(model, X, y):\n"
            "    model.eval()\n"
            "    correct = (model(X).argmax(1) == y).sum()\n"
            "    model.train()\n"
            "    return correct / 10",
            "you divide by the batch size",
        ),
    },
    5: {
        "no running mean": (
            "@torch.no_grad()\n"
            "def fold(linear, norm):\n"
            "    f = norm.weight / (norm.running_var + norm.eps).sqrt()\n"
            "    return f[:, None] * linear.weight, f * linear.bias + norm.bias",
            "running_mean is left out",
        ),
        "no eps": (
            "@torch.no_grad()\n"
            "def fold(linear, norm):\n"
            "    f = norm.weight / norm.running_var.sqrt()\n"
            "    bias = f * (linear.bias - norm.running_mean) + norm.bias\n"
            "    return f[:, None] * linear.weight, bias",
            "eps is left out",
        ),
    },
    6: {
        "fractions": (EFFECTS.replace("SCALE", "1"), "you leave fractions as they are"),
        "other way round": (
            EFFECTS.replace("SCALE", "-100").replace('"more"', '"less"'),
            "you subtract the other way round",
        ),
        "test set": (
            EFFECTS.replace("SCALE", "100").replace("val_accuracy", "test_accuracy"),
            "you read the test set",
        ),
        "mean": (
            EFFECTS.replace("SCALE", "100").replace(
                '"val_accuracy")\n', '"val_accuracy").mean()\n'
            ),
            "Return all seeds and not their mean",
        ),
        "unpaired": (
            EFFECTS.replace("SCALE", "100").replace(
                "seeds=seeds, epochs", "seeds=[7 + i for i in range(len(seeds))], epochs"
            ),
            "do seed, weights or batches not come from the seed",
        ),
    },
}
