from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from data.pictures import draw_verdict
from features.explain import Reason

REASONS = [
    Reason("Upper face and lower face: identity similarity 0.31", "a", 0.31, 0.48, 0.75, ("upper", "lower"), 1.0),
    Reason("Inner face and outer face disagree", "b", 0.4, 0.4, 0.4, ("inner", "outer"), 0.5),
]


def drawn(file, astronaut, **changed):
    verdict = SimpleNamespace(
        path="folder/astronaut.png",
        verdict="fake",
        p_fake=0.87,
        box=(170.0, 60.0, 270.0, 200.0),
        aligned=np.dstack([astronaut[60:172, 160:272], np.full((112, 112), 255, np.uint8)]),
        reasons=REASONS,
        quality={"overall": "good"},
    )
    for name, value in changed.items():
        setattr(verdict, name, value)
    return np.asarray(Image.open(draw_verdict(verdict, 0.5, astronaut, file)).convert("RGB")).astype(int)


def share(picture, colour):
    return (np.abs(picture - colour).max(-1) < 12).mean()


def test_colour_says_the_verdict(tmp_path, astronaut):
    red, green = (0xB3, 0x26, 0x1E), (0x1E, 0x7D, 0x32)
    fake = drawn(tmp_path / "fake.png", astronaut)
    real = drawn(tmp_path / "real.png", astronaut, verdict="real")
    assert fake.shape[1] == 1200
    assert share(fake, red) > 5 * share(real, red) and share(real, green) > 5 * share(fake, green)


@pytest.mark.parametrize("reasons", [[], REASONS[:1]])
def test_fewer_reasons_and_long_names_still_draw(tmp_path, astronaut, reasons):
    picture = drawn(tmp_path / "v.png", astronaut, reasons=reasons, path="x" * 300 + ".png")
    assert picture.std() > 10
