"""Names of files on a screen, in a table and back."""

import pytest

from data.names import for_csv, for_screen, for_table, from_csv

NAMES = ["=1+1.jpg", "+a", "-a", "@x", "\ta", "'=a", "''-b", "'quoted'", "a=b", "", "-3.5", "1e-3"]


@pytest.mark.parametrize(
    "name, shown",
    [
        ("a\nb: REAL", "a\\nb: REAL"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("사람 photo.jpg", "사람 photo.jpg"),
        ("é\udcb0", "é\\xb0"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("\ud800", "\\ud800"),
        ("a\u2028b\r\x9b", "a\\u2028b\\r\\x9b"),
    ],
)
def test_a_name_is_one_printable_line(name, shown):
    assert for_screen(name) == shown
    assert for_screen(name).encode("utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_a_table_holds_no_formula_and_gives_the_name_back(name):
    assert from_csv(for_csv(name)) == name
    assert for_csv(name)[:1] not in ("=", "+", "@", "\t", "\r")


def test_a_table_for_people_holds_no_escape_sequence():
    assert for_table("=\x1b[31m\x9bx\n") == "'=\\x1b[31m\\x9bx\n"


def test_numbers_stay_numbers():
    assert for_csv("-3.5") == "-3.5" and for_csv("-3.5.jpg") == "'-3.5.jpg"
