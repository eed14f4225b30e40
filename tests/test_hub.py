"""Fetching from the Hub, against a server on this machine that answers as the Hub does."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from musilingo_core.errors import CheckpointError, WeightsUnavailable
from musilingo_core.hub import Repository, _write_down, fetch_repository, is_repository

NAME = "owner/little-model"


class FakeHub(ThreadingHTTPServer):
    """One repository, whose files and commit a test may change."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.files = {
            "config.json": b'{"model_type": "little"}',
            "model.safetensors": b"weights" * 1000,
            "pytorch_model.bin": b"the same, pickled",
            "tokenizer.model": b"pieces",
            "README.md": b"# Little",
            "adapter/adapter_config.json": b"{}",
            "adapter/adapter_model.safetensors": b"learnt",
            "onnx/model.json": b"{}",
        }
        self.commit = "a" * 40
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: FakeHub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.server, self.path.partition("?")[0]
        hub.asked.append(f"{self.command} {path}")
        if re.fullmatch(rf"/api/models/{NAME}(/revision/[a-f]+)?", path):
            names = [{"rfilename": n, "size": len(b)} for n, b in hub.files.items()]
            self._send(json.dumps({"id": NAME, "sha": hub.commit, "siblings": names}).encode())
        elif match := re.fullmatch(rf"/{NAME}/resolve/(\w+)/(.+)", path):
            self._send(hub.files[match[2]], **{"X-Repo-Commit": hub.commit})
        else:
            self.send_error(404)

    def _send(self, body: bytes, **headers: str) -> None:
        self.send_response(200)
        etag = f'"{hashlib.sha256(body).hexdigest()}"'
        for name, value in {"ETag": etag, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    server = FakeHub()
    monkeypatch.setenv("MUSILINGO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    place = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", place)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()


def test_what_a_model_needs_is_fetched_once(hub: FakeHub) -> None:
    seen: list[tuple[str, float | None]] = []
    folder = fetch_repository(Repository(NAME), lambda *each: seen.append(each))
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert names == {
        "config.json", "model.safetensors", "tokenizer.model",
        "adapter/adapter_config.json", "adapter/adapter_model.safetensors",
    }  # fmt: skip
    assert seen[-1][0].startswith(f"Fetching {NAME}") and seen[-1][1] == 1.0
    hub.asked.clear()
    assert fetch_repository(Repository(NAME)) == folder
    assert not hub.asked  # not even a question


def test_pickled_weights_come_where_there_are_no_others(hub: FakeHub) -> None:
    del hub.files["model.safetensors"], hub.files["adapter/adapter_model.safetensors"]
    assert (fetch_repository(Repository(NAME)) / "pytorch_model.bin").is_file()


def test_a_part_may_be_wanted_and_later_more(hub: FakeHub) -> None:
    folder = fetch_repository(Repository(NAME, only=("tokenizer*",)))
    assert [p.name for p in folder.iterdir()] == ["tokenizer.model"]
    folder = fetch_repository(Repository(NAME))
    assert (folder / "model.safetensors").is_file()


def test_the_first_revision_stays(hub: FakeHub, tmp_path: Path) -> None:
    first = fetch_repository(Repository(NAME, only=("config.json",)))
    hub.commit = "b" * 40
    assert fetch_repository(Repository(NAME, only=("config.json",))) == first
    fetch_repository(Repository(NAME))
    assert f"GET /api/models/{NAME}/revision/{'a' * 40}" in hub.asked
    record = json.loads((tmp_path / "cache" / "hub.json").read_text())[NAME]
    assert (
        record["files"]["config.json"]["sha256"]
        == hashlib.sha256(hub.files["config.json"]).hexdigest()
    )


def test_other_bits_than_are_pinned_are_refused(hub: FakeHub) -> None:
    right = hashlib.sha256(hub.files["config.json"]).hexdigest()
    fetch_repository(Repository(NAME, "a" * 40, {"config.json": right}, ("config.json",)))
    with pytest.raises(CheckpointError, match="sha256"):
        fetch_repository(Repository(NAME, "a" * 40, {"config.json": "0" * 64}))


def test_other_bits_than_came_first_are_refused(hub: FakeHub) -> None:
    folder = fetch_repository(Repository(NAME))
    weights = (folder / "model.safetensors").resolve()
    weights.write_bytes(b"changed")
    with pytest.raises(CheckpointError, match="delete it to fetch it again"):
        fetch_repository(Repository(NAME))
    weights.unlink()
    fetch_repository(Repository(NAME))
    assert weights.read_bytes() == hub.files["model.safetensors"]


def test_without_the_hub_the_error_says_what_to_do(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WeightsUnavailable, match="hf download owner/other --local-dir DIR"):
        fetch_repository(Repository("owner/other"))
    fetch_repository(Repository(NAME))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fetch_repository(Repository(NAME))
    with pytest.raises(WeightsUnavailable, match="hf auth login"):
        fetch_repository(Repository("owner/other"))


def test_names_are_told_from_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "one").mkdir(parents=True)
    assert is_repository("m-a-p/MERT-v1-330M")
    for path in ("runs/one", "./runs/two", "/tmp/x", "a/b/c", "model", "../x"):
        assert not is_repository(path)


def test_everything_covers_a_part(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch_repository(Repository(NAME))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert (fetch_repository(Repository(NAME, only=("config.json",))) / "config.json").is_file()


def test_a_named_revision_is_written_down_apart(hub: FakeHub) -> None:
    first = fetch_repository(Repository(NAME))
    hub.commit = "b" * 40
    other = fetch_repository(Repository(NAME, "b" * 40))
    assert first != other == fetch_repository(Repository(NAME, "b" * 40))
    assert fetch_repository(Repository(NAME)) == first


@pytest.mark.parametrize("text", ["[]", "null", "{", '{"o/n": 5}', '{"o/n": {"revision": "x"}}'])
def test_a_damaged_record_says_so(hub: FakeHub, tmp_path: Path, text: str) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "hub.json").write_text(text)
    with pytest.raises(CheckpointError, match="delete it to forget"):
        fetch_repository(Repository(NAME))


def test_records_of_many_at_once_are_all_kept(hub: FakeHub, tmp_path: Path) -> None:
    def write(number: int) -> None:
        _write_down(Repository(f"o/{number}"), {"revision": "x", "files": {}})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(40)))
    assert len(json.loads((tmp_path / "cache" / "hub.json").read_text())) == 40
