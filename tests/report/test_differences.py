"""Parameters of two runs -> what differs, by path."""

from tinyr1.report.differences import ABSENT, differences


def test_only_what_differs_is_listed_by_its_path():
    a = {"seed": 1, "domains": {"math": {"limit": None, "levels": [1]}}, "old": True}
    b = {"seed": 1, "domains": {"math": {"limit": 5, "levels": [1, 2]}}, "new": "x"}
    assert list(differences(a, b)) == [
        ("domains.math.limit", "null", "5"), ("domains.math.levels", "[1]", "[1, 2]"), ("new", ABSENT, "x"),
        ("old", "true", ABSENT),
    ]  # fmt: skip
    assert list(differences(a, a)) == []


def test_entries_of_a_list_are_compared_one_by_one_and_a_recipe_as_a_whole():
    recipes = [{"method": "fusion", "base": base, "t": None} for base in ("code", "math")]
    a, b = ({"sources": [{"rows": i, "kind": "s1"}], "models": [{"recipe": recipes[i]}]} for i in (0, 1))
    assert list(differences(a, b)) == [
        ("sources.0.rows", "0", "1"),
        ("models.0.recipe", '{"method": "fusion", "base": "code"}', '{"method": "fusion", "base": "math"}'),
    ]


def test_a_block_that_one_file_has_is_one_line():
    large = {"groups": [{"name": str(i), "levels": [1, 2]} for i in range(4)]}
    assert list(differences({"sft": None, "list": None}, {"sft": {"epochs": 2}, "list": large})) == [
        ("sft", "null", '{"epochs": 2}'), ("list", "null", "a block of 8 parameters"),
    ]  # fmt: skip
