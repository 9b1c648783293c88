"""Columns, their names and groups, on made-up outputs."""

import numpy as np
import pytest

from features import measures
from features.columns import (
    FAMILIES,
    FeatureTable,
    directions,
    forgery_logit_columns,
    groups_of,
    predictable,
    raw_features,
    select,
)
from features.expectations import expected_names
from features.regions import PAIRS, REGIONS
from tests.synthetic import OUTPUTS, predictions

LABELS = np.zeros(6, dtype=int)


@pytest.fixture
def arrays():
    return predictions(np.arange(6), LABELS)


def test_every_output_is_compared_in_every_pair_by_its_kind(arrays):
    table = raw_features(arrays, OUTPUTS)
    assert (
        table.values.shape == (6, len(PAIRS) * (3 + 1 + 1 + 1)) and table.values.dtype == np.float32
    )
    for name in (
        "toy.age/kl/full~lower",
        "toy.age/kl/lower~full",
        "toy.age/js/inner~outer",
        "toy.identity/cos/upper~lower",
        "toy.age_years/diff/left~right",
        "toy.moves/l1/middle~lower",
    ):
        assert name in table.names


def test_columns_hold_what_their_names_say(arrays):
    table = raw_features(arrays, OUTPUTS)
    column = dict(zip(table.names, table.values.T, strict=True))
    upper, lower = REGIONS.index("upper"), REGIONS.index("lower")
    age, moves = arrays["toy.age"].astype(float), arrays["toy.moves"].astype(float)
    forth = measures.kl(age[:, upper], age[:, lower])
    assert np.allclose(column["toy.age/kl/upper~lower"], forth, rtol=1e-5)
    assert not np.allclose(column["toy.age/kl/lower~upper"], forth, rtol=1e-2)
    years = arrays["toy.age_years"][:, :, 0].astype(float)
    assert np.allclose(
        column["toy.age_years/diff/upper~lower"], abs(years[:, upper] - years[:, lower]), rtol=1e-5
    )
    assert np.allclose(
        column["toy.moves/l1/upper~lower"],
        abs(moves[:, upper] - moves[:, lower]).mean(1),
        rtol=1e-5,
    )


def test_the_forgery_logit_is_used_as_it_is_and_traces_are_not_predicted(arrays):
    faces = {
        **arrays,
        "traces.altered": np.arange(6 * len(REGIONS), dtype=np.float16).reshape(6, -1, 1),
    }
    outputs = {
        **OUTPUTS,
        "traces.altered": {"kind": "forgery_logit", "size": 1, "names": ["logit"]},
    }
    outputs["traces.source"] = OUTPUTS["toy.identity"]
    faces["traces.source"] = arrays["toy.identity"]
    table = raw_features(faces, outputs)
    column = dict(zip(table.names, table.values.T, strict=True))
    levels = [name for name in table.names if "altered" in name]
    assert levels == [f"traces.altered/level/{region}" for region in REGIONS]
    assert (column["traces.altered/level/inner"] == np.arange(6) * 8 + REGIONS.index("inner")).all()
    assert (
        groups_of("traces.altered/level/inner") >= {"raw", "traces", "level"}
        and (directions(levels) == 1).all()
    )
    assert list(predictable(outputs)) == list(OUTPUTS) and not any(
        "traces" in name for name in expected_names(outputs)
    )


def test_a_swapped_region_changes_its_own_columns_only(arrays):
    before = raw_features(arrays, OUTPUTS)
    lower = REGIONS.index("lower")
    swapped = {name: value.copy() for name, value in arrays.items()}
    for value in swapped.values():
        value[:, lower] = np.roll(value[:, lower], 1, axis=0)
    after = raw_features(swapped, OUTPUTS)
    changed = {
        name
        for name, a, b in zip(before.names, before.values.T, after.values.T, strict=True)
        if (a != b).any()
    }
    assert changed == {name for name in before.names if "lower" in name.split("/")[2].split("~")}


def test_identical_regions_agree(arrays):
    same = {name: np.repeat(value[:, :1], len(REGIONS), axis=1) for name, value in arrays.items()}
    table = raw_features(same, OUTPUTS)
    for name, column in zip(table.names, table.values.T, strict=True):
        assert np.allclose(column, 1 if "/cos/" in name else 0, atol=1e-6), name


def test_missing_and_infinite_outputs_are_nan(arrays):
    arrays["toy.age"][2, REGIONS.index("upper"), 1] = np.nan
    arrays["toy.age_years"][3, REGIONS.index("full")] = np.inf
    table = raw_features(arrays, OUTPUTS)
    gone = {
        (row, table.names[column])
        for row, column in zip(*np.nonzero(np.isnan(table.values)), strict=True)
    }
    assert {row for row, _ in gone} == {2, 3}
    assert all("upper" in name and "toy.age/" in name for row, name in gone if row == 2)
    assert {name for row, name in gone if row == 3} == {
        f"toy.age_years/diff/{a}~{b}" for a, b in PAIRS if a == "full"
    }


def test_no_faces_is_a_table_without_rows(arrays):
    empty = {name: value[:0] for name, value in arrays.items()}
    assert raw_features(empty, OUTPUTS).values.shape == (0, len(PAIRS) * 6)


def test_undeclared_outputs_are_refused(arrays):
    with pytest.raises(ValueError, match=r"toy\.age has shape"):
        raw_features({**arrays, "toy.age": arrays["toy.age"][:, :3]}, OUTPUTS)
    with pytest.raises(ValueError, match="missing: toy.moves"):
        raw_features(
            {name: value for name, value in arrays.items() if name != "toy.moves"}, OUTPUTS
        )
    with pytest.raises(ValueError, match="unknown kind 'taste'"):
        raw_features(arrays, {"toy.age": {**OUTPUTS["toy.age"], "kind": "taste"}})


def test_groups_end_at_dots_and_slashes():
    assert groups_of("lite.age/js/full~lower") == {
        "raw", "attributes", "js", "lite", "lite.age", "lite.age/js", "lite.age/js/full~lower"
    }  # fmt: skip
    assert {"expected", "expected_cos"} <= groups_of("lite.identity/expected_cos/upper>lower")
    assert "lite.age" not in groups_of("lite.age_years/diff/full~lower")
    assert {"raw", "contradiction", "expressions", "pyfeat.au"} <= groups_of(
        "pyfeat.au/AU06-AU12/full"
    )


def test_every_output_of_every_expert_belongs_to_one_family():
    """What `evaluate.py --ablate` leaves out and in."""
    names = {
        "fairface": ("age", "gender", "race"),
        "arcface": ("identity",),
        "facenet": ("identity",),
    }
    names |= {"clip": ("embedding", "made"), "pyfeat": ("au", "emotion", "affect")}
    names["lite"] = (
        "identity",
        "age",
        "age_years",
        "gender",
        "race",
        "expression",
        "blendshapes",
        "appearance",
    )
    names["traces"] = ("source", "altered")
    for expert, outputs in names.items():
        for output in outputs:
            assert len(groups_of(f"{expert}.{output}/js/full~lower") & set(FAMILIES)) == 1, (
                expert,
                output,
            )


def test_only_cosines_grow_with_agreement():
    names = [
        "a.x/js/p~q",
        "a.i/cos/p~q",
        "a.i/expected/p>q",
        "a.i/expected_cos/p>q",
        "a.y/diff/p~q",
    ]
    assert directions(names).tolist() == [1, -1, 1, -1, 1]


def test_select_drops_and_keeps_groups_in_order():
    names = ["a.x/js/p~q", "a.x_y/diff/p~q", "a.x/expected/p>q", "b.z/cos/p~q"]
    assert select(names, drop=["a.x"]) == ["a.x_y/diff/p~q", "b.z/cos/p~q"]
    assert select(names, only=["a"], drop=["expected"]) == names[:2]
    assert select(names, only=["b.z/cos/p~q", "js"]) == [names[0], names[3]]
    assert select(names) == names


def test_select_refuses_unknown_groups_and_empty_results():
    names = ["a.x/js/p~q", "a.y/js/p~q"]
    with pytest.raises(
        ValueError, match="no feature belongs to clip; groups are a, a.x, a.y, js, raw"
    ):
        select(names, drop=["clip"])
    with pytest.raises(ValueError, match="no feature is left"):
        select(names, drop=["a"])


def test_tables_are_ordered_by_name_and_say_what_is_missing():
    table = FeatureTable(["a", "b", "c"], np.arange(6.0).reshape(2, 3))
    assert np.array_equal(table.ordered(["c", "a"]).values, [[2, 0], [5, 3]])
    with pytest.raises(ValueError, match=r"1 of 2 features are not in this table \(d\)"):
        table.ordered(["a", "d"])
    with pytest.raises(ValueError, match="2 names for values of shape"):
        FeatureTable(["a", "b"], np.zeros((2, 3)))
    with pytest.raises(ValueError, match="repeat"):
        FeatureTable(["a", "a"], np.zeros((2, 2)))


def test_forgery_logit_columns():
    names = [
        "a.odd/level/full",
        "a.odd/level/inner",
        "b.age_years/level/full",
        "a.odd/cos/full~inner",
    ]
    outputs = {"a.odd": {"kind": "forgery_logit"}, "b.age_years": {"kind": "scalar"}}
    assert forgery_logit_columns(names, outputs).tolist() == [True, False, False, False]
    names += ["clip.made/level/inner", "clip.made/level/full"]
    outputs["clip.made"] = {"kind": "forgery_logit"}
    found = forgery_logit_columns(names, outputs)
    assert found.tolist() == [True, False, False, False, False, True], (
        "of every expert that has one"
    )
