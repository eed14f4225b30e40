"""Has an independent model judge which songs are sung: a truth for `benchmarks.hearing --judged`.

    python3 -m venv judge && judge/bin/pip install vibenet==0.1.0 onnxruntime
    judge/bin/python benchmarks/judge.py --music data/test/manifest.jsonl --output data/judged.jsonl

vibenet (GPL-3) says how instrumental a recording is, from 0 to 1, by a network and features of its
own. It judges answers here and teaches nothing; the project neither depends on it nor ships it,
which is why it lives in an environment of its own and this script imports nothing of ours. Needs
``ffmpeg``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RATE = 16_000  # Hz, vibenet's
PIECE_S, SHORTEST_S, LONGEST_S = 30, 10, 180  # heard in pieces, up to three minutes


def pieces(path: Path) -> Iterator[Any]:
    """Pieces of a recording, (samples,) float32 mono at `RATE`."""
    import numpy as np

    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", str(path), "-t", str(LONGEST_S)]
    command += ["-ac", "1", "-ar", str(RATE), "-f", "f32le", "-"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    samples = np.frombuffer(raw, dtype=np.float32)
    for start in range(0, len(samples), PIECE_S * RATE):
        piece = samples[start : start + PIECE_S * RATE]
        if len(piece) >= SHORTEST_S * RATE or not start:
            yield piece


def main() -> None:
    """Writes a line for each song: its path and how instrumental it is, the median of pieces."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--music", type=Path, nargs="+", required=True, metavar="JSONL")
    parser.add_argument("--output", type=Path, required=True, metavar="JSONL")
    options = parser.parse_args()
    from vibenet.backends import EfficientNetModel

    model = EfficientNetModel()
    with options.output.open("w", encoding="utf-8") as file:
        for listed in options.music:
            for line in listed.read_text("utf-8").splitlines():
                path = (listed.parent / json.loads(line)["path"]).resolve()
                heard = [model.predict(p, sr=RATE)[0].instrumentalness for p in pieces(path)]
                row = {"path": str(path), "instrumental": round(statistics.median(heard), 3)}
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
