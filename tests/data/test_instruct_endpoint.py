"""A small server plays an OpenAI-compatible endpoint: it gives the replies a test has prepared."""

import json
import sys
import threading
from collections import deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from musilingo_core.data.instruct_endpoint import Endpoint, check_reply, write_by_endpoint
from musilingo_core.data.music_instruct import build_music_instruct
from musilingo_core.data.musiccaps import MusicCapsRow, read_musiccaps
from musilingo_core.errors import ConfigError, ManifestError

EXCERPT = Path(__file__).parent / "musiccaps-50.csv"
GOOD = [{"question": f"Is fact {word} true?", "answer": "Yes."} for word in ("one", "two", "three")]


def reply(pairs: object) -> str:
    return json.dumps({"pairs": pairs})


class Server(ThreadingHTTPServer):
    """Gives each prepared reply once, then the last for ever: a text, a status or a raw body."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: deque[str | int | bytes] = deque([reply(GOOD)])
        self.requests: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.knows_formats = True

    def endpoint(self, **more: Any) -> Endpoint:
        url = f"http://127.0.0.1:{self.server_port}/v1"
        defaults: dict[str, Any] = {"threads": 1, "max_rows": 2, "kinds": ("short",)}
        return Endpoint("tiny", url, **{**defaults, **more})


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(request)
            replies = self.server.replies
            if "response_format" in request and not self.server.knows_formats:
                answer: str | int | bytes = 400
            else:
                answer = replies.popleft() if len(replies) > 1 else replies[0]
        status = answer if isinstance(answer, int) else 200
        body: dict[str, Any] = {"error": {"message": "no"}}
        if isinstance(answer, str):
            message = {"role": "assistant", "content": answer}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
            body = {"id": "x", "object": "chat.completion", "created": 0, "model": "tiny"}
            body |= {"choices": [choice], "usage": usage}
        data = answer if isinstance(answer, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("retry-after-ms", "1")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def questions(folder: Path) -> list[str]:
    rows = json.loads((folder / "music_instruct_short.json").read_text())["QA"]
    return [row["question"] for row in rows]


def test_pairs_come_back_in_the_published_form(server: Server, tmp_path: Path) -> None:
    endpoint = server.endpoint(kinds=("short", "long"), threads=4, max_rows=6)
    report = write_by_endpoint(EXCERPT, tmp_path, endpoint)
    assert report.counts["pairs"] == {"short": 18, "long": 18} and not report.counts["missing"]
    assert report.facts["input_tokens"] == 1200 and report.facts["output_tokens"] == 120
    files = [tmp_path / f"music_instruct_{kind}.json" for kind in ("short", "long")]
    published = build_music_instruct(files, None, tmp_path / "out")
    assert sum(published.counts["examples"].values()) == 18
    assert published.counts["skipped"] == {"the same twice": 18}  # as the server replies
    assert server.requests[0]["model"] == "tiny"
    sent = " ".join(request["messages"][-1]["content"] for request in server.requests)
    assert all(row.caption in sent for row in read_musiccaps(EXCERPT)[:6])


def test_load_and_faults_of_the_server_are_tried_again_and_counted(
    server: Server, tmp_path: Path
) -> None:
    server.replies.extendleft([500, 429])
    report = write_by_endpoint(EXCERPT, tmp_path, server.endpoint())
    assert report.facts["retries"] == 2
    assert report.counts["pairs"] == {"short": 6}


def test_an_endpoint_without_structured_output_is_asked_without(
    server: Server, tmp_path: Path
) -> None:
    server.knows_formats = False
    assert write_by_endpoint(EXCERPT, tmp_path, server.endpoint()).counts["pairs"] == {"short": 6}
    assert ["response_format" in request for request in server.requests] == [True, False, False]


def test_a_request_that_is_refused_either_way_ends_no_structured_output(
    server: Server, tmp_path: Path
) -> None:
    server.replies = deque([400, 400, reply(GOOD)])
    report = write_by_endpoint(EXCERPT, tmp_path, server.endpoint())
    assert report.counts["missing"] == {"short, the endpoint failed: BadRequestError": 1}
    assert ["response_format" in request for request in server.requests] == [True, False, True]


def test_what_has_been_paid_for_is_noted_before_a_refusal_ends_the_run(
    server: Server, tmp_path: Path
) -> None:
    server.replies = deque([reply(GOOD), 403, reply(GOOD)])
    with pytest.raises(ConfigError, match="refuses"):
        write_by_endpoint(EXCERPT, tmp_path, server.endpoint(threads=4, max_rows=4))
    sent, noted = len(server.requests), (tmp_path / "journal.jsonl").read_text().splitlines()
    assert len(noted) == sent - 1
    server.replies = deque([reply(GOOD)])
    assert write_by_endpoint(EXCERPT, tmp_path, server.endpoint(max_rows=4)).counts["pairs"] == {
        "short": 12
    }
    assert len(server.requests) == sent + 4 - len(noted)


def test_what_cannot_be_used_is_asked_for_again_and_then_listed(
    server: Server, tmp_path: Path
) -> None:
    few = reply([*GOOD[:1], {"question": "Who wrote this", "answer": "Bach."}])
    server.replies = deque(["{oh no", few, reply(GOOD), "I'm sorry, I can't do that."])
    report = write_by_endpoint(EXCERPT, tmp_path, server.endpoint())
    assert len(server.requests) == 3 + 3
    assert questions(tmp_path) == [pair["question"] for pair in GOOD]
    assert report.counts["missing"] == {"short, refused": 1}
    assert report.counts["rejected"] == {
        "not the JSON asked for": 1,
        "a question without question mark": 1,
        "a question twice": 1,
        "refused": 3,
    }
    second = read_musiccaps(EXCERPT)[1].ytid
    listed = json.loads((tmp_path / "skipped.jsonl").read_text())
    assert listed == {"id": second, "kind": "short", "reason": "refused"}


def test_a_run_that_was_cut_off_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    write_by_endpoint(EXCERPT, tmp_path, server.endpoint(max_rows=3))
    journal = tmp_path / "journal.jsonl"
    whole = journal.read_text()
    journal.write_text(whole[: whole.rfind("\n", 0, -1) + 30])  # in the midst of the third line
    report = write_by_endpoint(EXCERPT, tmp_path, server.endpoint(max_rows=4))
    assert len(server.requests) == 3 + 2
    assert report.counts["pairs"] == {"short": 12}
    assert len([json.loads(line) for line in journal.read_text().splitlines()]) == 4
    assert report.facts["input_tokens"] == 400


def test_what_failed_is_asked_for_again_by_the_next_run(server: Server, tmp_path: Path) -> None:
    server.replies = deque(["no", "no", "no", reply(GOOD)])
    assert write_by_endpoint(EXCERPT, tmp_path, server.endpoint()).counts["pairs"] == {"short": 3}
    assert write_by_endpoint(EXCERPT, tmp_path, server.endpoint()).counts["pairs"] == {"short": 6}
    assert len(server.requests) == 5


def test_no_request_is_sent_once_the_cost_is_reached(server: Server, tmp_path: Path) -> None:
    # 100 tokens in at 10,000 a million and 10 out at 50,000 a million: 1.5 each.
    endpoint = server.endpoint(
        max_rows=9, max_cost=4.0, input_price=10_000.0, output_price=50_000.0
    )
    report = write_by_endpoint(EXCERPT, tmp_path, endpoint)
    assert len(server.requests) == 3 and report.facts["cost"] == 4.5
    assert report.facts["cost_per_row"] == 0.5
    assert report.counts["missing"] == {"short, not asked yet": 6}
    assert "stopped, the cost has reached 4" in str(report)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<html>", "the endpoint failed: JSONDecodeError"),
        (b"[]", "empty or refused"),
        (b'{"choices": [{}]}', "empty or refused"),
        (b'{"choices": [{"message": {"content": null}}]}', "empty or refused"),
    ],
)
def test_a_body_that_is_no_completion_ends_no_run(
    server: Server, tmp_path: Path, body: bytes, reason: str
) -> None:
    server.replies = deque([body])
    report = write_by_endpoint(EXCERPT, tmp_path, server.endpoint(max_rows=1))
    assert report.counts["missing"] == {f"short, {reason}": 1}


def test_an_endpoint_that_is_down_ends_the_run_and_keeps_what_there_is(
    server: Server, tmp_path: Path
) -> None:
    server.replies.append(503)
    report = write_by_endpoint(EXCERPT, tmp_path, server.endpoint(max_rows=9, retries=0))
    assert report.counts["pairs"] == {"short": 3}
    assert len(server.requests) == 1 + 5
    assert report.notes == ("stopped, the endpoint failed 5 times in a row",)


def test_a_refused_key_another_model_or_a_damaged_journal_is_said_at_once(
    server: Server, tmp_path: Path
) -> None:
    server.replies = deque([401])
    with pytest.raises(ConfigError, match="refuses"):
        write_by_endpoint(EXCERPT, tmp_path, server.endpoint())
    server.replies = deque([reply(GOOD)])
    write_by_endpoint(EXCERPT, tmp_path, server.endpoint())
    other = Endpoint("other", server.endpoint().base_url)
    with pytest.raises(ConfigError, match="another folder"):
        write_by_endpoint(EXCERPT, tmp_path, other)
    (tmp_path / "journal.jsonl").write_text("{}\n")
    with pytest.raises(ManifestError, match="line 1"):
        write_by_endpoint(EXCERPT, tmp_path, server.endpoint())


def test_what_was_paid_before_a_refusal_is_noted(server: Server, tmp_path: Path) -> None:
    server.replies = deque(["no", 401])
    report = write_by_endpoint(EXCERPT, tmp_path, server.endpoint(max_rows=1))
    assert report.counts["missing"] == {"short, the endpoint refused: AuthenticationError": 1}
    assert report.facts["input_tokens"] == 100 and "cost" not in report.facts  # no prices


def test_a_missing_key_or_package_is_said_with_what_to_do(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="MY_KEY"):
        write_by_endpoint(EXCERPT, tmp_path, Endpoint("tiny", key_variable="MY_KEY"))
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ConfigError, match="pip install openai"):
        write_by_endpoint(EXCERPT, tmp_path, server.endpoint())


@pytest.mark.parametrize(
    "wrong", [{"kinds": ()}, {"kinds": ("odd",)}, {"pairs": 0}, {"threads": 0}, {"max_cost": 1.0}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Endpoint("tiny", **wrong)


CLIP = MusicCapsRow("x", 0, 10, ("80s", "r&b"), "A man sings about love. It sounds Latin.", True)


@pytest.mark.parametrize(
    ("question", "answer", "fault"),
    [
        ("What is heard?", "A man sings.", ""),
        ("What is the genre?", "It is R&B from the 80s. It sounds Latin.", ""),
        ("What are the lyrics about?", "Love.", ""),
        ("Can you name the style?", "It is Latin.", ""),
        ("What is heard?", " ", "an empty question or answer"),
        ("Describe it.", "A man sings.", "a question without question mark"),
        ("Who sings?", "I cannot tell.", "an answer that refuses"),
        (
            "What key is it in?",
            "It is not specified.",
            "an answer that does not know, or tells of a caption",
        ),
        ("What is the title?", "Love.", "a question that the caption cannot answer"),
        ("Who composed it?", "A man.", "a question that the caption cannot answer"),
        ("Who sings?", "It is Adele.", "a name or number that the caption does not have"),
        ("Who sings?", "It is Ove.", "a name or number that the caption does not have"),
        ("How many sing?", "About 8.", "a name or number that the caption does not have"),
        ("How fast is it?", "About 120 beats.", "a name or number that the caption does not have"),
        ("What does Adele sing?", "Love.", "a name or number that the caption does not have"),
    ],
)
def test_a_pair_must_be_borne_out_by_the_caption(question: str, answer: str, fault: str) -> None:
    good, bad = check_reply(reply([{"question": question, "answer": answer}]), CLIP)
    assert dict(bad) == ({fault: 1} if fault else {})
    assert good == ([] if fault else [(question, answer)])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "empty or refused"),
        ("I’m sorry.", "refused"),
        ("[]", "not the JSON asked for"),
        ('{"pairs": [{"question": "Who?"}]}', "not the JSON asked for"),
        ('{"pairs": [{"question": "Wh', "not the JSON asked for"),
        ('{"pairs": []}', "no pairs"),
    ],
)
def test_a_reply_that_holds_no_pairs_says_why(text: str, fault: str) -> None:
    assert check_reply(text, CLIP) == ([], {fault: 1})


def test_json_in_a_fence_is_read_and_repeated_questions_are_dropped() -> None:
    pairs = [
        {"question": q, "answer": "A man."} for q in ("Who sings?", "who sings ?", "Who is it?")
    ]
    good, bad = check_reply(f"Here:\n```json\n{reply(pairs)}\n```", CLIP, ["Who is it?"])
    assert good == [("Who sings?", "A man.")] and bad == {"a question twice": 2}
