"""Parameters of two runs -> what differs, by path."""

from tinyr1.report.differences import ABSENT, differences


def test_only_what_differs_is_listed_by_its_path():
    a = {"seed": 1, "domains": {"math": {"limit": None, "levels": [1]}}, "old": True}
    b = {"seed": 1, "domains": {"math": {"limit": 5, "levels": [1, 2]}}, "new": "x"}
    assert differences(a, b) == [
        ("domains.math.limit", "null", "5"), ("domains.math.levels", "[1]", "[1, 2]"), ("new", ABSENT, "x"),
        ("old", "true", ABSENT),
    ]  # fmt: skip
    assert differences(a, a) == []


def test_entries_of_a_list_are_compared_one_by_one_and_a_recipe_as_a_whole():
    a = {
        "sources": [{"rows": 1, "kind": "s1"}],
        "models": [{"recipe": {"method": "fusion", "base": "code", "t": None}}],
    }
    b = {
        "sources": [{"rows": 2, "kind": "s1"}],
        "models": [{"recipe": {"method": "fusion", "base": "math", "t": None}}],
    }
    assert differences(a, b) == [
        ("sources.0.rows", "1", "2"),
        ("models.0.recipe", '{"method": "fusion", "base": "code"}', '{"method": "fusion", "base": "math"}'),
    ]
