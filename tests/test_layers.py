"""Imports point up only, nothing heavy or loud happens at import, and each side knows its own."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LEVELS = [
    {"errors", "storage"},
    {
        "audio",
        "initialisation",
        "metrics",
        "placement",
        "quantization",
        "features",
        "configuration",
        "sampling",
        "schedule",
        "folders",
        "forms",
        "hub",
        "times",
    },
    {"adapter", "encoders", "kernels", "llama", "prompt", "wheels"},
    {
        "processing",
        "modeling",
        "packed",
        "prefix_cache",
        "checkpoints",
        "models",
        "data.manifest",
        "data.facts",
        "whitening",
    },
    {"memory", "likelihood", "decoder"},
    {"weights"},
    {"generation"},
    {"engine", "release", "conversion"},
    {"verification", "lending"},
    {"data"},
    {"training", "evaluation"},
    {"cli"},
]


def modules() -> dict[str, Path]:
    folder = ROOT / "musilingo_core"
    return {
        ".".join(path.relative_to(folder).with_suffix("").parts): path
        for path in folder.rglob("*.py")
        if path.name not in {"__init__.py", "__main__.py"} or path.parent.name == "encoders"
    }


def level(module: str) -> int:
    for number, names in enumerate(LEVELS):
        if module in names:
            return number
    return next(n for n, names in enumerate(LEVELS) if module.split(".")[0] in names)


def top_level_imports(path: Path) -> set[str]:
    """Names imported by statements of the module itself (imports inside functions are late)."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_point_up_only(module: str) -> None:
    for name in top_level_imports(modules()[module]):
        if name.startswith("musilingo_core."):
            other = name.removeprefix("musilingo_core.")
            siblings = other.split(".")[0] == module.split(".")[0]
            assert level(other) < level(module) or siblings, f"{module} imports {other}"


def sources(folder: str) -> str:
    return "\n".join(path.read_text("utf-8") for path in (ROOT / folder).rglob("*.py"))


def test_the_core_knows_no_page_and_the_page_no_tensors() -> None:
    assert "import gradio" not in sources("musilingo_core")
    assert "import demo" not in sources("musilingo_core")
    assert "from demo" not in sources("musilingo_core")
    assert "import torch" not in sources("demo")
    assert "from torch" not in sources("demo")


def test_importing_the_package_loads_no_torch_and_prints_nothing() -> None:
    code = "import musilingo_core, sys; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0 and not done.stdout and not done.stderr


def test_asking_for_help_loads_no_torch() -> None:
    code = (
        "import sys; from musilingo_core.cli import main\n"
        "try: main(['train', '--help'])\n"
        "finally: assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0 and b"--learning-rate" in done.stdout and not done.stderr


def test_no_broad_excepts_and_no_unsafe_loading() -> None:
    text = sources("musilingo_core") + sources("demo") + sources("benchmarks")
    for forbidden in (
        "except Exception",
        "except:",
        "trust_remote_code",
        "share=True",
        "import pickle",
    ):
        assert forbidden not in text
    assert text.count("torch.load(") == text.count("weights_only=True")
