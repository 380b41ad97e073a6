"""How numbers and names are written."""

import pytest

from vvlm_ray.report import words
from vvlm_ray.report.figures.fits import symbol_of


@pytest.mark.parametrize(
    ("value", "text"),
    [(1, "1"), (196, "196"), (1200, "1,200"), (5999.9999999, "6,000"), (0.5, "0.5"), (98_368, "98.4k"),
     (999_999.9999, "1M"), (7.5e9, "7.5B"), (250_000, "250k"), (2e6, "2M")],
)  # fmt: skip
def test_counts(value, text):
    assert words.count(value) == text


def test_budgets_have_a_prefix_that_suits_them():
    assert [words.flops(value) for value in (2.4e6, 9.5e9, 30e12)] == ["2.4 MFLOPs", "9.5 GFLOPs", "30 TFLOPs"]


def test_signs():
    assert [words.signed(value) for value in (0.171, -0.22, -0.001)] == ["+0.17", "-0.22", "0.00"]


def test_configurations_are_read_aloud():
    x = {"lm_params": 7.5e9, "num_frames": 1.0, "tokens_per_frame": 16.0}
    assert words.configuration(x) == "an LM of 7.5B parameters, 1 frame and 16 tokens per frame"
    assert words.configuration(x, {7.5e9: "llama"}) == "llama (7.5B parameters), 1 frame and 16 tokens per frame"
    assert words.configuration({"depth": 4.0, "width": 512.0}) == "depth 4 and width 512"


def test_parameters_have_the_symbols_of_the_paper():
    assert symbol_of("alpha_lm_params") == r"$\alpha_N$"
    assert symbol_of("b_tokens_per_frame") == "$b_V$"
    assert symbol_of("eps") == r"$\varepsilon$"
    assert symbol_of("a_some_depth") == "$a$ some depth"
