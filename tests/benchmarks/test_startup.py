import http.server
import json
import threading
from pathlib import Path

import pytest

from benchmarks import startup
from benchmarks.reports import write_report


def test_a_page_answers_when_it_is_there() -> None:
    port = startup.free_port()
    assert not startup.answers(port)
    server = http.server.HTTPServer(("127.0.0.1", port), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert startup.answers(port)
    server.shutdown()
    server.server_close()


def test_a_page_that_does_not_start_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app.py").write_text("raise SystemExit(1)")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"python app\.py"):
        startup.page_s()


def test_the_report_has_medians_the_command_and_all_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([(9.0, 99.0), (2.0, 8.0), (3.0, 9.0), (4.0, 13.0)])
    monkeypatch.setattr(startup, "page_s", lambda: next(times))
    monkeypatch.setattr(startup, "imports_s", lambda: 2.0)
    words = ["startup", "--rounds", "3", "--output", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", words)
    startup.main()
    text = (tmp_path / "out" / "startup.md").read_text(encoding="utf-8")
    assert "| 3.0 s | 9.0 s | 2.0 s | 1.50 |" in text
    assert f"python -m benchmarks.startup --rounds 3 --output {tmp_path}/out" in text
    report = json.loads((tmp_path / "out" / "startup.json").read_text())
    assert len(report["rows"]) == 3 and report["ratio"] == 1.5 and report["commit"]


def test_a_report_prints_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_report(tmp_path / "new", "decode", "| a |\n", {"figure": 1})
    assert capsys.readouterr().out.startswith("| a |\n\nAt ")
    assert json.loads((tmp_path / "new" / "decode.json").read_text())["figure"] == 1
