"""Typical wrong answers to the exercises on learning-rate schedules."""

WARM_COSINE = """
def warm_cosine(t, warm, total, end=0.0):
    if t < warm:
        return (t + 1) / warm
    progress = min((t - warm) / (total - warm), 1)
    return end + (1 - end) * (1 + math.cos(math.pi * progress)) / 2
"""

PREDICTION = """
prediction = {
    "step": 0.25, "sum": 10, "cosine": 0.5, "restarts": 1, "constant": 1, "two": 0.025
}
"""

FIT = """
def fit(model, X, y, epochs, lr):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    scheduler = lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    used = []
    for epoch in range(epochs):
        # EARLY
        for i in range(0, len(X), 50):
            # BEFORE
            loss = F.cross_entropy(model(X[i : i + 50]), y[i : i + 50])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            # AFTER
        # LATE
    return used
"""
READ = 'used.append(optimizer.param_groups[0]["lr"])'
STEP = "scheduler.step()"

RATE_FOR = """
def rate_for(floor, curvature, noise):
    return 2 * curvature * floor / (curvature**2 * floor + noise**2)
"""

EFFECTS = """
def effects(seeds):
    result = study(
        {"cosine": {"lr": 2.0, "schedule": schedules.cosine(50)}, "constant": {"lr": 1.0}},
        model=lambda g: models.mlp([64, 10], generator=g),
        split=lambda seed: data.digits(seed, num_train=400, label_noise=0.3),
        seeds=seeds, steps=50, batch_size=4, record=("val_accuracy",),
    )
    return 100 * result.difference("cosine", "constant", "val_accuracy")

verdict = "more"
"""


def changed(answer: str, *pairs: tuple[str, str]) -> str:
    """A right answer with mistakes in it."""
    for old, new in pairs:
        assert old in answer
        answer = answer.replace(old, new)
    return answer


WRONG = {
    1: {
        "a step late": (
            "def multi_step(t, milestones, gamma):\n"
            "    return gamma ** sum(t > m for m in milestones)",
            "falls one step too late",
        ),
        "once": (
            "def multi_step(t, milestones, gamma):\n"
            "    return gamma if t >= milestones[0] else 1.0",
            "only the first milestone counts",
        ),
        "not kept": (
            "def multi_step(t, milestones, gamma):\n"
            "    return gamma if t in milestones else 1.0",
            "is back at 1 after it",
        ),
        "times": (
            "def multi_step(t, milestones, gamma):\n"
            "    return gamma * sum(t >= m for m in milestones) or 1.0",
            "multiplied by the number of milestones",
        ),
    },
    2: {
        "first step at 0": (
            changed(WARM_COSINE, ("(t + 1) / warm", "t / warm")),
            "the first step does nothing",
        ),
        "progress from 0": (
            changed(WARM_COSINE, ("(t - warm) / (total - warm)", "t / total")),
            "counts from step 0, not from warm",
        ),
        "no stop": (
            changed(
                WARM_COSINE,
                ("min((t - warm) / (total - warm), 1)", "(t - warm) / (total - warm)"),
            ),
            "goes on after total, and rises",
        ),
        "end added": (
            changed(WARM_COSINE, ("(1 - end) * (1", "(1")),
            "the cosine begins above 1",
        ),
        "not halved": (changed(WARM_COSINE, (" / 2", "")), "1 + cos is not halved"),
        "cut": (
            changed(
                WARM_COSINE,
                (
                    "end + (1 - end) * (1 + math.cos(math.pi * progress)) / 2",
                    "max((1 + math.cos(math.pi * progress)) / 2, end)",
                ),
            ),
            "is cut off at end",
        ),
    },
    3: {
        "cosine stops": (changed(PREDICTION, ('"cosine": 0.5', '"cosine": 0')), "half-way up"),
        "equal periods": (
            changed(PREDICTION, ('"restarts": 1', '"restarts": 0.5')),
            "the third begins at 30",
        ),
        "constant factor": (
            changed(PREDICTION, ('"constant": 1', '"constant": 1 / 3')),
            "for five steps only",
        ),
        "last one wins": (changed(PREDICTION, ("0.025", "0.1")), "two halvings, and a tenth"),
        "sum without end": (
            changed(PREDICTION, ('"sum": 10', '"sum": float("inf")')),
            "go as far as ten at the first rate",
        ),
        "whole periods": (changed(PREDICTION, ("0.25,", "0.125,")), "It has fallen at 10 and"),
    },
    4: {
        "the listing": (
            changed(
                FIT, ("# BEFORE", STEP), ("# LATE", "used.append(scheduler.get_last_lr())")
            ),
            "once a batch, and before the optimizer",
        ),
        "per batch": (
            changed(FIT, ("# EARLY", READ), ("# AFTER", STEP)),
            "the scheduler is called once a batch.",
        ),
        "before the epoch": (
            changed(FIT, ("# EARLY", f"{STEP}; {READ}")),
            "the rate lr is skipped",
        ),
        "never": (changed(FIT, ("# EARLY", READ)), "the scheduler is never called"),
        "next rate": (
            changed(FIT, ("# LATE", f"{STEP}; {READ}")),
            "which is the next epoch's",
        ),
        "lists": (
            changed(
                FIT,
                ("# EARLY", "used.append(scheduler.get_last_lr())"),
                ("# LATE", STEP),
            ),
            "get_last_lr has one rate for each group",
        ),
    },
    5: {
        "chapter's formula": (
            changed(RATE_FOR, ("curvature**2 * ", ""), ("2 * curvature", "2")),
            "the curvature is taken for 1",
        ),
        "deviation": (changed(RATE_FOR, ("noise**2", "noise")), "the noise is not squared"),
        "small rates": (
            changed(RATE_FOR, ("curvature**2 * floor + ", "")),
            "holds for small rates only",
        ),
        "half put in": (
            changed(RATE_FOR, ("2 * curvature", "2"), ("curvature**2", "curvature")),
            "and nowhere else",
        ),
        "too large": (
            "def rate_for(floor, curvature, noise):\n    return 5.0",
            "has to lie between 0 and 2 / curvature",
        ),
    },
    6: {
        "fractions": (changed(EFFECTS, ("100 *", "1 *")), "multiply by 100"),
        "other way round": (
            changed(EFFECTS, ("100 *", "-100 *"), ('"more"', '"less"')),
            "you subtract the other way round",
        ),
        "whole rate": (
            changed(EFFECTS, ('{"lr": 1.0}', '{"lr": 2.0}')),
            "keeps the whole base rate",
        ),
        "half the cosine": (
            changed(EFFECTS, ('"lr": 2.0, ', '"lr": 1.0, ')),
            "starts at half the base rate, too",
        ),
        "test set": (changed(EFFECTS, ("val_accuracy", "test_accuracy")), "read the test set"),
        "right labels": (
            changed(EFFECTS, (", label_noise=0.3", "")),
            "the training labels are right",
        ),
        "unpaired": (
            changed(EFFECTS, ("seeds=seeds", "seeds=[7 + i for i in range(len(seeds))]")),
            "may depend on nothing but the seed",
        ),
        "verdict from hope": (
            changed(EFFECTS, ('"more"', '"same"')),
            "from the interval of your own effects",
        ),
    },
}
