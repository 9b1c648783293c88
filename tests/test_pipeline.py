"""The one place where features are put together."""

import numpy as np
import pytest

from features.pipeline import FeaturePipeline
from tests.synthetic import OUTPUTS, predictions

PEOPLE = np.repeat(np.arange(80), 2)
LABEL = np.tile([0, 1], 80)
GROUPS = [f"g{person}" for person in PEOPLE]


@pytest.fixture(scope="module")
def arrays():
    return predictions(PEOPLE, LABEL)


def test_fitted_and_transformed_columns_are_the_same_but_for_the_cross_fitting(arrays):
    table, pipeline = FeaturePipeline.fit(arrays, OUTPUTS, LABEL == 0, GROUPS)
    again = pipeline.transform(arrays)
    assert table.names == pipeline.names == again.names
    raw = [column for column, name in enumerate(table.names) if ">" not in name]
    assert np.array_equal(table.values[:, raw], again.values[:, raw])
    expected = [column for column, name in enumerate(table.names) if "/expected/" in name]
    real = LABEL == 0
    assert table.values[real][:, expected].mean() > again.values[real][:, expected].mean()


def test_a_reloaded_pipeline_gives_the_same_bits(arrays):
    _, pipeline = FeaturePipeline.fit(arrays, OUTPUTS, LABEL == 0, GROUPS, drop=["kl"])
    info = {"outputs": pipeline.outputs, "features": pipeline.names}
    again = FeaturePipeline.from_state(info, {**pipeline.state(), "head.coef": np.zeros(3)})
    assert np.array_equal(again.transform(arrays).values, pipeline.transform(arrays).values)
    assert not any("/kl/" in name for name in again.names)


def test_raw_columns_alone_need_no_expectations_and_hardly_any_faces(arrays):
    few = {name: value[:4] for name, value in arrays.items()}
    table, pipeline = FeaturePipeline.fit(few, OUTPUTS, LABEL[:4] == 0, GROUPS[:4], only=["raw"])
    assert pipeline.expectations is None and pipeline.state() == {} and len(table.values) == 4
    with pytest.raises(ValueError, match="real faces"):
        FeaturePipeline.fit(few, OUTPUTS, LABEL[:4] == 0, GROUPS[:4])


def test_names_that_cannot_be_made_are_refused(arrays):
    info = {
        "outputs": OUTPUTS,
        "features": ["toy.age/js/full~upper", "toy.age/expected/upper>lower"],
    }
    with pytest.raises(
        ValueError, match=r"1 of 2 features are not in this table \(toy\.age/expected/upper>lower\)"
    ):
        FeaturePipeline.from_state(info, {}).transform(arrays)
