"""Typical wrong answers to the exercises on optimizers."""

VELOCITIES = """
def velocities(G, beta, dampening=0.0):
    v, found = START, []
    for g in G[FIRST:]:
        v = NEXT
        found.append(v)
    return torch.stack([START] * FIRST + found)
"""
FROM_ZERO = VELOCITIES.replace("START", "torch.zeros_like(G[0])").replace("FIRST", "0")
FROM_FIRST = VELOCITIES.replace("START", "G[0]").replace("FIRST", "1")

ADAMW = """
def adamw(w, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
    t, m, v = state or (0, 0 * w, 0 * w)
    t = t + 1
    m = betas[0] * m + (1 - betas[0]) * g
    v = betas[1] * v + (1 - betas[1]) * g**2
    m_hat, v_hat = m / (1 - betas[0]**t), v / (1 - betas[1]**t)
    w = w - lr * weight_decay * w - lr * m_hat / (v_hat.sqrt() + eps)
    return w, (t, m, v)
"""

PREDICTION = """
prediction = {"SGD": 100, "Adagrad": 10, "Adam": 10, "Adam, large eps": 100, "Adam, loss": 1}
"""

FIT = """
def fit(model, X, y, epochs, lr):
    optimizer, costs = torch.optim.Adam(model.parameters(), lr=lr), []
    for epoch in range(epochs):
        # EPOCH
        total = 0.0
        for i in range(0, len(X), 50):
            cost = F.cross_entropy(model(X[i : i + 50]), y[i : i + 50])
            optimizer.zero_grad()
            cost.backward()
            optimizer.step()
            total += cost.item() * len(X[i : i + 50]) / len(X)
        costs.append(total)
    return costs
"""

LIMIT = """
def limit(X, beta=0.0):
    L = torch.linalg.eigvalsh(2 * X.T @ X / len(X))[-1].item()
    return 2 * (1 + beta) / L
"""

EFFECTS = """
def effects(seeds):
    result = study(
        {
            "momentum": {"lr": 0.05, "momentum": 0.9},
            "same rate": {"lr": 0.05},
            "same pace": {"lr": PACE},
        },
        model=lambda g: models.mlp([64, 10], generator=g),
        split=lambda seed: data.digits(seed, num_train=200),
        seeds=seeds, epochs=12, every=12, batch_size=50, record=("val_accuracy",),
    )
    return {
        other: SCALE * result.difference("momentum", other, "val_accuracy")
        for other in ("same rate", "same pace")
    }

verdict = {"same rate": "more", "same pace": "same"}
"""
POINTS = EFFECTS.replace("SCALE", "100").replace("PACE", "0.5")


def changed(answer: str, old: str, new: str) -> str:
    """A right answer with a mistake in it."""
    assert old in answer
    return answer.replace(old, new)


WRONG = {
    1: {
        "running mean": (
            FROM_ZERO.replace("NEXT", "beta * v + (1 - beta) * g"),
            "multiplied by 1 - beta, a running mean",
        ),
        "running mean from the first": (
            FROM_FIRST.replace("NEXT", "beta * v + (1 - beta) * g"),
            "multiplied by 1 - beta, except for the first",
        ),
        "plain sum": (FROM_ZERO.replace("NEXT", "v + g"), "is not multiplied by beta"),
        "in place": (
            """
def velocities(G, beta, dampening=0.0):
    v, found = torch.zeros_like(G[0]), []
    for i, g in enumerate(G):
        v.mul_(beta).add_(g, alpha=1 - dampening if i else 1.0)
        found.append(v)
    return torch.stack(found)
""",
            "v is changed in place",
        ),
        "first one dampened": (
            FROM_ZERO.replace("NEXT", "beta * v + (1 - dampening) * g"),
            "the first gradient is dampened, too",
        ),
        "no dampening": (FROM_ZERO.replace("NEXT", "beta * v + g"), "dampening is left out"),
    },
    2: {
        "no correction": (
            changed(ADAMW, "m / (1 - betas[0]**t), v / (1 - betas[1]**t)", "m, v"),
            "not corrected for their start",
        ),
        "t from 0": (
            changed(ADAMW, "return w, (t, m, v)", "return w, (0, m, v)"),
            "t stays 1 in the correction",
        ),
        "division by 0": (
            changed(ADAMW, "    t = t + 1\n", ""),
            "you divide by 0",
        ),
        "eps under the root": (
            changed(ADAMW, "(v_hat.sqrt() + eps)", "(v_hat + eps).sqrt()"),
            "eps stands under the root",
        ),
        "penalty": (
            changed(
                changed(ADAMW, "- lr * weight_decay * w ", ""),
                "t = t + 1",
                "t, g = t + 1, g + weight_decay * w",
            ),
            "an L2 penalty",
        ),
        "decay without rate": (
            changed(ADAMW, "lr * weight_decay", "weight_decay"),
            "the decay is not multiplied by lr",
        ),
        "decay afterwards": (
            changed(
                ADAMW,
                "w = w - lr * weight_decay * w - lr * m_hat / (v_hat.sqrt() + eps)",
                "w = (1 - lr * weight_decay) * (w - lr * m_hat / (v_hat.sqrt() + eps))",
            ),
            "the decay acts on the weight after the step",
        ),
        "no decay": (changed(ADAMW, "- lr * weight_decay * w ", ""), "there is no decay"),
        "weight alone": (
            changed(ADAMW, "return w, (t, m, v)", "return w"),
            "a pair, the weight and the state",
        ),
    },
    3: {
        "a factor once": (changed(PREDICTION, '"SGD": 100', '"SGD": 10'), "worth ten of w"),
        "Adam is free of units": (
            changed(PREDICTION, '"Adam": 10', '"Adam": 1'),
            "The first step in u is lr, whatever the gradient. In w it is ten",
        ),
        "eps changes nothing": (
            changed(PREDICTION, 'eps": 100', 'eps": 10'),
            "Beside a large eps the root is nothing",
        ),
        "Adam feels the loss": (
            changed(PREDICTION, '"Adam, loss": 1', '"Adam, loss": 10'),
            "both grow by 10, and cancel",
        ),
    },
    4: {
        "no zero_grad": (
            changed(FIT, "            optimizer.zero_grad()\n", ""),
            "gradients add up over the batches",
        ),
        "new Adam": (
            changed(FIT, "# EPOCH", "optimizer = torch.optim.Adam(model.parameters(), lr=lr)"),
            "every epoch makes a new Adam",
        ),
        "the listing": (
            """
def fit(model, X, y, epochs, lr):
    costs = []
    for epoch in range(epochs):
        optimizer = torch.optim.Adam(model.parameters(), lr=lr)
        avg_cost = 0
        for i in range(0, len(X), 50):
            cost = F.cross_entropy(model(X[i : i + 50]), y[i : i + 50])
            cost.backward()
            optimizer.step()
            avg_cost += cost / (len(X) // 50)
        costs.append(avg_cost)
    return costs
""",
            "gradients add up, and every epoch makes a new Adam",
        ),
        "graph kept": (changed(FIT, "cost.item()", "cost"), "keeps the graph of its batch"),
        "two batches": (
            changed(FIT, "len(X[i : i + 50]) / len(X)", "1 / (len(X) // 50)"),
            "divided by 130 // 50",
        ),
        "small batch like a large one": (
            changed(FIT, "* len(X[i : i + 50]) / len(X)", "/ len(range(0, len(X), 50))"),
            "each batch counts the same, even the small one",
        ),
        "loss afterwards": (
            changed(
                FIT,
                "costs.append(total)",
                "costs.append(F.cross_entropy(model(X), y).item())",
            ),
            "Each loss as often as its batch has samples",
        ),
    },
    5: {
        "2 of the square": (changed(LIMIT, "2 * X.T", "X.T"), "lacks the 2 of the square"),
        "sum": (changed(LIMIT, " / len(X)", ""), "a sum over the samples, not a mean"),
        "1 / L": (changed(LIMIT, "2 * (1 + beta) / L", "(1 + beta) / L"), "you take 1 / L"),
        "no momentum": (changed(LIMIT, "(1 + beta)", "1"), "momentum is left out"),
        "momentum lowers it": (
            changed(LIMIT, "(1 + beta)", "(1 - beta)"),
            "lower the limit by 1 - beta",
        ),
        "smallest": (changed(LIMIT, "[-1]", "[0]"), "you take the smallest curvature"),
    },
    6: {
        "fractions": (changed(POINTS, "100 *", "1 *"), "multiply by 100"),
        "other way round": (
            changed(POINTS, "100 *", "-100 *"),
            "the accuracy with momentum minus the one without",
        ),
        "pace the wrong way": (
            changed(POINTS, '{"lr": 0.5}', '{"lr": 0.005}'),
            "a rate that is 1 / (1 - 0.9) times as large",
        ),
        "unpaired": (
            changed(POINTS, "seeds=seeds", "seeds=[7 + i for i in range(len(seeds))]"),
            "may depend on nothing but the seed",
        ),
        "verdict from the mean": (
            changed(POINTS, '"same pace": "same"', '"same pace": "less"'),
            "from the interval of your own effects",
        ),
    },
}
