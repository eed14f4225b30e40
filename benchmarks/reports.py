"""What a benchmark of speed leaves behind: a table for people, and all of it as JSON."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from musilingo_core.evaluation import commit


def write_report(folder: Path, name: str, table: str, measured: dict[str, Any]) -> None:
    """Writes `NAME.md` and `NAME.json`, with the command and the commit, and prints the first.

    Args:
        folder: Where to; made if need be.
        name: Of the benchmark's module.
        table: Markdown that ends with a line end.
        measured: All of it.
    """
    command = shlex.join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]])
    report = {"command": command, "commit": commit(), **measured}
    text = f"{table}\nAt {report['commit']}:\n\n```bash\n{command}\n```\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)
