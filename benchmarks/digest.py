"""The tables of the README's “What it hears, measured”, from what the other scripts wrote.

    python -m benchmarks.digest benchmarks/results/starter benchmarks/results/starter-frozen

Each folder holds `hearing.json`, `follow_ups.md` and `evaluated.json`, which is what
`musilingo_core table --json` prints of the evaluations. Prints Markdown: what the first run heard
beside its baselines and the second run's figures, then multiple choice and `matched` in the same
way, then the descriptions and the follow-ups of both.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LENGTHS = ("12", "60", "whole")
Row = dict[str, Any]


def heard_table(ours: Row, theirs: Row, name: str) -> str:
    """A row for each truth and question: the figures of all lengths, and the highest baselines.

    Args:
        ours: What `hearing.json` of a run holds.
        theirs: That of the run beside it.
        name: Of that run.
    """
    head = ["truth", "asked", "12 s", "60 s", "whole", "wrong song", "noise", "no music", "probe"]
    lines = [f"| {' | '.join(head)} | `{name}` |", "|---|---|" + "--:|" * 6 + "---|---|"]
    found, beside = _by_length(ours), _by_length(theirs)
    for (truth, attribute), rows in found.items():
        right = [rows.get(length) for length in LENGTHS]
        cells = [
            _cell(f["balanced_accuracy"], *f["interval"], f["tracks"]) if f else "" for f in right
        ]
        controls = [_highest(rows.values(), control) for control in ("wrong", "noise", "deaf")]
        probe = " ".join(_percent(rows[n].get("probe")) for n in LENGTHS if n in rows)
        other = beside.get((truth, attribute), {})
        figures = " ".join(_percent(other[n]["balanced_accuracy"]) for n in LENGTHS if n in other)
        row = [truth, attribute, *cells, *controls, probe.strip(), figures]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def evaluated_table(ours: Sequence[Row], theirs: Sequence[Row], name: str) -> str:
    """Multiple choice and `matched`: a row for each metric, otherwise as `heard_table`.

    Args:
        ours: Evaluations of a model, each of files named KIND-LENGTH.
        theirs: Those of the model beside it.
        name: Of that model.
    """
    controls = ("wrong song", "noise", "no music")
    head = ["by likelihood, %", "12 s", "60 s", "whole", *controls, "chance"]
    lines = [f"| {' | '.join(head)} | `{name}` |", "|---|" + "--:|" * 7 + "---|"]
    found, beside = _by_metric(ours), _by_metric(theirs)
    for (kind, metric), lengths in found.items():
        right = [lengths.get((length, "right song")) for length in LENGTHS]
        cells = [_cell(f["value"], f["low"], f["high"], f["examples"]) if f else "" for f in right]
        for control in controls:
            shares = [figure["value"] for (_, of), figure in lengths.items() if of == control]
            cells.append(_percent(max(shares, default=None)))
        chances = [figure["chance"] for figure in right if figure]
        cells.append(_percent(max(chances)))
        other = beside.get((kind, metric), {})
        figures = (other.get((length, "right song")) for length in LENGTHS)
        cells.append(" ".join(_percent(figure["value"]) for figure in figures if figure))
        label = f"{kind}, {metric}" if metric == "matched" else metric
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def described_table(runs: dict[str, Row]) -> str:
    """What the descriptions of each run claim, of the right and of a wrong song."""
    head = ["“Describe this music.”", "true things", "three or more true, %"]
    lines = [f"| {' | '.join(head)} | false of all decided, % |", "|---|--:|--:|--:|"]
    for name, run in runs.items():
        for song in ("right song", "wrong song"):
            told = [row[song] for row in run["described"] if song in row]
            cells = [
                " / ".join(f"{row['true'][0]:.1f}" for row in told),
                " / ".join(_percent(row["three_true"][0]) for row in told),
                " / ".join(_percent(row["false_share"][0]) for row in told),
            ]
            about = "" if song == "right song" else ", about a wrong song"
            lines.append(f"| `{name}`{about} | {' | '.join(cells)} |")
    return "\n".join(lines)


def follow_ups_table(runs: dict[str, Path]) -> str:
    """The first rows of each run's `follow_ups.md`, a column a set of replies."""
    lines = []
    for name, folder in runs.items():
        text = (folder / "follow_ups.md").read_text("utf-8").splitlines()
        rows = [line.strip("| ").split(" | ") for line in text if line.startswith("|")]
        sets = [row for row in rows if len(row) > 1 and row[1].startswith("**")]
        if not lines:
            lines += [
                f"| second and third answers that fit, % | {' | '.join(row[0] for row in sets)} |",
                "|---|" + "--:|" * len(sets),
            ]
        lines.append(f"| `{name}` | {' | '.join(row[1] for row in sets)} |")
    return "\n".join(lines)


def _by_metric(runs: Sequence[Row]) -> dict[tuple[str, str], dict[tuple[str, str], Row]]:
    """Figures by kind of questions and metric, then by length and control."""
    found: dict[tuple[str, str], dict[tuple[str, str], Row]] = {}
    for run in runs:
        kind, _, length = Path(run["command"].split()[2]).stem.rpartition("-")
        for figure in run["figures"]:
            if figure["metric"].startswith("accuracy") or figure["metric"] == "matched":
                place = found.setdefault((kind, figure["metric"]), {})
                place[length, figure["control"] or "right song"] = figure  # `matched` has none
    return found


def _by_length(run: Row) -> dict[tuple[str, str], dict[str, Row]]:
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in run["heard"]:
        found.setdefault((row["truth"], row["attribute"]), {})[row["length"]] = row
    return found


def _cell(share: float, low: float, high: float, count: int) -> str:
    return f"**{_percent(share)}** ({_percent(low)}–{_percent(high)}; {count})"


def _highest(rows: Any, control: str) -> str:
    """The highest of all lengths; empty where a control makes no sense."""
    return _percent(max((row[control] for row in rows if row[control] is not None), default=None))


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f}"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs=2, metavar="DIR")
    folders = {folder.name: folder for folder in parser.parse_args().runs}
    runs = {n: json.loads((f / "hearing.json").read_text("utf-8")) for n, f in folders.items()}
    (_, ours), (name, theirs) = runs.items()
    print(heard_table(ours, theirs, name), end="\n\n")
    told = [json.loads((f / "evaluated.json").read_text("utf-8")) for f in folders.values()]
    print(evaluated_table(*told, name), end="\n\n")
    print(described_table(runs), end="\n\n")
    print(follow_ups_table(folders))


if __name__ == "__main__":
    main()
