"""Where the page runs: defaults, differences, and refusals."""

from pathlib import Path

import pytest

from demo.settings import Settings
from musilingo_core.errors import ConfigError


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Settings.from_environment({}) == Settings()


def test_the_defaults_serve_this_machine_only() -> None:
    assert Settings().host == "127.0.0.1"


def test_a_space_listens_on_every_address() -> None:
    settings = Settings.from_environment({"SPACE_ID": "someone/musilingo"})
    assert (settings.host, settings.port) == ("0.0.0.0", 7860)


def test_the_environment_holds_differences() -> None:
    settings = Settings.from_environment(
        {"MUSILINGO_PORT": "8000", "MUSILINGO_PRESET": "full", "MUSILINGO_EXAMPLES": "/somewhere"}
    )
    assert settings == Settings(port=8000, preset="full", examples=Path("/somewhere"))


def test_an_empty_variable_counts_as_not_set() -> None:
    assert Settings.from_environment({"MUSILINGO_PORT": ""}) == Settings()


def test_a_value_that_is_no_number_is_an_error_that_names_the_variable() -> None:
    with pytest.raises(ConfigError, match=r"MUSILINGO_PORT.*many"):
        Settings.from_environment({"MUSILINGO_PORT": "many"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_file_mb", 0),
        ("max_minutes", 0),
        ("replies", 0),
        ("listeners", 0),
        ("queue_size", 0),
        ("upload_age_s", 7200),
    ],
)
def test_a_number_out_of_range_is_an_error_that_names_the_setting(name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=name.upper()):
        Settings(**{name: value})


def test_a_port_out_of_range_is_an_error() -> None:
    with pytest.raises(ConfigError, match="PORT"):
        Settings(port=70_000)


def test_uploads_are_kept_an_hour_at_most() -> None:
    assert Settings().upload_age_s <= 3600


def test_no_other_file_of_the_page_reads_the_environment() -> None:
    folder = Path(__file__).parents[2] / "demo"
    readers = [path.name for path in folder.rglob("*.py") if "environ" in path.read_text("utf-8")]
    assert readers == ["settings.py"]


def test_a_space_that_is_lent_its_gpu_says_so() -> None:
    assert Settings.from_environment({"SPACES_ZERO_GPU": "true"}).zero_gpu
    assert not Settings.from_environment({"SPACES_ZERO_GPU": "false"}).zero_gpu
    assert not Settings.from_environment({}).zero_gpu
