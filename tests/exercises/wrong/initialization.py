"""Typical wrong answers to the exercises on initialization."""

XAVIER = """
def xavier(weight):
    area = math.prod(weight.shape[2:])
    fan_in, fan_out = weight.shape[1] * area, weight.shape[0] * area
    std = math.sqrt(2 / (fan_in + fan_out))
    return std, math.sqrt(3) * std
"""
GAIN = """
def gain(f):
    z = torch.randn(1_000_000, generator=generator(3))
    return (1 / f(z).square().mean().sqrt()).item()
"""
PREDICTION = (
    'prediction = {"output 0, one step": "stays", "output 0, two steps": "moves", '
    '"hidden 0, tanh": "moves", "hidden 0, ReLU": "stays", "both 0, sigmoid": "moves", '
    '"hidden constant": "differ"}'
)
BUILD = """
def build(sizes, generator):
    parts = []
    for m, n in pairwise(sizes):
        layer = nn.Linear(m, n)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(layer.bias)
        parts += [layer, nn.ReLU()]
    return nn.Sequential(*parts[:-1])
"""
EFFECTS = """
def effects(seeds, depth):
    result = study(
        {
            "He": {"model": lambda g: he(g, depth)},
            "default": {"model": lambda g: default(g, depth)},
        },
        split=standardized_digits, seeds=seeds, epochs=3, every=3, batch_size=32, lr=0.3,
        record=("val_accuracy",),
    )
    return 100 * result.difference("He", "default", "val_accuracy")

found = {depth: effects(seeds(10), depth) for depth in (1, 4)}
verdict = {1: "same", 4: "more", "4 minus 1": "more"}
"""
LOOP = """
from lib.train import accuracy, train

def effects(seeds, depth):
    return torch.tensor([100 * (run(he, s, depth) - run(default, s, depth)) for s in seeds])

def run(start, seed, depth):
    s, g = standardized_digits(seed), generator(seed)
    model = start(g, depth)
    sgd = torch.optim.SGD(model.parameters(), lr=0.3)
    train(model, s.X_train, s.y_train, sgd, epochs=3, batch_size=32, generator=g)
    return accuracy(model, s.X_val, s.y_val)
""" + EFFECTS[EFFECTS.index("\nfound") :]

WRONG = {
    1: {
        "as printed": (
            XAVIER.replace("std = math.sqrt(2", "std = math.sqrt(math.sqrt(2").replace(
                "fan_out))", "fan_out)))"
            ),
            "the printed formula is taken at its word",
        ),
        "variance returned": (
            XAVIER.replace("return std,", "return std**2,"),
            "the variance is returned as the standard deviation",
        ),
        "no kernel": (
            XAVIER.replace("math.prod(weight.shape[2:])", "1"),
            "the area of the kernel is left out",
        ),
        "kernel once": (
            XAVIER.replace("weight.shape[0] * area", "weight.shape[0]"),
            "for one of the two fans only",
        ),
        "He": (XAVIER.replace("fan_in + fan_out", "fan_in"), "which is He's rule"),
        "no root of 3": (
            XAVIER.replace("math.sqrt(3) * ", ""),
            "the bound is the standard deviation",
        ),
        "swapped": (
            XAVIER.replace("std, math.sqrt(3) * std", "math.sqrt(3) * std, std"),
            "the two numbers are swapped",
        ),
        "squares": (
            XAVIER.replace("return std, math.sqrt(3) * std", "return std**2, 3 * std**2"),
            "both are variances or squares",
        ),
        "outputs only": (
            XAVIER.replace("fan_in + fan_out", "fan_out"),
            "only the outputs count",
        ),
        "twice the area": (
            XAVIER.replace("weight.shape[1] * area", "weight.shape[1] * area**2"),
            "For a linear layer it is right",
        ),
        "root forgotten": (
            XAVIER.replace("math.sqrt(2 /", "(2 /"),
            "the variance is taken for the standard deviation",
        ),
        "one over n": (
            XAVIER.replace("math.sqrt(2 / (fan_in + fan_out))", "1 / (fan_in + fan_out)"),
            "Which is the variance, the fraction or its root",
        ),
    },
    2: {
        "variance": (
            GAIN.replace("f(z).square().mean().sqrt()", "f(z).std()"),
            "without its squared mean",
        ),
        "inverse": (GAIN.replace("1 / ", ""), "you return 1 / g"),
        "squared": (GAIN.replace(".sqrt()", ""), "you return g² and not g"),
        "uniform draws": (GAIN.replace("randn", "rand"), "which is uniform"),
        "slope": (
            "def gain(f):\n"
            "    z = torch.zeros((), requires_grad=True)\n"
            "    f(z).backward()\n"
            "    return 1 / z.grad.item()",
            "you divide by the slope at 0",
        ),
        "torch's table": (
            "def gain(f):\n    return nn.init.calculate_gain(f.__name__)",
            "torch's table says 1 for a sigmoid",
        ),
        "few draws": (
            "def gain(f):\n"
            "    z = torch.tensor([-1.5, 0.2])\n"
            "    return (1 / f(z).square().mean().sqrt()).item()",
            "One percent takes some 100,000 draws",
        ),
    },
    3: {
        "zeros stay": (
            PREDICTION.replace('two steps": "moves"', 'two steps": "stays"'),
            "The first step moved the output weight",
        ),
        "moves at once": (
            PREDICTION.replace('one step": "stays"', 'one step": "moves"'),
            "passes through the output weight, which is 0",
        ),
        "tanh like ReLU": (
            PREDICTION.replace('tanh": "moves"', 'tanh": "stays"'),
            "tanh has slope 1 at 0",
        ),
        "ReLU like tanh": (
            PREDICTION.replace('ReLU": "stays"', 'ReLU": "moves"'),
            "torch gives ReLU slope 0",
        ),
        "all gradients are 0": (
            PREDICTION.replace('sigmoid": "moves"', 'sigmoid": "stays"'),
            "The units put out 1/2",
        ),
        "symmetry": (
            PREDICTION.replace("differ", "equal"),
            "as different weights lead out of them",
        ),
        "a key misspelt": (
            PREDICTION.replace("0, ReLU", "0, relu"),
            "Copy the keys from the statement",
        ),
        "no dict": ('prediction = ["stays", "moves"]', "but got ['stays', 'moves']"),
        "another word": (
            PREDICTION.replace('two steps": "moves"', 'two steps": "moved"'),
            "Answers are the strings 'moves' and 'stays'",
        ),
        "the wrong pair of words": (
            PREDICTION.replace("differ", "moves"),
            "expected 'equal' or 'differ', but got 'moves'",
        ),
    },
    4: {
        "three layers": (
            BUILD.replace("parts[:-1]", "parts[:5]"),
            "the model holds the first three layers only",
        ),
        "global generator": (
            BUILD.replace(", generator=generator", ""),
            "draw from torch's global one",
        ),
        "biases left": (
            BUILD.replace("        nn.init.zeros_(layer.bias)\n", "").replace(
                "layer = nn.Linear(m, n)",
                "layer = models.mlp([m, n], generator=generator)[0]",
            ),
            "biases keep torch's default",
        ),
        "biases left, from torch's global generator": (
            BUILD.replace("        nn.init.zeros_(layer.bias)\n", ""),
            "the biases: expected zeros",
        ),
        "a seed of its own": (
            BUILD.replace("    parts = []", "    torch.manual_seed(0)\n    parts = []").replace(
                ", generator=generator", ""
            ),
            "The second network repeats the first",
        ),
        "a generator of its own": (
            BUILD.replace(
                "    parts = []",
                "    generator = torch.Generator().manual_seed(generator.initial_seed())\n"
                "    parts = []",
            ),
            "are the numbers drawn from the generator that is passed in",
        ),
        "Xavier": (
            BUILD.replace("kaiming", "xavier").replace(' nonlinearity="relu",', ""),
            "the start is Xavier's",
        ),
        "fan_out": (
            BUILD.replace('"relu"', '"relu", mode="fan_out"'),
            "fan_out takes the place of fan_in",
        ),
        "ReLU at the end": (
            BUILD.replace("parts[:-1]", "parts"),
            "a ReLU stands behind the last layer",
        ),
    },
    5: {
        "s squared": (
            "def branch_scale(num_blocks, growth):\n    return growth ** (1 / num_blocks) - 1",
            "you return s²",
        ),
        "sizes added": (
            "def branch_scale(num_blocks, growth):\n"
            "    return math.sqrt(growth) ** (1 / num_blocks) - 1",
            "sizes are added and not their squares",
        ),
        "added up": (
            "def branch_scale(num_blocks, growth):\n"
            "    return math.sqrt((growth - 1) / num_blocks)",
            "added up and not multiplied",
        ),
        "rule of thumb": (
            "def branch_scale(num_blocks, growth):\n    return num_blocks**-0.5",
            "growth is left out",
        ),
        "no root of L": (
            "def branch_scale(num_blocks, growth):\n"
            "    return math.sqrt(growth - 1) / num_blocks",
            "What does one block multiply",
        ),
    },
    6: {
        "fractions": (EFFECTS.replace("100 * result", "result"), "multiply by 100"),
        "other way round": (
            EFFECTS.replace('"He", "default", "val', '"default", "He", "val'),
            "you subtract the other way round",
        ),
        "unpaired": (
            EFFECTS.replace("seeds=seeds", "seeds=[7 + i for i in range(len(seeds))]"),
            "may depend on nothing but the seed",
        ),
        "a column too many": (
            EFFECTS.replace(
                'result.difference("He", "default", "val_accuracy")',
                '(result["He", "val_accuracy"] - result["default", "val_accuracy"])',
            ),
            "expected one number per seed, shape (10,), but got shape (10, 1)",
        ),
        "default ignores depth": (
            EFFECTS.replace("default(g, depth)", "default(g, 1)"),
            "default gets depth 1 always",
        ),
        "he ignores depth": (
            EFFECTS.replace("he(g, depth)", "he(g, 4)"),
            "he gets depth 4 always",
        ),
        "batches of 64": (EFFECTS.replace(" batch_size=32,", ""), "batches are of 64"),
        "test set": (EFFECTS.replace("val_accuracy", "test_accuracy"), "you read the test set"),
        "training set": (
            EFFECTS.replace("val_accuracy", "train_accuracy"),
            "you read the training set",
        ),
        "small rate": (EFFECTS.replace("lr=0.3", "lr=0.03"), "lr is 0.03"),
        "raw": (
            EFFECTS.replace(
                "standardized_digits", "lambda seed: data.digits(seed, num_train=200)"
            ),
            "the digits are not standardized",
        ),
        "all digits": (
            EFFECTS.replace("standardized_digits", "data.digits"),
            "the split is standardized_digits",
        ),
        "a loop": (LOOP, "A loop of your own"),
        "depth ignored": (
            EFFECTS.replace(
                "found = {depth: effects(seeds(10), depth)",
                "found = {depth: effects(seeds(10), 4)",
            ),
            "Is depth passed on",
        ),
        "interaction the other way round": (
            EFFECTS.replace('"4 minus 1": "more"', '"4 minus 1": "less"'),
            "the last one is depth 1 minus depth 4",
        ),
        "no interval": (
            EFFECTS.replace('1: "same"', '1: "more" if found[1].mean() > 0 else "less"'),
            "the sign of the mean and not at its interval",
        ),
    },
}
