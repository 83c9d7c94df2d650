"""Typical wrong answers to the exercises on dropout."""

NET = """
class Net(nn.Module):
    def __init__(self, fan_in, num_hiddens, fan_out, p):
        super().__init__()
        self.hidden = nn.Linear(fan_in, num_hiddens)
        self.out = nn.Linear(num_hiddens, fan_out)
        self.p = p

    def forward(self, X):
        h = F.relu(self.hidden(X))
"""

EFFECTS = """
def effects(seeds):
    sizes = [64, 32, 10]
    result = study(
        {
            "none": {"model": lambda g: models.mlp(sizes, generator=g)},
            "dropout": {"model": lambda g: models.mlp(sizes, dropout=0.8, generator=g)},
        },
        split=lambda seed: data.digits(seed, num_train=100),
        seeds=seeds, epochs=3, every=3, batch_size=10, lr=0.1, momentum=0.9,
        record=("val_accuracy", "test_accuracy"),
    )
    return 100 * result.difference("dropout", "none", "val_accuracy")

verdict = "less"
"""

PREDICTION = (
    'prediction = {"train": "changes", "no_grad": "changes", "function": "changes", '
    '"order": "same", "linear mean": "same", "relu mean": "changes"}'
)

WRONG = {
    1: {
        "classic": (
            "def drop(x, u, p):\n    return x * (u >= p)",
            "that is the classic form",
        ),
        "divided by p": (
            "def drop(x, u, p):\n    return x * (u >= p) / p",
            "the share that is dropped",
        ),
        "p is kept": (
            "def drop(x, u, p):\n    return x * (u < p) / p",
            "p is taken as the share that stays",
        ),
        "mask turned over": (
            "def drop(x, u, p):\n    return x * (u < p) / (1 - p)",
            "you keep what shall be dropped",
        ),
    },
    2: {
        "no mean": (
            "def variance_after(mean, var, p):\n    return var / (1 - p)",
            "the mean is left out",
        ),
        "mean square": (
            "def variance_after(mean, var, p):\n    return (var + mean**2) / (1 - p)",
            "the squared mean is not subtracted",
        ),
        "classic": (
            "def variance_after(mean, var, p):\n"
            "    return (1 - p) * (var + mean**2) - ((1 - p) * mean) ** 2",
            "the form is the classic one",
        ),
        "swapped": (
            "def variance_after(mean, var, p):\n    return (var + mean**2) / p - mean**2",
            "p is taken as the share that stays",
        ),
    },
    3: {
        "no_grad is eval": (
            PREDICTION.replace('"no_grad": "changes"', '"no_grad": "same"'),
            "The masks follow the mode",
        ),
        "eval reaches everything": (
            PREDICTION.replace('"function": "changes"', '"function": "same"'),
            "eval() does not reach a function",
        ),
        "order matters": (
            PREDICTION.replace('"order": "same"', '"order": "changes"'),
            "A mask is 0 or positive",
        ),
        "always the mean": (
            PREDICTION.replace('"relu mean": "changes"', '"relu mean": "same"'),
            "The mean does not go through relu",
        ),
        "misspelt key": (
            PREDICTION.replace("relu mean", "relu_mean"),
            "the keys of prediction",
        ),
        "misspelt answer": (
            PREDICTION.replace('"train": "changes"', '"train": "change"'),
            "expected 'same' or 'changes', but got 'change'",
        ),
    },
    4: {
        "as listed": (
            NET + "        h = F.dropout(h, self.p)\n"
            "        if not self.training:\n"
            "            h = h * self.p\n"
            "        return F.dropout(self.out(h), self.p)",
            "F.dropout has training=True by default",
        ),
        "layer in forward": (
            NET + "        return self.out(nn.Dropout(self.p)(h))",
            "A layer made inside forward",
        ),
        "times p": (
            NET + "        h = F.dropout(h, self.p) if self.training else self.p * h\n"
            "        return self.out(h)",
            "multiplied by the dropped share",
        ),
        "times 1 - p": (
            NET + "        h = F.dropout(h, self.p) if self.training else (1 - self.p) * h\n"
            "        return self.out(h)",
            "multiplied by the share that stays",
        ),
        "outputs dropped": (
            NET + "        h = F.dropout(h, self.p, self.training)\n"
            "        return F.dropout(self.out(h), self.p, self.training)",
            "Outputs are dropped",
        ),
        "mode turned over": (
            NET + "        return self.out(F.dropout(h, self.p, not self.training))",
            "two that differ",
        ),
        "keeps p": (
            NET + "        return self.out(F.dropout(h, 1 - self.p, self.training))",
            "the drop rate is 1 - p",
        ),
        "one mask": (
            NET + "        if self.training:\n"
            "            h = h * F.dropout(torch.ones(h.shape[1]), self.p)\n"
            "        return self.out(h)",
            "The mask has the shape of h",
        ),
        "not scaled": (
            NET + "        if self.training:\n"
            "            h = h * (torch.rand_like(h) >= self.p)\n"
            "        return self.out(h)",
            "hidden units that are not scaled",
        ),
    },
    5: {
        "fractions": (EFFECTS.replace("100 * result", "result"), "multiply by 100"),
        "test set": (
            EFFECTS.replace('"none", "val_accuracy"', '"none", "test_accuracy"'),
            "you read the test set",
        ),
        "share that stays": (
            EFFECTS.replace("dropout=0.8", "dropout=0.2"),
            "dropout gets the share that stays",
        ),
        "guessed verdict": (
            EFFECTS.replace('"less"', '"same"'),
            "from the interval of your own effects",
        ),
    },
}
