import numpy as np
import pytest

from features.baselines import METADATA, PLAIN_REGIONS, metadata_features, plain_features
from features.regions import REGIONS


def test_sixteen_plain_columns_with_known_answers():
    agreeing = {
        "lite.identity": np.ones((3, len(REGIONS), 4)),
        "lite.appearance": np.ones((3, len(REGIONS), 5)),
    }
    for name, size in (("age", 9), ("gender", 2), ("race", 5), ("expression", 7)):
        agreeing[f"lite.{name}"] = np.full((3, len(REGIONS), size), 1 / size)
    table = plain_features(agreeing)
    assert table.values.shape == (3, 16)
    cosines = [name.split("/")[-2] == "cos" for name in table.names]
    assert np.allclose(table.values[:, cosines], 1) and np.allclose(
        table.values[:, np.logical_not(cosines)], 0, atol=1e-6
    )


def test_only_the_disagreeing_region_moves():
    arrays = {
        "lite.identity": np.ones((1, len(REGIONS), 4)),
        "lite.gender": np.full((1, len(REGIONS), 2), 0.5),
    }
    arrays["lite.identity"][0, REGIONS.index("lower")] = [1, 1, -1, -1]
    arrays["lite.gender"][0, REGIONS.index("upper")] = [1, 0]
    values = dict(zip(plain_features(arrays).names, plain_features(arrays).values[0], strict=True))
    for region in PLAIN_REGIONS:
        assert np.isclose(
            values[f"plain/lite.identity/cos/full~{region}"], 0 if region == "lower" else 1
        )
        assert (values[f"plain/attributes/js/full~{region}"] > 0.1) == (region == "upper")


def test_metadata_columns_come_from_the_index():
    rows = {name: np.arange(2) * (place + 1) for place, name in enumerate(METADATA)}
    table = metadata_features(rows)
    assert table.names[0] == "metadata/file_bytes" and table.values.tolist() == [
        [0] * 12,
        list(range(1, 13)),
    ]


def test_of_several_experts_the_first_identity_counts_and_what_was_left_out_is_no_column():
    same = np.ones((2, len(REGIONS), 4))
    names = plain_features(
        {"arcface.identity": same, "facenet.identity": -same, "clip.embedding": same}
    ).names
    assert len(names) == 10 and not any("facenet" in name or "attributes" in name for name in names)
    with pytest.raises(ValueError, match="no identity, embedding or attribute"):
        plain_features({"pyfeat.au": same})
