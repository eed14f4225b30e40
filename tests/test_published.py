"""What the Hub holds, for who can ask it: `HF_HUB_OFFLINE=0 python -m pytest -m network`."""

import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

from musilingo_core.cli import main
from musilingo_core.folders import read_settings
from musilingo_core.hub import Repository
from musilingo_core.memory import free_bytes
from musilingo_core.models import MERT_330M, PRESETS, VICUNA_V0
from musilingo_core.placement import CPU
from musilingo_core.verification import verify_shapes
from musilingo_core.weights import folder_of, load_tokenizer

CHECKPOINTS = {preset.name: preset for preset in PRESETS.values() if preset.checkpoint}
WHOLE = 35e9  # bytes that a model of seven billion weights takes here, at most
pytestmark = pytest.mark.network


@pytest.fixture(scope="module")
def hub() -> HfApi:
    """The Hub, or a skip that says why not."""
    if constants.HF_HUB_OFFLINE:
        pytest.skip("the Hub is not asked; HF_HUB_OFFLINE=0 lets it be")
    api = HfApi()
    try:
        api.model_info(MERT_330M.name)
    except HTTPError as error:
        pytest.skip(f"the Hub cannot be reached: {error}")
    return api


def test_what_is_pinned_is_what_the_hub_has(hub: HfApi) -> None:
    info = hub.model_info(MERT_330M.name, revision=MERT_330M.revision, files_metadata=True)
    large = {file.rfilename: file.lfs.sha256 for file in info.siblings or () if file.lfs}
    assert large["pytorch_model.bin"] == MERT_330M.hashes["pytorch_model.bin"]
    small = Repository(MERT_330M.name, MERT_330M.revision, MERT_330M.hashes, ("*.json",))
    assert (folder_of(small) / "config.json").is_file()  # its hash was compared


def test_vicunas_tokenizer_can_be_read(hub: HfApi) -> None:
    preset = CHECKPOINTS["musilingo-long"]
    tokenizer = load_tokenizer(folder_of(preset.language_model))
    assert isinstance(preset.language_model, Repository)
    assert preset.language_model.name == VICUNA_V0.name
    assert tokenizer.bos_token_id == 1 and tokenizer.eos_token_id == 2


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_is_laid_out_as_its_preset_says(hub: HfApi, name: str) -> None:
    """Headers of the weights' files are fetched, and no weights."""
    repository = CHECKPOINTS[name].checkpoint
    assert repository
    files = hub.get_safetensors_metadata(repository.name).files_metadata.values()
    shapes = {key: tuple(tensor.shape) for file in files for key, tensor in file.tensors.items()}
    settings = Repository(repository.name, only=("config.json",))
    checks = list(verify_shapes(shapes, read_settings(folder_of(settings)), repository.name))
    assert all(check.good is not False for check in checks), "\n".join(map(str, checks))


@pytest.mark.slow
@pytest.mark.timeout(3 * 3600)
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_computes_as_plain_transformers(hub: HfApi, name: str) -> None:
    """Some 15 GB are fetched, once."""
    if free_bytes(CPU) < WHOLE:
        pytest.skip(f"{WHOLE / 1e9:.0f} GB of memory are needed")
    assert main(["verify", "--preset", name]) == 0
