"""The checks of exercises: what they let pass, and what they say."""

import doctest

import numpy as np
import pytest
import torch

from lib import checks
from lib.checks import WrongAnswer


def said(call) -> str:
    with pytest.raises(WrongAnswer) as raised:
        call()
    return str(raised.value)


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (1.5, 1.5),
        (2, 2.0),
        (torch.tensor(1.5), 1.5),
        (np.float64(1.5), torch.tensor(1.5)),
        (torch.ones(3), np.ones(3)),
        (1.0 + 1e-6, 1.0),
        ([1.0, torch.ones(2)], (1.0, torch.ones(2))),
        (torch.tensor([1.0, 2.0]), [1.0, 2.0]),
        ({"b": 2, "a": 1}, {"a": 1, "b": 2}),
        ("more", "more"),
        (True, True),
        (np.bool_(True), True),
        (float("nan"), float("nan")),
        (float("inf"), float("inf")),
        (torch.ones(2, requires_grad=True), torch.ones(2)),
        (None, None),
    ],
)
def test_right_answers_pass(got, expected):
    checks.equal("x", got, expected)


@pytest.mark.parametrize(
    ("got", "expected", "words"),
    [
        (1.5, 2.5, "x: expected 2.5, but got 1.5."),
        (None, 2.5, "x: expected 2.5, but got None (is a `return` missing?)."),
        ("1.5", 1.5, "x: expected 1.5, but got '1.5'."),
        (1.0, "more", "x: expected 'more', but got 1.0."),
        ("less", "more", "x: expected 'more', but got 'less'."),
        (False, True, "x: expected True, but got False."),
        (torch.ones(2, 1), torch.ones(2), "x: expected shape (2,), but got (2, 1)."),
        (torch.ones(2), 1.0, "x: expected shape (), but got (2,)."),
        (float("nan"), 1.0, "x: expected 1, but got nan."),
        ([1, 2, 3], [1, 2], "x: expected 2 values, but got 3."),
        ([1, 2.5], [1, 2], "x: at 1 expected 2, but got 2.5."),
        ({"a": 1}, {"b": 1}, "x: expected the keys ['b'], but got ['a']."),
        ({"a": 1}, {"a": 2}, "x: at 'a' expected 2, but got 1."),
        (3, [1, 2], "x: expected [1, 2], but got 3."),
        ("ab", ["a", "b"], "x: expected ['a', 'b'], but got 'ab'."),
        (1.0, None, "x: expected None, but got 1.0."),
    ],
)
def test_wrong_answers_are_said_in_words(got, expected, words):
    assert said(lambda: checks.equal("x", got, expected)) == words


def test_of_many_numbers_the_first_that_differs_is_shown():
    got = torch.zeros(3, 4)
    got[1, 2] = 5.0
    words = said(lambda: checks.equal("x", got, torch.zeros(3, 4)))
    assert words == "x: 1 of 12 numbers differ; at index (1, 2) expected 0, but got 5."
    words = said(lambda: checks.equal("x", torch.ones(9), torch.zeros(9)))
    assert words == "x: 9 of 9 numbers differ; at index 0 expected 0, but got 1."


def test_the_mistake_that_gives_this_answer_is_named_and_no_other():
    because = {"you add": 7.0, "you subtract": -1.0, "you do nothing": 12.0}
    words = said(lambda: checks.equal("x", -1.0, 12.0, because=because, usually="Multiply."))
    assert words.endswith("\nThat is what comes out if you subtract.")
    assert "Multiply" not in words
    words = said(lambda: checks.equal("x", 3.0, 12.0, because=because, usually="Multiply."))
    assert words.endswith("but got 3.\nMultiply.")


def test_a_mistake_that_makes_no_difference_is_not_named():
    """With rtol the wrong value may be near both; it then explains nothing."""
    words = said(lambda: checks.equal("x", 1.3, 1.0, because={"you round": 1.1}, rtol=0.15))
    assert "round" not in words
    checks.equal("x", 1.1, 1.0, because={"you round": 1.1}, rtol=0.15)


def test_tolerances():
    checks.equal("x", 1.05, 1.0, rtol=0.1)
    checks.equal("x", 0.05, 0.0, atol=0.1)
    assert said(lambda: checks.equal("x", 1.05, 1.0))
    assert said(lambda: checks.equal("x", 1e-3, 0.0))


def test_a_property():
    checks.holds("x", torch.tensor(True), expected="a", got="b")
    words = said(lambda: checks.holds("x", False, expected="ones", got=0.5, usually="Why."))
    assert words == "x: expected ones, but got 0.5.\nWhy."


def test_refused_input():
    def refuse():
        raise ValueError("no")

    def stub():
        raise NotImplementedError

    checks.raises("f(-1)", ValueError, refuse)
    words = said(lambda: checks.raises("f(-1)", ValueError, lambda: 3.0, usually="Look."))
    assert words == "f(-1): expected a ValueError, but got no error, and 3 as result.\nLook."
    words = said(lambda: checks.raises("f(-1)", TypeError, refuse))
    assert words == "f(-1): expected a TypeError, but got ValueError: no."
    with pytest.raises(NotImplementedError):
        checks.raises("f(-1)", Exception, stub)


def test_jupyter_shows_the_message_alone():
    assert WrongAnswer("x: no.")._render_traceback_() == ["WrongAnswer: x: no."]


def test_a_solved_exercise_is_said(capsys):
    checks.passed(3)
    assert capsys.readouterr().out == "Exercise 3: right.\n"


def test_the_example_in_the_docstring():
    assert doctest.testmod(checks).failed == 0
