from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from musilingo_core.errors import ConfigError
from musilingo_core.schedule import TrainingConfig, learning_rate, read_settings


def test_the_rate_rises_then_falls() -> None:
    config = TrainingConfig(steps=100, warmup_steps=10, learning_rate=1.0)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[0] == 0.1 and rates[9] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.02, abs=0.002)
    assert learning_rate(55, config) == pytest.approx((1 + 0.02) / 2)
    assert learning_rate(99, replace(config, final_rate=0.8)) == pytest.approx(0.8, abs=0.002)


def test_a_file_holds_what_differs(tmp_path: Path) -> None:
    file = tmp_path / "stage.toml"
    file.write_text("steps = 20_000\nlearning_rate = 1e-4\nwhiten = 1\n# a remark\n")
    assert read_settings(file) == {"steps": 20_000, "learning_rate": 1e-4, "whiten": 1.0}
    assert isinstance(read_settings(file)["whiten"], float)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("learning_rte = 1.0", "“learning_rte”; did you mean “learning_rate”"),
        ("zzz = 1", "no setting “zzz”; did you mean"),
        ("steps = 1.5", "steps is of type int, not 1.5"),
        ("steps = true", "steps is of type int, not True"),
        ("precision = 16", "precision is of type str"),
        ("steps = ", "cannot be read"),
    ],
)
def test_what_is_no_setting_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "stage.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=complaint) as raised:
        read_settings(file)
    assert str(file) in str(raised.value)


@pytest.mark.parametrize("preset", ["paper", "starter", "starter-frozen"])
def test_the_stages_that_are_shipped_are_settings(preset: str) -> None:
    folder = Path(str(resources.files("musilingo_core") / "presets" / preset))
    stages = list(folder.glob("stage*.toml"))
    assert stages
    for stage in stages:
        config = TrainingConfig(**read_settings(stage))  # type: ignore[arg-type]
        assert config.warmup_steps < config.steps


def test_the_paper_s_rates_are_the_paper_s() -> None:
    folder = Path(str(resources.files("musilingo_core") / "presets" / "paper"))
    for stage, highest, lowest in (("stage1", 1e-4, 8e-5), ("stage2", 3e-5, 1e-5)):
        config = TrainingConfig(**read_settings(folder / f"{stage}.toml"))  # type: ignore[arg-type]
        assert learning_rate(config.warmup_steps, config) == pytest.approx(highest)
        assert learning_rate(config.steps - 1, config) == pytest.approx(lowest, rel=0.01)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings(tmp_path / "none.toml")
