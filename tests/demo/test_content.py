"""Words with numbers and names in them."""

from demo import content


def test_what_was_heard_is_said_from_start_to_end() -> None:
    assert content.heard(222.0, 222.3) == "heard 0:00–3:42 of 3:42"


def test_what_was_not_heard_shows() -> None:
    assert content.heard(30.0, 222.0) == "heard 0:00–0:30 of 3:42"


def test_progress_never_leaves_its_range() -> None:
    assert [content.percent(fraction) for fraction in (-0.1, 0, 0.425, 1, 1.2)] == [
        0,
        0,
        42,
        100,
        100,
    ]


def test_loading_says_how_much_when_that_is_known() -> None:
    assert content.loading("Fetching weights", 0.42) == "Fetching weights … 42 %"
    assert content.loading("Reading weights …", None) == "Reading weights …"


def test_left_out_turns_are_counted() -> None:
    assert content.dropped_turns(0) == ""
    assert "oldest turn no longer fits" in content.dropped_turns(1)
    assert "3 oldest turns" in content.dropped_turns(3)
