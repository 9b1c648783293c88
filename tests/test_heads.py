"""Every kind of head on easy made-up columns: what it finds, how sure it is, and that it survives being stored."""

import numpy as np
import pytest

from models.classifiers import KINDS, Mlp
from models.heads import Head, calibrate, fit_head

TWO_CLASS = [kind for kind in KINDS if kind != "oneclass"]


def columns(n: int, seed: int, shift: float = 1.5) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """x (n, 12) with two telling columns (0 up, 1 down for fakes), y (n,), groups of one real and one fake."""
    rng = np.random.default_rng(seed)
    y = np.tile([0, 1], n // 2)
    x = rng.normal(size=(n, 12))
    x[:, 0] += shift * y
    x[:, 1] -= shift * y
    return (
        (x * 10 ** np.linspace(-3, 3, 12)).astype(np.float32),
        y,
        [f"g{row // 2}" for row in range(n)],
    )


X, Y, GROUPS = columns(240, 0)
X_VAL, Y_VAL, _ = columns(80, 1)
X_NEW, Y_NEW, _ = columns(400, 2)
DOWN = np.where(np.arange(12) == 1, -1.0, 1.0)


@pytest.fixture(scope="module", autouse=True)
def _fewer_choices():
    """Selection is the same for all kinds, and the MLP's fits are slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Mlp, "choices", Mlp.choices[1:2])
        yield


@pytest.fixture(scope="module", params=KINDS)
def head(request, _fewer_choices):
    return fit_head(request.param, X, Y, GROUPS, X_VAL, Y_VAL, seed=3, direction=DOWN)


def test_tells_faces_it_never_saw(head):
    p = head.p_fake(X_NEW)
    assert p.shape == (400,) and ((p > 0) & (p < 1)).all()
    better = (p[Y_NEW == 1][:, None] > p[Y_NEW == 0][None]).mean()
    assert better > (0.6 if head.kind == "oneclass" else 0.85)


def test_probabilities_are_calibrated(head):
    p = head.p_fake(X_NEW)
    if head.kind == "oneclass":  # the share of real faces that are less unusual
        assert np.median(p[Y_NEW == 0]) == pytest.approx(0.5, abs=0.15)
        assert (p[Y_NEW == 0] > 0.9).mean() == pytest.approx(0.1, abs=0.09)
    else:
        assert abs(p.mean() - 0.5) < 0.05
        sure = p > 0.8
        assert Y_NEW[sure].mean() == pytest.approx(p[sure].mean(), abs=0.1)


def test_a_stored_head_gives_the_same_bits(head):
    info = {"head": head.kind, "calibration": {"a": head.a, "b": head.b}}
    state = {name: np.array(value) for name, value in head.state().items()}
    assert all(name.startswith("head.") for name in state)
    again = Head.from_state(info, {**state, "expectations.x": np.zeros(1)})
    assert np.array_equal(again.p_fake(X_NEW), head.p_fake(X_NEW))
    assert np.array_equal(*(each.contributions(X_NEW[:3], X.mean(0))[0] for each in (again, head)))


def test_the_same_seed_gives_the_same_head(head):
    again = fit_head(head.kind, X, Y, GROUPS, X_VAL, Y_VAL, seed=3, direction=DOWN)
    assert np.array_equal(again.p_fake(X_NEW), head.p_fake(X_NEW))


def test_missing_values_stand_at_the_median_of_real_faces(head):
    holed, filled = X_NEW[:20].copy(), X_NEW[:20].copy()
    holed[:, 3], filled[:, 3] = np.nan, np.median(X[Y == 0, 3])
    assert np.allclose(head.p_fake(holed), head.p_fake(filled))
    assert np.isfinite(head.p_fake(np.full((1, 12), np.nan))).all()


def test_distance_is_about_one_on_faces_like_those_of_training(head):
    assert head.distance(X_NEW).mean() == pytest.approx(1, abs=0.15)
    odd = X_NEW[:1] * 0 + head.mean + 3 * head.scale
    assert head.distance(odd)[0] == pytest.approx(3, rel=1e-3) and head.distance(
        X_NEW[:1] * np.nan
    ).shape == (1,)


def test_contributions_sum_to_the_logit(head):
    baseline = np.median(X[Y == 0], axis=0)
    rows = X_NEW[:6].copy()
    rows[0, 5] = np.nan
    parts, rest = head.contributions(rows, baseline)
    assert parts.shape == (6, 12) and rest.shape == (6,) and parts[0, 5] == 0
    p = head.p_fake(rows)
    assert np.allclose(parts.sum(1) + rest, np.log(p / (1 - p)), atol=1e-6)
    of_baseline = head.a * head.logit(baseline[None])[0] + head.b
    if head.kind == "xgboost":  # beside the mean over training faces, whatever the face
        assert np.ptp(rest[1:]) < 1e-4
    else:
        assert np.allclose(rest[1:], of_baseline, atol=1e-4)
        assert np.allclose(head.contributions(np.tile(baseline, (2, 1)), baseline)[0], 0, atol=1e-6)
    odd = baseline.copy()  # a very fake value of a telling column speaks for fake
    odd[0] += 3e-3
    assert head.contributions(odd[None], baseline)[0][0].argmax() == 0


def test_integrated_gradients_are_the_integral_of_the_gradient():
    rng = np.random.default_rng(0)
    net = Mlp(rng.normal(size=(5, 9)), rng.normal(size=9), rng.normal(size=9), np.float64(0.3))
    z, base = rng.normal(size=(4, 5)), rng.normal(size=5)
    steps = (np.arange(20_000) + 0.5) / 20_000
    for row, part in zip(z, net.parts(z, base), strict=True):
        way = base + steps[:, None] * (row - base)
        slope = ((way @ net.w0 + net.b0 > 0) * net.w1) @ net.w0.T
        assert np.allclose(part, (row - base) * slope.mean(0), atol=1e-3)


def test_no_column_can_decide_alone_by_being_absurd(head):
    absurd = np.repeat(X_NEW[:1], 2, axis=0)
    absurd[0, 4], absurd[1, 4] = 1e6, 1e9
    assert head.logit(absurd)[0] == head.logit(absurd)[1]


def test_other_numbers_of_columns_are_refused(head):
    with pytest.raises(ValueError, match=r"takes \(N, 12\)"):
        head.logit(X_NEW[:, :11])


@pytest.mark.parametrize("kind", KINDS)
def test_the_forgery_weight_is_added_to_the_trained_score(kind):
    """A column of noise has no trained weight; a forgery weight adds so many deviations of the score."""
    weight = np.where(np.arange(12) == 7, 0.5, 0.0)
    plain = fit_head(kind, X, Y, GROUPS, X_VAL, Y_VAL, seed=3, direction=DOWN)
    head = fit_head(kind, X, Y, GROUPS, X_VAL, Y_VAL, seed=3, direction=DOWN, forgery_weight=weight)
    if kind == "oneclass":
        assert not head.forgery_weight.any() and (head.a, head.b) == (plain.a, plain.b)
        return
    assert np.flatnonzero(head.forgery_weight).tolist() == [7] and head.report == plain.report
    added = head.logit(X_VAL) - plain.logit(X_VAL)
    reals = Y_VAL == 0
    assert added[reals].std() == pytest.approx(0.5 * plain.logit(X_VAL[reals]).std(), rel=1e-4)
    assert np.corrcoef(added, X_VAL[:, 7])[0, 1] > 0.999
    moved = X_NEW[:1].copy()
    moved[0, 7] = head.mean[7] + 2 * head.scale[7]
    base = np.where(np.arange(12) == 7, head.mean, moved[0])
    at = [fit.contributions(moved, base)[0][0, 7] / fit.a for fit in (head, plain)]
    assert at[0] - at[1] == pytest.approx(2 * head.forgery_weight[7], rel=1e-3)
    for fit in (head, plain):  # with the weight, not without
        assert (fit.a, fit.b) == pytest.approx(calibrate(fit.logit(X_VAL), Y_VAL), rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_without_validation_faces_training_groups_are_held_out(kind):
    head = fit_head(kind, X, Y, GROUPS, X_VAL[:6], Y_VAL[:6], seed=3, direction=DOWN)
    assert head.report["held_out"] == "5 folds of training groups"
    assert head.report["held_out_faces"] == (120 if kind == "oneclass" else 240)
    p = head.p_fake(X_NEW)
    assert p[Y_NEW == 1].mean() > p[Y_NEW == 0].mean() + 0.1


def test_choices_are_made_on_held_out_groups():
    """Columns that identify the group predict nothing on held-out groups."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(40), 6)
    y = rng.integers(0, 2, 40)[group]
    x = np.eye(40)[group] + 0.01 * rng.normal(size=(240, 40))
    head = fit_head("logreg", x, y, [f"g{g}" for g in group], x[:0], y[:0])
    assert np.abs(head.p_fake(x) - 0.5).max() < 0.35


def test_oneclass_never_looks_at_fakes():
    with_fakes = fit_head("oneclass", X, Y, GROUPS, X_VAL, Y_VAL)
    real, real_val = Y == 0, Y_VAL == 0
    without = fit_head(
        "oneclass", X[real], Y[real], np.array(GROUPS)[real], X_VAL[real_val], Y_VAL[real_val]
    )  # fmt: skip
    assert np.array_equal(with_fakes.p_fake(X_NEW), without.p_fake(X_NEW))


def test_oneclass_turns_columns_by_their_direction():
    """Column 1 falls for fakes: taken the wrong way round it cancels column 0."""
    better = []
    for direction in (DOWN, np.ones(12)):
        p = fit_head("oneclass", X, Y, GROUPS, X_VAL, Y_VAL, direction=direction).p_fake(X_NEW)
        better.append((p[Y_NEW == 1][:, None] > p[Y_NEW == 0][None]).mean())
    assert better[0] > 0.6 > better[1]


def test_boosted_trees_keep_those_up_to_the_best_round_only():
    trees = fit_head("xgboost", X, Y, GROUPS, X_VAL, Y_VAL)
    assert trees.model._booster.num_boosted_rounds() == trees.report["rounds"] < 800


def test_platt_calibration_by_hand():
    """With two distinct scores, p_fake at each is the mean of Platt's smoothed targets there."""
    y = np.array([0] * 8 + [1] + [0] * 2 + [1] * 3)  # 10 reals with target 1/12, 4 fakes with 10/12
    score = np.repeat([-2.0, 6.0], [9, 5])
    # Each real face weighs 1 / 10, each fake 1 / 4, so that it is for as many fakes as real faces.
    p_low = (8 / 12 / 10 + 10 / 12 / 4) / (8 / 10 + 1 / 4)
    p_high = (2 / 12 / 10 + 3 * 10 / 12 / 4) / (2 / 10 + 3 / 4)
    for scale, shift in ((1, 0), (0.01, 0), (100, -40)):  # whatever the units of the score
        a, b = calibrate(scale * score + shift, y)
        p = 1 / (1 + np.exp(-a * (scale * score[[0, -1]] + shift) - b))
        assert p == pytest.approx([p_low, p_high], abs=1e-3)


def test_calibration_never_turns_a_head_around():
    head = fit_head("logreg", X, Y, GROUPS, X_VAL, 1 - Y_VAL)
    assert head.a > 0
    assert np.abs(head.p_fake(X_NEW) - 0.5).max() < 0.3


@pytest.mark.parametrize("kind", TWO_CLASS)
def test_one_class_only_is_refused(kind):
    with pytest.raises(ValueError, match="no fake face"):
        fit_head(kind, X[Y == 0], Y[Y == 0], np.array(GROUPS)[Y == 0], X_VAL, Y_VAL)


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(
        ValueError, match="unknown head 'svm'; the heads are logreg, mlp, xgboost, oneclass"
    ):
        fit_head("svm", X, Y, GROUPS, X_VAL, Y_VAL)
    with pytest.raises(ValueError, match="no real face"):
        fit_head("oneclass", X[Y == 1], Y[Y == 1], np.array(GROUPS)[Y == 1], X_VAL, Y_VAL)
    with pytest.raises(ValueError, match="at least 2 groups"):
        fit_head("logreg", X, Y, ["g"] * 240, X[:0], Y[:0])
    empty = X.copy()
    empty[Y == 0, 2] = np.nan
    with pytest.raises(ValueError, match="1 columns have no value"):
        fit_head("logreg", empty, Y, GROUPS, X_VAL, Y_VAL)


def test_arrays_of_another_kind_are_refused(head):
    info = {"head": "logreg" if head.kind == "mlp" else "mlp", "calibration": {"a": 1.0, "b": 0.0}}
    with pytest.raises(ValueError, match="not those of a"):
        Head.from_state(info, head.state())
    with pytest.raises(ValueError, match="unknown head"):
        Head.from_state({**info, "head": "svm"}, head.state())


@pytest.mark.parametrize("kind", TWO_CLASS)
@pytest.mark.parametrize("rare", [0, 1])
def test_one_face_of_a_label_among_fifty_is_learned_from(kind, rare):
    x, y, groups = columns(1200, 4)
    kept = np.flatnonzero((y != rare) | (np.arange(len(y)) % 100 == rare))
    assert (y[kept] == rare).sum() == 12
    fitted = fit_head(kind, x[kept], y[kept], [groups[i] for i in kept], X_VAL, Y_VAL)
    p = fitted.p_fake(X_NEW)
    assert (p[Y_NEW == 1][:, None] > p[Y_NEW == 0][None]).mean() > 0.75
