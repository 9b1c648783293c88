"""Action units that contradict each other: known answers on faces made by hand."""

import numpy as np
import pytest

from features.action_units import BY_NAME, CONTRADICTIONS, LOWER, UPPER, contradictions, words
from features.columns import raw_features
from features.explain import sentence, topic
from features.pipeline import FeaturePipeline
from features.regions import REGIONS
from models.pyfeat import EMOTIONS, UNITS

OUTPUTS = {
    "pyfeat.au": {"kind": "vector", "size": len(UNITS), "names": list(UNITS)},
    "pyfeat.emotion": {"kind": "distribution", "size": len(EMOTIONS), "names": list(EMOTIONS)},
    "lite.blendshapes": {"kind": "vector", "size": 2, "names": ["jawOpen", "browInnerUp"]},
}


def face(units: dict[str, float] | None = None, emotion: str = "Neutral") -> dict[str, np.ndarray]:
    """One face, the same in every region. units: how active each is."""
    arrays = {
        name: np.zeros((1, len(REGIONS), output["size"]), np.float16)
        for name, output in OUTPUTS.items()
    }
    for unit, active in (units or {}).items():
        arrays["pyfeat.au"][..., UNITS.index(unit)] = active
    arrays["pyfeat.emotion"][..., EMOTIONS.index(emotion)] = 1
    return arrays


def columns(arrays: dict[str, np.ndarray]) -> dict[str, float]:
    return {
        name.removeprefix("pyfeat.au/"): float(value[0])
        for name, value in contradictions(arrays, OUTPUTS).items()
    }


def test_the_table_decides_how_many_columns_there_are():
    wanted = {f"{row.name}/full" for row in CONTRADICTIONS} | {
        f"{row.name}/upper~lower" for row in CONTRADICTIONS if row.upper_and_lower
    }
    assert set(columns(face())) == wanted and len(BY_NAME) == len(CONTRADICTIONS)
    names = raw_features(face(), OUTPUTS).names
    assert [name for name in names if "/AU06-AU12/" in name] == [
        f"pyfeat.au/AU06-AU12/{at}" for at in ("full", "upper~lower")
    ]


def test_every_unit_of_the_table_exists_and_lies_in_one_half():
    assert set(UPPER) | set(LOWER) == set(UNITS) and not set(UPPER) & set(LOWER)
    for row in CONTRADICTIONS:
        assert set(row.one + row.other) <= set(UNITS) | set(EMOTIONS), row
        assert row.source


def test_a_face_at_rest_contradicts_nothing():
    rest = columns(face())
    assert {name for name, value in rest.items() if value} == set()


@pytest.mark.parametrize(
    ("units", "column", "value"),
    [
        ({"AU12": 0.8}, "AU06-AU12/full", 0.8),  # the mouth smiles, the eyes do not
        ({"AU12": 0.75, "AU06": 0.75}, "AU06-AU12/full", 0.0),
        ({"AU15": 1.0, "AU01": 0.5}, "AU01+AU04-AU15/full", 0.75),
        ({"AU25": 1.0, "AU26": 1.0}, "AU01+AU02+AU05-AU25+AU26/full", 1.0),
        ({"AU09": 0.5}, "AU09-AU10/full", 0.5),
        (
            {"AU12": 1.0, "AU23": 0.5, "AU24": 0.5},
            "AU23+AU24&AU12/full",
            0.5,
        ),  # tense lips under a smile
        ({"AU12": 1.0, "AU06": 1.0}, "AU23+AU24&AU12/full", 0.0),  # an honest one
        ({"AU06": 1.0, "AU12": 0.5}, "AU06+AU12-Happy/full", 0.75),  # muscles without the look
    ],
)
def test_known_contradictions(units, column, value):
    assert columns(face(units))[column] == pytest.approx(value, abs=1e-3)


def test_the_look_without_its_muscles_and_with_them():
    assert columns(face(emotion="Happy"))["AU06+AU12-Happy/full"] == 1
    assert columns(face({"AU06": 1.0, "AU12": 1.0}, "Happy"))["AU06+AU12-Happy/full"] == 0


def test_a_swapped_mouth_raises_the_columns_of_the_lower_region_and_no_other():
    before, swapped = face(), face()
    swapped["pyfeat.au"][:, REGIONS.index("lower"), UNITS.index("AU12")] = 1
    first, second = columns(before), columns(swapped)
    changed = {name for name in first if first[name] != second[name]}
    assert changed == {"AU06-AU12/upper~lower", "upper-lower/upper~lower"}


def test_what_is_missing_is_missing_and_what_is_no_action_unit_is_left_alone():
    arrays = face({"AU12": 1.0})
    arrays["pyfeat.au"][:, :, UNITS.index("AU06")] = np.nan
    found = columns(arrays)
    assert np.isnan(found["AU06-AU12/full"]) and found["AU01+AU04-AU15/full"] == 0
    assert contradictions(arrays, {"lite.blendshapes": OUTPUTS["lite.blendshapes"]}) == {}
    units_alone = contradictions(arrays, {"pyfeat.au": OUTPUTS["pyfeat.au"]})
    assert units_alone and not any(emotion in name for name in units_alone for emotion in EMOTIONS)


def test_an_ablation_leaves_no_trace_of_what_it_leaves_out():
    """Muscles alone: nothing that needs the emotions; emotions dropped: the same."""
    arrays = {name: np.repeat(value, 4, axis=0) for name, value in face({"AU12": 1.0}).items()}
    for choice in ({"only": ["pyfeat.au"]}, {"drop": ["pyfeat.emotion", "lite", "expected"]}):
        choice = {"drop": ["expected"], **choice}
        _, pipeline = FeaturePipeline.fit(
            arrays, OUTPUTS, np.full(4, True), ["a", "b", "c", "d"], **choice
        )
        assert set(pipeline.outputs) == {"pyfeat.au"}
        assert not any(emotion in name for name in pipeline.names for emotion in EMOTIONS)
        assert "pyfeat.au/AU06-AU12/full" in pipeline.names


def test_sentences_say_which_muscles():
    text = sentence("pyfeat.au/AU06-AU12/full", 0.62, 0.02, 0.35)
    assert text == (
        "Whole face, cheeks raised (AU06) against lip corners pulled up (AU12): difference 0.62 "
        "(real faces 0.02 to 0.35; unusually different)"
    )
    text = sentence("pyfeat.au/AU06-AU12/upper~lower", 0.2, 0.02, 0.35)
    assert text.startswith(
        "Upper face, cheeks raised (AU06) against lip corners pulled up (AU12) in the lower face: difference 0.20"
    )
    for row in CONTRADICTIONS:
        assert all(words(row.name))
    assert (
        topic("pyfeat.au/AU06-AU12/full")
        != topic("pyfeat.au/AU09-AU10/full")
        != topic("pyfeat.au/l1/full~lower")
    )
