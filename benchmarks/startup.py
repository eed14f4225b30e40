"""From the command to the page, beside importing what it is made of.

    python -m benchmarks.startup --output benchmarks/results/startup

In each round the page is started and asked for until it answers, and an empty Python imports torch,
transformers and gradio. Figures are medians, the ratio is the median of ratios within a round.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.reports import write_report

IMPORTS = "import torch, transformers, gradio"
LONGEST_S = 300.0
BROKEN = "The page does not start; run `python app.py` to see why."


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


def page_s() -> tuple[float, float]:
    """Seconds from the command until the page answers, and until the model is ready."""
    port = free_port()
    begun = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "app.py"], env={**os.environ, "MUSILINGO_PORT": str(port)},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as page:  # fmt: skip
        end = threading.Timer(LONGEST_S, page.kill)
        end.start()
        try:
            while not answers(port):
                if page.poll() is not None:
                    raise SystemExit(BROKEN)
                time.sleep(0.02)
            answered = time.perf_counter() - begun
            assert page.stdout is not None
            if not any("is ready" in line for line in page.stdout):
                raise SystemExit(BROKEN)
            return answered, time.perf_counter() - begun
        finally:
            end.cancel()
            page.terminate()


def answers(port: int) -> bool:
    """Whether the page is there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as response:
            return bool(response.status == 200 and response.read())
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def imports_s() -> float:
    """Seconds that an empty Python takes to import the three."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    return time.perf_counter() - begun


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    rows = []
    for number in range(options.rounds + 1):  # the first fills the disk's cache
        answered, ready = page_s()
        row = {"page_s": answered, "ready_s": ready, "imports_s": imports_s()}
        rows += [row] if number else []
    middle = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    ratio = statistics.median(row["page_s"] / row["imports_s"] for row in rows)
    text = (
        "| page answers | model is ready | three imports | page ÷ imports |\n|--:|--:|--:|--:|\n"
        f"| {middle['page_s']:.1f} s | {middle['ready_s']:.1f} s | {middle['imports_s']:.1f} s "
        f"| {ratio:.2f} |\n"
    )
    write_report(options.output, "startup", text, {"ratio": ratio, "rows": rows})


if __name__ == "__main__":
    main()
