"""The card of a verdict: what it must show, in which colours, and that odd verdicts draw as well."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from features.disagreement import Pair
from features.explain import Reason
from features.regions import REGIONS, region_masks
from inference.card import BLUE, ORANGE, draw_card, write_card
from inference.verdict import FAKE, REAL, UNSURE, Rarity, Region, Verdict

REASONS = [
    Reason(
        "Upper face and lower face: identity similarity 0.31",
        "a",
        0.31,
        0.48,
        0.75,
        ("upper", "lower"),
        1.0,
    ),
    Reason("Inner face and outer face disagree", "b", 0.4, 0.4, 0.4, ("inner", "outer"), 0.5),
]
ANSWERS = {
    "lite.age_years": 31.0,
    "lite.gender": {"Male": 0.2, "Female": 0.8},
    "lite.expression": {"neutral": 0.3, "happy": 0.7},
}


@pytest.fixture
def verdict(astronaut):
    regions = [Region("full", None, None, ANSWERS)]
    regions += [Region(name, 0.1, 0.5, ANSWERS) for name in REGIONS[1:]]
    regions[3] = Region("lower", 2.0, 0.98, {"lite.age_years": 52.0})
    return Verdict(
        path="folder/astronaut.png",
        face=0,
        p_fake=0.87,
        verdict=FAKE,
        quality={"overall": "good", "face_px": 100},
        rarity=Rarity(0.025, 0.01, 0.05),
        reasons=REASONS,
        regions=regions,
        pairs=[Pair("lite.identity", "upper", "lower", 0.31, 0.48, 0.75, 0.02)],
        families={"identities": 1.5, "traces": -0.2},
        usual=-0.4,
        threshold=0.74,
        box=(170.0, 60.0, 270.0, 200.0),
        aligned=np.dstack([astronaut[60:172, 160:272], np.full((112, 112), 255, np.uint8)]),
    )


def drawn(verdict, astronaut):
    figure = draw_card(verdict, astronaut)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int), figure


def words(figure):
    return " | ".join(text.get_text().replace("\n", " ") for text in figure.findobj(Text))


def share(picture, colour):
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return (np.abs(picture - rgb).max(-1) < 8).mean()


def test_it_shows_what_was_found(verdict, astronaut):
    picture, figure = drawn(verdict, astronaut)
    assert picture.shape[1] == 1200
    said = words(figure)
    for part in (
        *(
            "FAKE",
            "p_fake 0.87",
            "fake from 0.74",
            "1 in 40 real faces scores as high (1 in 20 to 1 in 100)",
            "astronaut.png",
        ),
        *(
            "31",
            "52",
            "80% female",
            "happy 70%",
            "> 98% of reals",
            "most: lower (> 98% of real faces)",
        ),
        *(
            "identity",
            "traces of making",
            "+1.50",
            "-0.20",
            "-0.40",
            "+0.90",
            "identity: similarity",
            "appearance: not known",
        ),
        *(
            "1. Upper face and lower face: identity similarity 0.31",
            "2. Inner face",
            "Not proof",
            ".31",
        ),
    ):
        assert part.replace("appearance: not known", "appearance: not known") in said, part


def test_colour_says_the_verdict(verdict, astronaut):
    fake, real = (drawn(replace(verdict, verdict=which), astronaut)[0] for which in (FAKE, REAL))
    assert share(fake, ORANGE) > 1.3 * share(real, ORANGE) and share(real, BLUE) > 1.3 * share(
        fake, BLUE
    )


def test_only_the_region_that_disagrees_is_coloured(verdict, astronaut):
    plain = [replace(region, rank=region.rank and 0.5) for region in verdict.regions]
    without, with_it = (
        replace(verdict, aligned=np.full((112, 112, 4), 255, np.uint8), regions=regions)
        for regions in (plain, verdict.regions)
    )
    layers = []
    for each in (without, with_it):
        (face,) = [
            axes
            for axes in drawn(each, astronaut)[1].axes
            if axes.get_title().startswith("which regions")
        ]
        layers.append(face.images[1].get_array())
    assert not layers[0][..., 3].any()
    lower = region_masks()[REGIONS.index("lower")].astype(bool)
    assert (layers[1][lower, 3] > 0).all() and not layers[1][~lower, 3].any()
    assert np.allclose(layers[1][0, 0, :3], to_rgb(ORANGE))


def test_only_pairs_outside_nine_of_ten_real_faces_are_framed(verdict, astronaut):
    usual = Pair("lite.identity", "left", "right", 0.61, 0.48, 0.75, 0.4)
    _, figure = drawn(replace(verdict, pairs=[*verdict.pairs, usual]), astronaut)
    told = {text.get_text(): text for text in figure.findobj(Text)}
    assert told[".31"].get_weight() == "bold" and told[".61"].get_weight() != "bold"
    frames = [patch for patch in told[".31"].axes.patches if not patch.get_fill()]
    assert [patch.get_width() for patch in frames] == [0.92]


def test_doubts_and_poor_views_are_written_on_it(verdict, astronaut):
    unsure = replace(
        verdict,
        verdict=UNSURE,
        doubts=["the face is only 20 px wide"],
        quality={"overall": "small face"},
    )
    said = words(drawn(unsure, astronaut)[1])
    assert (
        "CANNOT TELL" in said
        and "Cannot tell: the face is only 20 px wide" in said
        and "Careful: small face" in said
    )


def test_nothing_runs_over_the_edge(verdict, astronaut):
    _, figure = drawn(
        replace(
            verdict, verdict=UNSURE, doubts=["the face as a whole is unlike those of training"] * 2
        ),
        astronaut,
    )
    shown = [text for axes in figure.axes for text in axes.texts] + figure.texts
    shown += [
        text
        for axes in figure.axes
        if axes.axison
        for text in axes.get_xticklabels() + axes.get_yticklabels()
    ]
    for text in (text for text in shown if text.get_text()):
        extent = text.get_window_extent()
        assert min(extent.x0, extent.y0, 1200 - extent.x1, figure.bbox.height - extent.y1) >= -1, (
            text.get_text()
        )


@pytest.mark.parametrize(
    "less",
    [
        {"reasons": []},
        {"pairs": [], "families": {"other": 0.1}},
        {"path": "x" * 300 + ".png"},
        {"path": "price $5 and $6.png"},
        {"path": "not utf-8 \udcff.jpg"},
        {"regions": [Region(name, None, None, {}) for name in REGIONS]},
        {
            "regions": [
                Region(name, 0.1, 0.4, {"fairface.age": {"0-2": 0.1, "20-29": 0.9}})
                for name in REGIONS
            ]
        },
    ],
)
def test_verdicts_with_less_draw_as_well(verdict, astronaut, less, tmp_path):
    written = write_card(replace(verdict, **less), astronaut, tmp_path, "card")
    assert [path.name for path in written] == ["card.png", "card.json"] and all(
        Path(path).stat().st_size for path in written
    )
