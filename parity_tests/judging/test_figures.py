"""Every further figure of an error, on arrays small enough to work out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lxmert_export.parity.figures import HISTOGRAM_EDGES, Choices, WorstInput, measure_figures

pytestmark = pytest.mark.quick

ONE = np.array([[1.0, 2.0], [4.0, -8.0]])


def test_relative_errors_take_nothing_as_smaller_than_the_floor() -> None:
    figures = measure_figures([np.array([[2.0, 0.0]])], [np.array([[2.5, 0.5]])], 1.0, "fp32", masks=None, chosen=False)
    assert figures.error_mean == 0.5
    assert figures.relative_max == 0.5  # of the zero: 0.5 over the floor of 1, not over 0
    assert figures.relative_mean == (0.25 + 0.5) / 2
    assert figures.choices is None


def test_cosine_is_one_of_a_multiple_and_none_of_nothing() -> None:
    assert measure_figures([ONE], [3 * ONE], 1.0, "fp32", masks=None, chosen=False).cosine == pytest.approx(1)
    assert measure_figures([ONE], [-ONE], 1.0, "fp32", masks=None, chosen=False).cosine == pytest.approx(-1)
    assert measure_figures([0 * ONE], [ONE], 1.0, "fp32", masks=None, chosen=False).cosine is None


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", np.float32), ("fp16", np.float16), ("fp64", np.float64)])
def test_ulps_are_steps_of_the_precision(precision: str, dtype: type[np.floating]) -> None:
    values = ONE.astype(dtype)
    away = np.nextafter(values, dtype(np.inf))
    figures = measure_figures([values], [away], 1.0, precision, masks=None, chosen=False)
    # Towards zero from -8 the step is that of the magnitudes below 8: half of 8's own.
    assert (figures.ulp_max, figures.ulp_median) == (1.0, 1.0)
    assert measure_figures([values], [away], 1.0, "int8", masks=None, chosen=False).ulp_max is None


def test_the_histogram_counts_every_value_once() -> None:
    errors = np.array([[0.0, 2.0**-13, 1.0, 3.0, 1e9]])
    figures = measure_figures([0 * errors], [errors], 1.0, "fp32", masks=None, chosen=False)
    assert sum(figures.histogram) == 5 and len(figures.histogram) == len(HISTOGRAM_EDGES) - 1
    assert figures.histogram[0] == 2 and figures.histogram[-1] == 1


def test_the_worst_inputs_come_first() -> None:
    got = np.array([[0.0, 0.0], [0.0, 2.0]])
    figures = measure_figures([np.zeros((2, 2))] * 2, [got, 2 * got], 1.0, "fp32", masks=None, chosen=False)
    assert figures.worst_inputs[:2] == (WorstInput(1, 1, np.sqrt(8)), WorstInput(0, 1, np.sqrt(2)))


def test_choices_tell_flips_from_near_ties() -> None:
    wanted = np.array([[5.0, 0.0, 0.0], [5.0, 4.99, 0.0], [5.0, 0.0, 0.0], [0.0, 5.0, 0.0]])
    got = np.array([[4.0, 0.0, 0.0], [4.9, 5.0, 0.0], [0.0, 5.0, 0.0], [9.0, 5.0, 0.0]])
    mask = np.array([1, 1, 1, 0])  # in the last row there is nothing to choose
    figures = measure_figures([wanted], [got], 0.01, "fp32", masks=[mask], chosen=True)
    assert figures.choices is not None
    assert (figures.choices.rows, figures.choices.agreed) == (3, 1)
    assert (figures.choices.tied_flips, figures.choices.flips) == (1, 1)
    assert figures.choices.top_k_overlap == 1.0  # of three entries all are among the five best
    same = measure_figures([wanted], [wanted], 0.01, "fp32", masks=None, chosen=True).choices
    assert same == Choices(4, 4, 0, 0, 1.0, 0.0)


def test_divergence_is_that_of_the_distributions() -> None:
    wanted, got = np.log(np.array([[0.5, 0.5]])), np.log(np.array([[0.25, 0.75]]))
    figures = measure_figures([wanted], [got + 3], 0.01, "fp32", masks=None, chosen=True)  # a shift changes no softmax
    assert figures.choices is not None
    assert figures.choices.divergence == pytest.approx(0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75))


def test_rows_flattened_by_a_golden_file_have_no_choice() -> None:
    assert measure_figures([ONE.reshape(-1)], [ONE.reshape(-1)], 0.1, "fp32", masks=None, chosen=True).choices is None
