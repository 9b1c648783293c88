"""Expectations on made-up outputs: what they detect, what they must not memorise."""

import numpy as np
import pytest

from features.expectations import DIRECTIONS, Expectations, cross_fit, expected_names
from features.regions import PAIRS, REGIONS
from tests.synthetic import OUTPUTS, predictions

PEOPLE = np.arange(600)
REAL = np.zeros(600, dtype=int)


@pytest.fixture(scope="module")
def reals():
    return predictions(PEOPLE, REAL)


@pytest.fixture(scope="module")
def fitted(reals):
    return Expectations.fit(reals, OUTPUTS, np.ones(600, dtype=bool))


def columns(table):
    return dict(zip(table.names, table.values.T, strict=True))


def test_both_directions_of_every_pair():
    assert set(DIRECTIONS) == set(PAIRS) | {(b, a) for a, b in PAIRS}


def test_column_names(fitted, reals):
    table = fitted.residuals(reals)
    assert table.names == expected_names(OUTPUTS) and table.values.dtype == np.float32
    assert (
        "toy.age/expected/upper>lower" in table.names
        and "toy.identity/expected_cos/lower>upper" in table.names
    )
    assert not any("toy.age/expected_cos" in name for name in table.names)


def test_residuals_of_unseen_reals_are_about_one(fitted):
    table = fitted.residuals(predictions(PEOPLE, REAL, seed=7))
    for name, column in columns(table).items():
        if "/expected/" in name:
            assert np.sqrt((column**2).mean()) == pytest.approx(1, abs=0.15), name


def test_a_swapped_mouth_has_larger_residuals(fitted):
    fake = columns(fitted.residuals(predictions(PEOPLE[:100], REAL[:100] + 1, seed=7)))
    real = columns(fitted.residuals(predictions(PEOPLE[:100], REAL[:100], seed=7)))
    for output in OUTPUTS:
        name = f"{output}/expected/upper>lower"
        assert np.median(fake[name]) > 1.25 * np.median(real[name]), name
        name = f"{output}/expected/left>right"  # neither was swapped
        assert np.allclose(fake[name], real[name]), name
    name = "toy.identity/expected_cos/upper>lower"
    assert np.median(fake[name]) < np.median(real[name]) - 0.3


def test_an_independent_region_predicts_the_mean(reals):
    """Where regions are independent, the residual is the distance from the mean real face."""
    rng = np.random.default_rng(0)
    blind = {name: rng.permuted(value, axis=0) for name, value in reals.items()}
    years = blind["toy.age_years"][:, REGIONS.index("lower"), 0].astype(np.float32)
    found = columns(Expectations.fit(blind, OUTPUTS, np.ones(600, dtype=bool)).residuals(blind))
    from_mean = np.abs(years - years.mean()) / years.std()
    assert np.corrcoef(found["toy.age_years/expected/upper>lower"], from_mean)[0, 1] > 0.9


def test_a_reloaded_fit_gives_the_same_bits(fitted, reals):
    state = fitted.state()
    assert all(value.dtype == np.float16 for value in state.values())
    again = Expectations.from_state(OUTPUTS, dict(sorted(state.items(), reverse=True)))
    assert again.residuals(reals).names == fitted.residuals(reals).names
    assert np.array_equal(again.residuals(reals).values, fitted.residuals(reals).values)


def test_a_state_of_other_outputs_is_refused(fitted, reals):
    others = {name.replace("toy", "big"): output for name, output in OUTPUTS.items()}
    with pytest.raises(ValueError, match="other outputs"):
        Expectations.from_state(others, fitted.state())
    with pytest.raises(ValueError, match="missing: toy.age"):
        fitted.residuals({name: value for name, value in reals.items() if name != "toy.age"})


def test_missing_outputs_are_nan_and_spoil_no_fit(reals):
    holed = {name: value.copy() for name, value in reals.items()}
    holed["toy.moves"][5, REGIONS.index("upper"), 2] = np.nan
    fitted = Expectations.fit(holed, OUTPUTS, np.ones(600, dtype=bool))
    table = fitted.residuals(holed)
    gone = [
        name for name, value in zip(table.names, table.values[5], strict=True) if np.isnan(value)
    ]
    assert gone and all("upper" in name for name in gone)
    assert not np.isnan(np.delete(table.values, 5, axis=0)).any()


def test_too_few_faces_are_refused(reals):
    with pytest.raises(ValueError, match="19 real faces"):
        Expectations.fit(reals, OUTPUTS, np.arange(600) < 19)


def test_cross_fitting_never_shows_a_face_its_own_group(reals):
    """A face must get the very residual of a fit in which its whole group is absent: change the
    group, nothing moves.
    """
    groups = [f"g{row // 3}" for row in range(600)]
    before, _ = cross_fit(reals, OUTPUTS, REAL == 0, groups)
    changed = {name: value.copy() for name, value in reals.items()}
    for value in changed.values():
        value[0:2] = value[150:152]  # two of the three faces of g0
    after, _ = cross_fit(changed, OUTPUTS, REAL == 0, groups)
    assert np.array_equal(before.values[2], after.values[2])
    assert (before.values[3:] != after.values[3:]).any()


def test_a_fake_is_cross_fitted_without_the_reals_of_its_group():
    people = np.repeat(np.arange(100), 2)
    label = np.tile([0, 1], 100)
    arrays = predictions(people, label)
    groups = [f"g{person}" for person in people]
    before, _ = cross_fit(arrays, OUTPUTS, label == 0, groups)
    changed = {name: value.copy() for name, value in arrays.items()}
    for value in changed.values():
        value[0] = value[100]  # the real face of g0; row 1 is its fake
    after, _ = cross_fit(changed, OUTPUTS, label == 0, groups)
    assert np.array_equal(before.values[1], after.values[1])
    assert not np.array_equal(before.values[0], after.values[0])


def test_cross_fitting_matters():
    """Residuals of the fitting faces themselves look smaller than those of a fit without them."""
    few = predictions(PEOPLE[:60], REAL[:60])
    honest, fitted = cross_fit(few, OUTPUTS, REAL[:60] == 0, [f"g{row}" for row in range(60)])
    flattered = fitted.residuals(few)
    lengths = [column for column, name in enumerate(honest.names) if "/expected/" in name]
    assert flattered.values[:, lengths].mean() < 0.97 * honest.values[:, lengths].mean()


def test_cross_fitting_needs_two_groups_of_reals(reals):
    with pytest.raises(ValueError, match=r"1 group\(s\)"):
        cross_fit(reals, OUTPUTS, REAL == 0, ["g"] * 600)


def test_two_groups_of_reals_are_two_folds_wherever_the_fakes_are(reals):
    real = np.arange(600) < 100
    groups = [f"real{row % 2}" if real[row] else f"fake{row}" for row in range(600)]
    for seed in range(4):
        table, _ = cross_fit(reals, OUTPUTS, real, groups, seed=seed)
        assert not np.isnan(table.values).any()


def test_a_missing_output_is_nan_in_its_own_columns_only():
    """In the prediction of the others it counts as the mean face's."""
    people = np.repeat(np.arange(60), 2)
    arrays = predictions(people, np.zeros(len(people), int))
    fitted = Expectations.fit(arrays, OUTPUTS, np.ones(len(people), bool))
    lost = {name: value.copy() for name, value in arrays.items()}
    lost["toy.identity"][3] = np.nan
    before, after = fitted.residuals(arrays), fitted.residuals(lost)
    mine = np.array([name.startswith("toy.identity/") for name in after.names])
    assert np.isnan(after.values[3, mine]).all() and np.isfinite(after.values[3, ~mine]).all()
    assert not np.array_equal(
        after.values[3, ~mine], before.values[3, ~mine]
    )  # it did help to expect the others
    others = np.arange(len(people)) != 3
    assert np.allclose(after.values[others], before.values[others], atol=1e-4)
