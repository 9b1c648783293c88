"""The card of a verdict: what it must show, in which colours, and incomplete verdicts."""

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
from inference.verdict import CLEAR, FAKE, UNSURE, FalseAlarmRate, Region, Verdict

SENTENCE = "Upper face and lower face: identity similarity 0.31"
REASONS = [
    Reason(SENTENCE, "a", 0.31, 0.48, 0.75, ("upper", "lower"), 1.0),
    Reason("Inner face and outer face disagree", "b", 0.4, 0.4, 0.4, ("inner", "outer"), 0.5),
]
PREDICTIONS = {
    "lite.age_years": 31.0,
    "lite.gender": {"Male": 0.2, "Female": 0.8},
    "lite.expression": {"neutral": 0.3, "happy": 0.7},
}


@pytest.fixture
def verdict(astronaut):
    regions = [Region("full", None, None, PREDICTIONS)]
    regions += [Region(name, 0.1, 0.5, PREDICTIONS) for name in REGIONS[1:]]
    regions[3] = Region("lower", 2.0, 0.98, {"lite.age_years": 52.0})
    return Verdict(
        path="folder/astronaut.png",
        face=0,
        p_fake=0.87,
        verdict=FAKE,
        quality={"overall": "good", "face_px": 100},
        false_alarm_rate=FalseAlarmRate(0.025, 0.01, 0.05),
        reasons=REASONS,
        regions=regions,
        pairs=[Pair("lite.identity", "upper", "lower", 0.31, 0.48, 0.75, 0.02)],
        families={"identities": 1.5, "traces": -0.2},
        baseline_logit=-0.4,
        threshold=0.74,
        clear_below=0.3,
        prior=0.5,
        fpr=0.05,
        record=["It found 7 of 10 swaps."],
        box=(170.0, 60.0, 270.0, 200.0),
        aligned=np.dstack([astronaut[60:172, 160:272], np.full((112, 112), 255, np.uint8)]),
    )


def words(figure):
    return " | ".join(text.get_text().replace("\n", " ") for text in figure.findobj(Text))


def test_it_shows_what_was_found(verdict, astronaut):
    figure = draw_card(verdict, astronaut)
    assert figure.bbox.width == 1200
    rate = "1 in 40 real faces scores as high (1 in 20 to 1 in 100)"
    shown = ["looks manipulated", "p_fake 0.87 (if 50% of faces are fakes)", rate, ".31"]
    shown += ["looks manipulated from 0.74 on", "nothing found below 0.30", "astronaut.png"]
    shown += ["This detector. It found 7 of 10 swaps."]
    shown += ["31", "52", "80% female", "happy 70%", "> 98% of reals", "most: lower (> 98%"]
    shown += ["identity", "forgery traces", "+1.50", "-0.20", "-0.40", "+0.90"]
    shown += ["identity: similarity", "appearance: not available"]
    shown += [f"1. {SENTENCE}", "2. Inner face", "not a proof"]
    assert [text for text in shown if text not in words(figure)] == []


def test_a_long_name_keeps_its_end(verdict, astronaut):
    figure = draw_card(replace(verdict, path=f"{'a' * 80}-frame_0012.png"), astronaut)
    assert f"{'a' * 29} … a-frame_0012.png" in words(figure)


def test_colour_is_that_of_the_verdict(verdict, astronaut):
    def shares(which):
        figure = draw_card(replace(verdict, verdict=which), astronaut)
        figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
        colours = (255 * np.array(to_rgb(colour)) for colour in (ORANGE, BLUE))
        return [(np.abs(pixels - colour).max(-1) < 8).mean() for colour in colours]

    fake, clear = shares(FAKE), shares(CLEAR)
    assert fake[0] > 1.3 * clear[0] and clear[1] > 1.3 * fake[1]


def test_only_a_region_that_disagrees_is_coloured(verdict, astronaut):
    def layer(regions):
        figure = draw_card(replace(verdict, regions=regions), astronaut)
        (face,) = [axes for axes in figure.axes if axes.get_title().startswith("which regions")]
        return face.images[1].get_array()

    usual = [replace(region, rank=region.rank and 0.5) for region in verdict.regions]
    assert not layer(usual)[..., 3].any()
    colours, lower = layer(verdict.regions), region_masks()[REGIONS.index("lower")].astype(bool)
    assert (colours[lower, 3] > 0).all() and not colours[~lower, 3].any()
    assert np.allclose(colours[0, 0, :3], to_rgb(ORANGE))


def test_only_pairs_outside_the_range_of_real_faces_are_framed(verdict, astronaut):
    usual = Pair("lite.identity", "left", "right", 0.61, 0.48, 0.75, 0.4)
    figure = draw_card(replace(verdict, pairs=[*verdict.pairs, usual]), astronaut)
    texts = {text.get_text(): text for text in figure.findobj(Text)}
    assert texts[".31"].get_weight() == "bold" and texts[".61"].get_weight() != "bold"
    frames = [patch for patch in texts[".31"].axes.patches if not patch.get_fill()]
    assert [patch.get_width() for patch in frames] == [0.92]


def test_warnings_are_on_it_and_nothing_runs_over_the_edge(verdict, astronaut):
    reasons = ["the face is only 20 px wide, less than 99% of the training faces"] * 2
    quality = {"overall": "small face"}
    unsure = replace(verdict, verdict=UNSURE, reasons_to_abstain=reasons, quality=quality)
    figure = draw_card(unsure, astronaut)
    for text in ("cannot tell", f"Cannot tell: {reasons[0]}", "Careful: small face"):
        assert text in words(figure)
    figure.canvas.draw()
    shown = [text for axes in figure.axes for text in axes.texts] + figure.texts
    for axes in (axes for axes in figure.axes if axes.axison):
        shown += axes.get_xticklabels() + axes.get_yticklabels()
    for text in (text for text in shown if text.get_text()):
        extent = text.get_window_extent()
        room = (extent.x0, extent.y0, 1200 - extent.x1, figure.bbox.height - extent.y1)
        assert min(room) >= -1, text.get_text()


@pytest.mark.parametrize(
    "change",
    [
        {"reasons": [], "path": "x" * 300 + ".png"},
        {"pairs": [], "families": {"other": 0.1}, "path": "price $5 and $6.png"},
        {"regions": [Region(name, None, None, {}) for name in REGIONS]},
        {
            "path": "not utf-8 \udcff.jpg",
            "regions": [
                Region(name, 0.1, 0.4, {"fairface.age": {"0-2": 0.1, "20-29": 0.9}})
                for name in REGIONS
            ],
        },
    ],
)
def test_incomplete_verdicts_are_drawn(verdict, astronaut, change, tmp_path):
    written = write_card(replace(verdict, **change), astronaut, tmp_path, "card")
    assert [path.name for path in written] == ["card.png", "card.json"]
    assert all(Path(path).stat().st_size for path in written)
