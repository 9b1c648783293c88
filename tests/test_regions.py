import numpy as np
import pytest

from features.regions import ALIGNED, PAIRS, REGIONS, region_masks


def test_regions_cover_what_their_names_say():
    masks = dict(zip(REGIONS, region_masks(), strict=True))
    eye, mouth, left_cheek, forehead_corner = (52, 38), (92, 56), (75, 25), (4, 4)
    assert masks["full"].all()
    assert masks["upper"][eye] and not masks["upper"][mouth]
    assert masks["lower"][mouth] and not masks["lower"][eye]
    assert masks["left"][left_cheek] and not masks["right"][left_cheek]
    assert masks["outer"][forehead_corner] and not masks["inner"][forehead_corner]


def test_complements_share_no_pixel():
    masks = dict(zip(REGIONS, region_masks(), strict=True))
    for first, second in (("left", "right"), ("inner", "outer")):
        assert np.array_equal(masks[first], ~masks[second])
    assert not (masks["upper"] & masks["lower"]).any()


def test_one_definition_at_every_resolution():
    small, large = region_masks().mean((1, 2)), region_masks(ALIGNED.at(256)).mean((1, 2))
    assert np.allclose(small, large, atol=0.01)


def test_pairs_name_regions():
    assert {region for pair in PAIRS for region in pair} == set(REGIONS)
    assert len(set(PAIRS)) == len(PAIRS)


def test_unknown_region_lists_the_valid_ones():
    with pytest.raises(ValueError, match="unknown region 'nose'.*upper"):
        region_masks(regions=("nose",))
