"""Lists of heads and of their settings."""

from avel.heads.catalog import describe_head, setting_lines


def test_a_setting_shows_its_default_under_weak_supervision_where_that_is_another() -> None:
    described = describe_head("psp")
    found = {each.name: (each.default, each.weak_default) for each in described.settings}
    assert found["threshold"] == (0.099, 0.095)
    assert found["milestones"] == ((60, 120), (80, 160))
    assert found["lr"] == (1e-3, 1e-3)
    lines = {line.split()[0]: line for line in setting_lines(described) if line}
    assert lines["milestones"].split("  ")[-1].strip() == "Epochs after which the schedule steps."
    assert "60,120" in lines["milestones"]
    assert "80,160" in lines["milestones"]
    assert lines["lr"].count("0.001") == 1


def test_the_type_of_a_setting_comes_with_its_bounds() -> None:
    types = {each.name: each.type for each in describe_head("psp").settings}
    assert types["threshold"] == "a number, from 0 to 1"
    assert types["epochs"] == "a whole number, at least 1"
    assert types["cosine"] == "true or false"
