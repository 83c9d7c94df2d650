"""Typical wrong answers to the exercises on data normalization."""

EFFECTS = """
def effects(seeds, standardized):
    def split(seed, flip):
        s = data.digits(seed, num_train=200)
        if flip:
            s = s.map(lambda X: 1 - X)
        if standardized:
            s = s.map(Standardizer().fit(s.X_train))
        return s

    result = study(
        {
            "dark": {"split": lambda seed: split(seed, False)},
            "light": {"split": lambda seed: split(seed, True)},
        },
        model=lambda g: models.mlp([64, 10], generator=g),
        seeds=seeds, epochs=2, every=2, batch_size=32, lr=0.3, record=("val_accuracy",),
    )
    return 100 * result.difference("dark", "light", "val_accuracy")

verdict = {False: "more", True: "same"}
"""
PREDICTION = (
    'prediction = {"SGD": 1 / 100, "momentum": 1 / 100, "Adam": 1 / 10, '
    '"ridge": 100, "condition": 1}'
)
STATISTICS = """
def statistics(chunks):
    n, total, squares = 0, 0.0, 0.0
    for chunk in chunks:
        n += len(chunk)
        total = total + chunk.sum(0)
        squares = squares + (chunk**2).sum(0)
    mean = total / n
    return mean, (squares / n - mean**2).sqrt()
"""

WRONG = {
    1: {
        "own statistics": (
            "def standardize(X_train, X):\n"
            "    d = (0, 2, 3)\n"
            "    std = X.std(d, correction=0, keepdim=True)\n"
            "    return (X - X.mean(d, keepdim=True)) / std",
            "the statistics are those of X, not of X_train",
        ),
        "unbiased variance": (
            "def standardize(X_train, X):\n"
            "    d = (0, 2, 3)\n"
            "    return (X - X_train.mean(d, keepdim=True)) / X_train.std(d, keepdim=True)",
            "the variance is divided by n - 1",
        ),
        "per pixel": (
            "def standardize(X_train, X):\n"
            "    return (X - X_train.mean(0)) / X_train.std(0, correction=0)",
            "each pixel has statistics of its own",
        ),
        "averaged standard deviations": (
            "def standardize(X_train, X):\n"
            "    std = X_train.std((2, 3), correction=0).mean(0)\n"
            "    return (X - X_train.mean((0, 2, 3), keepdim=True)) / std.view(1, -1, 1, 1)",
            "the standard deviations of single images are averaged",
        ),
        "one for all": (
            "def standardize(X_train, X):\n"
            "    return (X - X_train.mean()) / X_train.std(correction=0)",
            "all channels share one mean",
        ),
    },
    2: {
        "all kept": (
            "def statistics(chunks):\n"
            "    X = torch.cat([*chunks])\n"
            "    return X.mean(0), X.std(0, correction=0)",
            "when their memory holds other rows",
        ),
        "two passes": (
            "def statistics(chunks):\n"
            "    n, total, squares = 0, 0.0, 0.0\n"
            "    for c in chunks:\n"
            "        n, total = n + len(c), total + c.double().sum(0)\n"
            "    for c in chunks:\n"
            "        squares = squares + ((c - total / n) ** 2).sum(0)\n"
            "    return total / n, (squares / n + 0 * total).sqrt()",
            "the second time there are none",
        ),
        "mean of means": (
            "def statistics(chunks):\n"
            "    parts = [(c.mean(0), c.std(0, correction=0)) for c in chunks]\n"
            "    return tuple(torch.stack(part).mean(0) for part in zip(*parts))",
            "every chunk counts the same, however many rows it has",
        ),
        "within only": (
            "def statistics(chunks):\n"
            "    n, m, v = 0, 0.0, 0.0\n"
            "    for c in chunks:\n"
            "        n += len(c)\n"
            "        m = m + c.sum(0)\n"
            "        v = v + len(c) * c.var(0, correction=0)\n"
            "    return m / n, (v / n).sqrt()",
            "the spread between the chunks is left out",
        ),
        "cancellation": (STATISTICS, "loses all digits far from 0"),
        "unbiased variance": (
            STATISTICS.replace("chunk.sum", "chunk.double().sum")
            .replace("chunk**2", "chunk.double()**2")
            .replace("mean**2).sqrt()", "mean**2).mul(n / (n - 1)).sqrt()"),
            "the variance is divided by n - 1",
        ),
    },
    3: {
        "one factor of ten": (
            PREDICTION.replace('"SGD": 1 / 100', '"SGD": 1 / 10'),
            "and the step has to be a tenth as long",
        ),
        "momentum differs": (
            PREDICTION.replace('"momentum": 1 / 100', '"momentum": 1 / 10'),
            "Momentum adds up gradients",
        ),
        "Adam does not care": (
            PREDICTION.replace('"Adam": 1 / 10', '"Adam": 1'),
            "the weights still have to be a tenth as large",
        ),
        "ridge the other way": (
            PREDICTION.replace('"ridge": 100', '"ridge": 1 / 100'),
            "the penalty sees a hundredth",
        ),
        "condition grows": (
            PREDICTION.replace('"condition": 1', '"condition": 100'),
            "a ratio does not notice",
        ),
    },
    4: {
        "in place": (
            "def prepare(X_train, X_test):\n"
            "    mean, std = X_train.mean(0), X_train.std(0, correction=0)\n"
            "    std[std == 0] = 1\n"
            "    for X in (X_train, X_test):\n"
            "        X -= mean\n"
            "        X /= std\n"
            "    return X_train, X_test",
            "writes into the caller's tensor",
        ),
        "statistics too late": (
            "def prepare(X_train, X_test):\n"
            "    std = X_train.std(0, correction=0)\n"
            "    X_train = (X_train - X_train.mean(0)) / torch.where(std == 0, 1.0, std)\n"
            "    std = X_train.std(0, correction=0)\n"
            "    X_test = (X_test - X_train.mean(0)) / torch.where(std == 0, 1.0, std)\n"
            "    return X_train, X_test",
            "the test set is left in its own unit",
        ),
        "each by itself": (
            "def prepare(X_train, X_test):\n"
            "    def one(X):\n"
            "        std = X.std(0, correction=0)\n"
            "        return (X - X.mean(0)) / torch.where(std == 0, 1.0, std)\n"
            "    return one(X_train), one(X_test)",
            "the test set is standardized by its own statistics",
        ),
        "eps": (
            "def prepare(X_train, X_test):\n"
            "    mean, std = X_train.mean(0), X_train.std(0, correction=0) + 1e-8\n"
            "    return (X_train - mean) / std, (X_test - mean) / std",
            "the test set is divided by it",
        ),
        "zero over zero": (
            "def prepare(X_train, X_test):\n"
            "    mean, std = X_train.mean(0), X_train.std(0, correction=0)\n"
            "    return (X_train - mean) / std, (X_test - mean) / std",
            "a constant feature is divided by its standard deviation, 0",
        ),
        "unbiased variance": (
            "def prepare(X_train, X_test):\n"
            "    mean, std = X_train.mean(0), X_train.std(0)\n"
            "    std = torch.where(std == 0, 1.0, std)\n"
            "    return (X_train - mean) / std, (X_test - mean) / std",
            "the variance is divided by n - 1",
        ),
    },
    5: {
        "rows": (
            "@torch.no_grad()\n"
            "def absorb(linear, mean, std):\n"
            "    weight = linear.weight / std[:, None]\n"
            "    return weight, linear.bias - weight @ mean",
            "rows and not columns are divided by std",
        ),
        "no bias": (
            "@torch.no_grad()\n"
            "def absorb(linear, mean, std):\n"
            "    return linear.weight / std, linear.bias",
            "the bias is left as it was",
        ),
        "old weight": (
            "@torch.no_grad()\n"
            "def absorb(linear, mean, std):\n"
            "    return linear.weight / std, linear.bias - linear.weight @ mean",
            "through the old weight",
        ),
        "wrong sign": (
            "@torch.no_grad()\n"
            "def absorb(linear, mean, std):\n"
            "    weight = linear.weight / std\n"
            "    return weight, linear.bias + weight @ mean",
            "the mean is added",
        ),
        "in place": (
            "@torch.no_grad()\n"
            "def absorb(linear, mean, std):\n"
            "    linear.weight /= std\n"
            "    linear.bias -= linear.weight @ mean\n"
            "    return linear.weight, linear.bias",
            "write into the layer",
        ),
    },
    6: {
        "fractions": (EFFECTS.replace("100 * result", "result"), "multiply by 100"),
        "other way round": (
            EFFECTS.replace('"dark", "light", "val', '"light", "dark", "val'),
            "you subtract the other way round",
        ),
        "unpaired": (
            EFFECTS.replace("seeds=seeds", "seeds=[7 + i for i in range(len(seeds))]"),
            "may depend on nothing but the seed",
        ),
        "standardized before the flip": (
            EFFECTS.replace("if flip", "if 0").replace(
                "        return s\n", "        return s.map(lambda X: 1 - X) if flip else s\n"
            ),
            "Is the standardizer fitted after the flip",
        ),
        "no interval": (
            EFFECTS.replace(
                'True: "same"',
                'True: "more" if effects(seeds(10), True).mean() > 0 else "less"',
            ),
            "the sign of the mean and not at its interval",
        ),
    },
}
