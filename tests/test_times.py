import pytest
from hypothesis import given
from hypothesis import strategies as st

from musilingo_core.errors import PromptError
from musilingo_core.times import Span, clock, find_spans


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What do you hear at 1:10?", [Span(65, 75)]),
        ("What happens between 0:30 and 0:45?", [Span(30, 45)]),
        ("Describe 1:05–1:20.", [Span(65, 80)]),
        ("from 0:30 to 0:40 and at 2:00", [Span(30, 40), Span(115, 125)]),
        ("at 70 seconds", [Span(65, 75)]),
        ("after 1 minute and 10 seconds", [Span(65, 75)]),
        ("after 2 minutes", [Span(115, 125)]),
        ("at 0:02", [Span(0, 7)]),
        ("at 2:58", [Span(173, 180)]),
        ("How does it begin?", [Span(0, 10)]),
        ("How does it end?", [Span(170, 180)]),
        ("How does the tune finish?", [Span(170, 180)]),
        ("What do you hear last?", [Span(170, 180)]),
        ("Did I hear it at last?", []),
        ("What is in the middle?", [Span(85, 95)]),
        ("Compare the ending with the intro", [Span(170, 180), Span(0, 10)]),
        ("Does it sound like 80s pop?", []),
        ("Is it in 3/4 or 4/4, 120 bpm?", []),
        ("What is the mood?", []),
        ("Is the trend clear?", []),
        ("Is it longer than 4 minutes?", []),
        ("Is it about 4 minutes long?", []),
        ("Is it longer than 4:30?", []),
        ("Would it suit a 5 minute yoga class?", []),
        ("When does the singing start?", []),
        ("Is it a good start to the day?", []),
        ("Describe the first 30 seconds.", [Span(0, 30)]),
        ("Describe the last 20 seconds", [Span(160, 180)]),
        ("What is in the first minute? I mean the first 1 minute", [Span(0, 60)]),
        ("between 30 and 45 seconds", [Span(30, 45)]),
        ("from 1 to 2 minutes", [Span(60, 120)]),
        ("at 0:30 and at 0:30", [Span(25, 35)]),
        ("from 30 seconds to 1 minute", [Span(30, 60)]),
        ("from 10 sec to 20 sec", [Span(10, 20)]),
        ("between 1 minute and 2 minutes", [Span(60, 120)]),
        ("from 1 minute 5 seconds to 1 minute and 20 seconds", [Span(65, 80)]),
        ("from 1 minute and 10 seconds", [Span(65, 75)]),
        ("from 1:00 until the end", [Span(60, 180)]),
        ("after 1 minute to the end", [Span(60, 180)]),
        ("Compare 1:00 and the ending", [Span(55, 65), Span(170, 180)]),
    ],
)
def test_moments_are_found(text: str, expected: list[Span]) -> None:
    assert find_spans(text, 180.0) == expected


def test_a_moment_after_the_end_is_refused_with_a_sentence() -> None:
    with pytest.raises(PromptError, match="lasts 0:12, so there is nothing at 1:10"):
        find_spans("What do you hear at 1:10?", 12.0)


FRAGMENTS = [
    "at", "from", "between", "first", "last", "and", "to", "-", ":", "1:10", "0:05", "99:59",
    "1:2:3", "70 seconds", "2 minutes", "10 sec", "9999 seconds", "it starts", "the end",
    "until the end",
]  # fmt: skip


@given(
    st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5)).map(" ".join), st.floats(0.5, 1200)
)
def test_any_text_gives_spans_inside_the_song_or_a_prompt_error(text: str, length: float) -> None:
    try:
        spans = find_spans(text, length)
    except PromptError:
        return
    assert all(0 <= span.start_s <= span.end_s <= length for span in spans)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (70.9, "1:10"), (3725, "1:02:05")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
