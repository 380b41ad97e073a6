"""The forms of Table 7, written out again by hand."""

import numpy as np
import pytest

from vvlm_ray.errors import UserError
from vvlm_ray.scaling.forms import FORM_NAMES, make_form

N, T, V, D = 2.8, 8.0, 49.0, 0.5


def by_name(form, seed=0):
    rng = np.random.default_rng(seed)
    coefficients, exponents = rng.uniform(0.5, 5, len(form.coefficients)), rng.uniform(-1, 1, len(form.exponents))
    return coefficients, exponents, dict(zip(form.param_names, np.r_[coefficients, exponents], strict=True))


def by_hand(name, p):
    x = {"N": N, "T": T, "V": V}
    if name == "mult":
        return p["alpha"] * N ** -p["a_N"] * T ** -p["a_T"] * V ** -p["a_V"] * D ** -p["d"] + p["eps"]
    value = sum(p[f"alpha_{k}"] * x[k] ** -p[f"a_{k}"] for k in x) + p["eps"]
    if name != "add":
        value += sum(p[f"beta_{k}"] * x[k] ** p[f"b_{k}"] for k in x) * D ** -p["d"]
    if name != "add-interact-s":
        value += p["xi"] * D ** -p["d"]
    return value


@pytest.mark.parametrize(("name", "count"), list(zip(FORM_NAMES, (6, 9, 14, 15), strict=True)))
def test_values_and_parameter_counts_of_table_7(name, count):
    form = make_form(name, ("N", "T", "V"))
    coefficients, exponents, params = by_name(form)
    assert form.num_params == count
    found = form.predict(np.log(coefficients)[None], exponents[None], {"N": [N], "T": [T], "V": [V]}, D)
    assert found[0, 0] == pytest.approx(by_hand(name, params), rel=1e-12)


@pytest.mark.parametrize("name", FORM_NAMES)
def test_log_f_is_a_log_sum_exp_of_affine_functions(name):
    form = make_form(name, ("N", "T", "V"))
    coefficients, exponents, params = by_name(form, 1)
    theta = np.r_[np.log(coefficients), exponents]
    affine = form.design(np.array([[N], [T], [V], [D]])) @ theta
    assert np.exp(affine).sum() == pytest.approx(by_hand(name, params), rel=1e-12)


def test_add_without_data_size_is_chinchilla():
    form = make_form("add", ("N", "D"), data_size=False)
    found = form.predict(np.log([[406.4, 410.7, 1.69]]), np.array([[0.34, 0.28]]), {"N": [70e9], "D": [1.4e12]})
    assert found[0, 0] == pytest.approx(1.69 + 406.4 * 70e9**-0.34 + 410.7 * 1.4e12**-0.28)


def test_interactions_drop_out_without_a_data_size():
    assert make_form("add-interact", ("N", "T"), False).param_names == make_form("add", ("N", "T"), False).param_names


def test_a_coefficient_of_zero_is_no_term():
    form = make_form("add", ("N",), data_size=False)
    found = form.predict(np.array([[-np.inf, np.log(3.0)]]), np.array([[40.0]]), {"N": [1e9]})
    assert found[0, 0] == pytest.approx(3.0)


def test_unknown_form_is_refused():
    with pytest.raises(UserError, match="add-interact-s"):
        make_form("power", ("N",))
