import numpy as np

from features.explain import HIGH, LOW, MEDIAN, PERCENTILES, reasons, sentence

NAMES = [
    "lite.identity/cos/upper~lower",
    "lite.age/kl/full~lower",
    "lite.age/kl/lower~full",
    "lite.age/js/full~lower",
]


def reference(names=NAMES):
    rows = np.zeros((len(PERCENTILES), len(names)))
    rows[LOW], rows[LOW + 1], rows[MEDIAN], rows[HIGH - 1], rows[HIGH] = 0.4, 0.5, 0.6, 0.7, 0.8
    return rows


def test_sentence_names_regions_value_and_range():
    text = sentence("lite.identity/cos/upper~lower", 0.313, 0.48, 0.75)
    assert (
        text
        == "Upper face and lower face: identity similarity 0.31 (real faces 0.48 to 0.75; unusually different)"
    )


def test_sentences_tell_the_side_of_unusual_values():
    cosine, divergence = "lite.identity/cos/upper~lower", "lite.age/js/upper~lower"
    assert sentence(cosine, 0.9, 0.4, 0.8).endswith("; unusually similar)")
    assert sentence(divergence, 0.9, 0.4, 0.8).endswith("; unusually different)")
    assert sentence(divergence, 0.1, 0.4, 0.8).endswith("; unusually similar)")
    assert sentence(divergence, 0.5, 0.4, 0.8).endswith("(real faces 0.40 to 0.80)")


def test_sentences_about_one_region():
    text = sentence("traces.altered/level/inner", 3.214, -2.0, 1.0)
    assert (
        text == "Forgery logit of the inner face: 3.21 (real faces -2.00 to 1.00; unusually high)"
    )
    text = sentence("clip.made/level/full", 3.214, -2.0, 1.0)
    plain = "How much the whole face looks made rather than photographed (by CLIP): 3.21"
    assert text == f"{plain} (real faces -2.00 to 1.00; unusually high)"
    text = sentence("traces.source/cos/inner~outer", 0.31, 0.6, 0.9)
    assert text.startswith(
        "Inner face and outer face: source similarity 0.31 (real faces 0.60 to 0.90;"
    )


def test_every_measure_has_words():
    for measure, sign in [
        ("cos", "~"),
        ("js", "~"),
        ("kl", "~"),
        ("diff", "~"),
        ("l1", "~"),
        ("expected", ">"),
        ("expected_cos", ">"),
    ]:
        text = sentence(f"lite.age_years/{measure}/full{sign}lower", 3.0, 0.0, 1.0)
        assert "whole face" in text.lower() and "lower face" in text and "3.00" in text


def test_columns_of_one_topic_count_together():
    values = np.array([0.2, 0.9, 0.85, 0.95])
    found = reasons(NAMES, values, np.array([0.5, 0.3, 0.3, 0.3]), reference(), fake=True)
    assert [reason.regions for reason in found] == [("full", "lower"), ("upper", "lower")]
    assert found[0].feature == "lite.age/js/full~lower"  # the most unusual of the three
    assert np.isclose(found[0].contribution, 0.9)


def test_reasons_for_real_decrease_the_logit():
    found = reasons(
        NAMES[:2], np.array([0.7, 0.5]), np.array([-0.4, 0.2]), reference(NAMES[:2]), fake=False
    )
    assert [reason.feature for reason in found] == [NAMES[0]]
    assert found[0].contribution == -0.4


def test_missing_values_are_no_reason():
    values = np.array([np.nan, 0.5])
    found = reasons(NAMES[:2], values, np.array([9.0, 0.1]), reference(NAMES[:2]), fake=True)
    assert [reason.feature for reason in found] == [NAMES[1]]


def test_reasons_for_fake_are_unusual_and_for_real_are_usual():
    usual, unusual = 0.6, 0.1
    values, pushes = np.array([usual, unusual]), np.array([0.9, 0.2])
    assert [
        r.feature for r in reasons(NAMES[:2], values, pushes, reference(NAMES[:2]), fake=True)
    ] == [NAMES[1]]
    assert [
        r.feature for r in reasons(NAMES[:2], values, -pushes, reference(NAMES[:2]), fake=False)
    ] == [NAMES[0]]
    only_usual = reasons(NAMES[:1], values[:1], pushes[:1], reference(NAMES[:1]), fake=True)
    assert [r.feature for r in only_usual] == [NAMES[0]]  # better than no reason
