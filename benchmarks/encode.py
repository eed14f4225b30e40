"""What hearing a song costs: time for each minute of it, and memory.

    python -m benchmarks.encode --output benchmarks/results/encode

Each song is heard in a process of its own, whose peak of memory is told above what its imports
took (so it includes the weights). The starter hears songs of 1, 5 and 20 minutes. Encoders of the
sizes of MERT-v1-95M and MERT-v1-330M, with random weights, hear 1 and 3 minutes, *ours*, in float32
as by default and in bfloat16, beside the *plain* way, one pass in float32 over the whole song with
all hidden states stacked; the smaller one hears 20 minutes, too, to show its memory. Songs are the
page's example clips, repeated. Times are medians over rounds, ratios medians of ratios within a
round.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.reports import write_report
from benchmarks.turns import make_song
from musilingo_core.audio import AudioLimits, read_blocks
from musilingo_core.encoders import MusicEncoder, encode
from musilingo_core.encoders.mert import MertConfig, MertEncoder
from musilingo_core.models import find_preset
from musilingo_core.weights import encoder_folder, load_encoder

OURS, HALF, PLAIN = "ours", "ours, bfloat16", "plain"
STARTER, SMALL, LARGE = "starter", "MERT-95M-sized", "MERT-330M-sized"
SHAPES: dict[str, dict[str, Any]] = {
    SMALL: {},
    LARGE: {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
        "num_attention_heads": 16, "do_stable_layer_norm": True,
    },
}  # fmt: skip
Case = tuple[str, float, str]  # encoder, minutes, way
CASES: tuple[Case, ...] = (
    *((STARTER, minutes, OURS) for minutes in (1.0, 5.0, 20.0)),
    *(
        (size, minutes, way)
        for size in SHAPES
        for minutes in (1.0, 3.0)
        for way in (OURS, HALF, PLAIN)
    ),
)
LONG: Case = (SMALL, 20.0, OURS)
LIMITS = AudioLimits(max_duration_s=3600)


def make_encoder(name: str, way: str) -> Any:
    """An encoder by its name; of a MERT's size it has random weights, the same each time."""
    if name == STARTER:
        return load_encoder(encoder_folder(find_preset("starter")), "cpu")
    torch.manual_seed(0)
    encoder = MertEncoder(MertConfig(**SHAPES[name])).eval()
    return encoder.bfloat16() if way == HALF else encoder


@torch.inference_mode()
def plainly(encoder: MertEncoder, blocks: Iterator[Any]) -> torch.Tensor:
    """(rows, size): the whole song in one pass, the mean of a stack of all hidden states."""
    song = torch.cat([torch.from_numpy(block) for block in blocks])
    states = encoder.model(song.unsqueeze(0), output_hidden_states=True).hidden_states
    mean = torch.stack(states).mean(0)
    frames = mean.split(encoder.config.frames_per_row, dim=1)
    return torch.cat([block.mean(1) for block in frames])


def measure(case: Case, song: Path) -> dict[str, float]:
    """Seconds to hear a song, and bytes of memory above imports, of this process."""
    name, _, way = case
    before = peak()
    encoder: MusicEncoder = make_encoder(name, way)
    begun = time.perf_counter()
    blocks = read_blocks(song, encoder.sample_rate, LIMITS)
    features = plainly(encoder, blocks) if way == PLAIN else encode(encoder, blocks)[0]  # type: ignore[arg-type]
    seconds = time.perf_counter() - begun
    assert torch.isfinite(features).all()
    return {"seconds": seconds, "bytes": peak() - before}


def peak() -> int:
    """Most bytes that this process has had in memory."""
    if (status := Path("/proc/self/status")).is_file():  # getrusage counts what came before exec
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure_apart(case: Case, song: Path) -> dict[str, float]:
    """As `measure`, in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.encode", "--measure", *map(str, case), str(song)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def strayed(name: str, song: Path) -> float:
    """How far features in bfloat16 lie from those in float32, as a part of these."""
    found = []
    for way in (OURS, HALF):
        encoder = make_encoder(name, way)
        found.append(encode(encoder, read_blocks(song, encoder.sample_rate, LIMITS))[0])
    exact, half = found
    return float((half - exact).norm() / exact.norm())


def table(rows: Sequence[dict[str, Any]]) -> str:
    """What was measured, for people."""
    lines = [
        "| encoder | minutes | way | seconds for a minute | plain ÷ this | MB of memory |",
        "|---|--:|---|--:|--:|--:|",
    ]
    for name, minutes, way in dict.fromkeys(r["case"] for r in rows):
        these = [r for r in rows if r["case"] == (name, minutes, way)]
        plain = [r["seconds"] for r in rows if r["case"] == (name, minutes, PLAIN)]
        each = statistics.median(r["seconds"] for r in these) / minutes
        ratios = [theirs / r["seconds"] for r, theirs in zip(these, plain, strict=False)]
        cell = f"{statistics.median(ratios):.2f}" if ratios else ""
        most = statistics.median(r["bytes"] for r in these) / 1e6
        lines.append(f"| {name} | {minutes:g} | {way} | {each:.2f} | {cell} | {most:.0f} |")
    grown = memory(rows, (STARTER, 20.0, OURS)) / memory(rows, (STARTER, 5.0, OURS))
    return "\n".join([*lines, "", f"The starter's memory, 20 minutes ÷ 5: {grown:.2f}."]) + "\n"


def memory(rows: Sequence[dict[str, Any]], case: Case) -> float:
    """Bytes of a case."""
    return statistics.median(row["bytes"] for row in rows if row["case"] == case)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, metavar="DIR")
    options = parser.parse_args()
    if options.measure:
        name, minutes, way, song = options.measure
        print(json.dumps(measure((name, float(minutes), way), Path(song))))
        return
    if options.output is None:
        parser.error("--output is missing")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        songs = {minutes: make_song(minutes, Path(folder)) for _, minutes, _ in (*CASES, LONG)}
        for number in range(options.rounds):
            for case in CASES if number else (*CASES, LONG):
                rows.append({"case": case} | measure_apart(case, songs[case[1]]))
        apart = {name: strayed(name, songs[1.0]) for name in SHAPES}
    text = table(rows) + "\nFeatures in bfloat16 stray from those in float32 by: "
    text += ", ".join(f"{name} {100 * part:.2f} %" for name, part in apart.items()) + ".\n"
    measured = {"threads": torch.get_num_threads(), "strayed": apart, "rows": rows}
    write_report(options.output, "encode", text, measured)


if __name__ == "__main__":
    main()
