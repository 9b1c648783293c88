import pytest

from models.model_card import fill


def test_figures_are_replaced_and_prose_stays(tmp_path):
    card = tmp_path / "card.md"
    card.write_text("before\n<!-- figures -->\nold\n<!-- end of figures -->\nafter\n")
    fill(card, "new")
    assert card.read_text() == "before\n<!-- figures -->\nnew\n<!-- end of figures -->\nafter\n"
    assert (
        fill(tmp_path / "fresh.md", "x").read_text()
        == "<!-- figures -->\nx\n<!-- end of figures -->\n"
    )


def test_a_card_without_marks_is_refused(tmp_path):
    card = tmp_path / "card.md"
    card.write_text("no marks")
    with pytest.raises(ValueError, match="card.md: expected the marks"):
        fill(card, "new")
