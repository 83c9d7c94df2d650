"""Typical wrong answers to the exercises on early stopping."""

STOPS = """
def stops_after(losses, patience, min_delta=0.0):
    best, wait = math.inf, 0
    for epoch, loss in enumerate(losses, 1):
        if loss < best - min_delta:
            best, wait = loss, 0
        else:
            wait += 1
        if wait >= patience:
            return epoch
    return len(losses)
"""

FIT = """
def fit(model, train_epoch, val_loss, patience, max_epochs):
    best, counter, losses = math.inf, 0, []
    for _ in range(max_epochs):
        train_epoch(model)
        losses.append(val_loss(model))
        if losses[-1] < best:
            best, counter = losses[-1], 0
            kept = copy.deepcopy(model.state_dict())
        else:
            counter += 1
        if counter >= patience:
            break
    model.load_state_dict(kept)
    return losses
"""

REPORTS = """
def reports(correct, n):
    epoch = correct[:, :n].double().mean(dim=1).argmax()
    row = correct[epoch].double()
    return row[:n].mean(), row[n:].mean()
"""

EFFECTS = """
def effects(seeds):
    result = study(
        {"full": {"lr": 0.6}, "half": {"lr": 0.3}},
        model=lambda g: models.mlp([64, 32, 10], generator=g),
        split=lambda seed: data.digits(seed, num_train=50, label_noise=0.3),
        seeds=seeds, epochs=26, batch_size=50, momentum=0.9, record=("val_loss", "loss"),
    )
    full, half = (
        1 + torch.tensor(result[name, "val_loss"]).argmin(dim=1) for name in ("full", "half")
    )
    return half.log2() - full.log2()

verdicts = {"later": "more", "twice": "less"}
"""

PREDICTION = (
    'prediction = {"times": "same", "plus": "same", "root": "same", '
    '"times, min_delta": "changes", "times, GL": "same", "plus, GL": "changes"}'
)

WRONG = {
    1: {
        "exceeds": (STOPS.replace("wait >= p", "wait > p"), "not when it reaches it"),
        "best counts": (
            STOPS.replace(
                "        else:\n            wait",
                "        if loss <= best:\n            pass\n        wait",
            ),
            "the epoch of a new best loss counts",
        ),
        "ties": (STOPS.replace("loss < best", "loss <= best"), "a gain of exactly min_delta"),
        "previous": (
            STOPS.replace("best, wait = loss, 0\n", "wait = 0\n").replace(
                "        if wait >=", "        best = loss\n        if wait >="
            ),
            "compared with the one before",
        ),
        "sign": (STOPS.replace("best - min", "best + min"), "the sign of min_delta is wrong"),
        "never back": (
            STOPS.replace("best, wait = loss, 0", "best = loss"),
            "the counter never goes back to 0",
        ),
        "lowest": (
            STOPS.replace(
                "            wait += 1\n",
                "            wait += 1\n        best = min(best, loss)\n",
            ),
            "the lowest loss becomes the best one",
        ),
        "from 0": (STOPS.replace("losses, 1)", "losses)"), "epochs count from 0"),
    },
    2: {
        "plus matters": (
            PREDICTION.replace('"plus": "same"', '"plus": "changes"'),
            "although their ratio does",
        ),
        "root matters": (
            PREDICTION.replace('"root": "same"', '"root": "changes"'),
            "The root is a rising function",
        ),
        "min_delta has no unit": (
            PREDICTION.replace('min_delta": "changes"', 'min_delta": "same"'),
            "Gains are ten times as large",
        ),
        "GL takes a constant": (
            PREDICTION.replace('"plus, GL": "changes"', '"plus, GL": "same"'),
            "A constant does not cancel in a ratio",
        ),
        "misspelt key": (
            PREDICTION.replace("plus, GL", "plus GL"),
            "the keys of prediction",
        ),
        "misspelt answer": (
            PREDICTION.replace('"times": "same"', '"times": "Same"'),
            "expected 'same' or 'changes', but got 'Same'",
        ),
    },
    3: {
        "as listed": (
            FIT.replace("math.inf", "0.0")
            .replace("counter >= p", "counter > p")
            .replace("    model.load_state_dict(kept)\n", ""),
            "best starts at 0 and the counter has to exceed patience",
        ),
        "best from 0": (
            FIT.replace("math.inf", "0.0").replace("    model.load_state_dict(kept)\n", ""),
            "best starts at 0, so that no loss",
        ),
        "never back": (
            FIT.replace("best, counter = losses[-1], 0", "best = losses[-1]"),
            "the counter never goes back to 0",
        ),
        "best counts": (
            FIT.replace("        else:\n", "        if losses[-1] >= best:\n"),
            "the best epoch counts as one without improvement",
        ),
        "exceeds": (FIT.replace("counter >= p", "counter > p"), "one epoch too late"),
        "no copy": (
            FIT.replace("copy.deepcopy(model.state_dict())", "model.state_dict()"),
            "kept without a copy",
        ),
        "flat copy": (
            FIT.replace("copy.deepcopy(model.state_dict())", "model.state_dict().copy()"),
            "a copy of the dict alone",
        ),
        "not loaded": (
            FIT.replace("    model.load_state_dict(kept)\n", ""),
            "Nobody has loaded what was kept",
        ),
    },
    4: {
        "all choose": (REPORTS.replace("[:, :n]", ""), "images that shall not choose"),
        "others choose": (
            REPORTS.replace("[:, :n]", "[:, n:]"),
            "take part in the choice",
        ),
        "index shifted": (
            REPORTS.replace("correct[epoch]", "correct[epoch - 1]"),
            "the epoch before the best one",
        ),
        "over all": (
            REPORTS.replace("row[n:]", "row"),
            "the second report is over all images",
        ),
        "last of the best": (
            REPORTS.replace("argmax()", "flip(0).argmax()").replace(
                "correct[epoch]", "correct[len(correct) - 1 - epoch]"
            ),
            "the last of several best epochs",
        ),
    },
    5: {
        "from 0": (EFFECTS.replace("1 + torch", "torch"), "epochs count from 0"),
        "natural logarithm": (
            EFFECTS.replace("half.log2() - full.log2()", "half.log() - full.log()"),
            "the logarithm is the natural one",
        ),
        "other way round": (
            EFFECTS.replace("half.log2() - full.log2()", "full.log2() - half.log2()"),
            "you subtract the other way round",
        ),
        "training loss": (
            EFFECTS.replace('[name, "val_loss"]', '[name, "loss"]'),
            "you take the training loss",
        ),
        "against nothing": (
            EFFECTS.replace('"less"', '"more"'),
            "the 1 is not subtracted",
        ),
    },
}
