import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from musilingo_core.configuration import pooled_rows
from musilingo_core.errors import ClipNotFound
from musilingo_core.features import FeatureCache, clip_id, load_clip, pool, save_clip
from tests.conftest import make_clip

KEYS = [f"{i:016x}" for i in range(8)]


def test_ids_follow_bytes_and_encoder_and_not_names(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"sound")
    b.write_bytes(b"sound")
    assert clip_id(a, "x") == clip_id(b, "x") != clip_id(a, "y")
    b.write_bytes(b"sounds")
    assert clip_id(a, "x") != clip_id(b, "x")
    assert len(clip_id(a, "x")) == 16


def test_a_clip_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    clip = make_clip()
    save_clip(clip, tmp_path / "new" / "clip.safetensors")
    loaded = load_clip(tmp_path / "new" / "clip.safetensors")
    assert torch.equal(loaded.features, clip.features) and torch.equal(loaded.times, clip.times)
    assert replace(loaded, features=clip.features, times=clip.times) == clip
    assert load_file(tmp_path / "new" / "clip.safetensors")["features"].dtype == torch.float32
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_a_fresh_cache_finds_what_another_left_on_disk(tmp_path: Path) -> None:
    FeatureCache(tmp_path).put(make_clip(key=KEYS[1]))
    assert FeatureCache(tmp_path).get(KEYS[1]).clip_id == KEYS[1]
    with pytest.raises(ClipNotFound, match="upload it again"):
        FeatureCache(tmp_path).get(KEYS[2])


@pytest.mark.parametrize("damage", [b"", b"rubbish", None])
def test_a_damaged_file_counts_as_missing_and_is_made_again(
    tmp_path: Path, damage: bytes | None
) -> None:
    FeatureCache(tmp_path).put(make_clip(key=KEYS[0]))
    path = tmp_path / f"{KEYS[0]}.safetensors"
    path.write_bytes(path.read_bytes()[:-100] if damage is None else damage)
    fresh = FeatureCache(tmp_path)
    assert KEYS[0] not in fresh
    made = fresh.get_or(KEYS[0], lambda: make_clip(key=KEYS[0]))
    assert torch.equal(FeatureCache(tmp_path).get(KEYS[0]).features, made.features)


def test_a_file_of_another_clip_is_not_believed(tmp_path: Path) -> None:
    save_clip(make_clip(key=KEYS[0]), tmp_path / f"{KEYS[1]}.safetensors")
    assert KEYS[1] not in FeatureCache(tmp_path)


@pytest.mark.parametrize("key", ["../secret", "x" * 16, "", "0" * 15, "0" * 16 + "/"])
def test_what_is_no_id_is_never_a_file_name(tmp_path: Path, key: str) -> None:
    with pytest.raises(ClipNotFound):
        FeatureCache(tmp_path).get(key)


def test_memory_is_bounded_and_the_latest_stay() -> None:
    one = make_clip().features.nbytes + make_clip().times.nbytes
    cache = FeatureCache(memory_bytes=3 * one)
    for key in KEYS[:3]:
        cache.put(make_clip(key=key))
    cache.get(KEYS[0])
    cache.put(make_clip(key=KEYS[3]))
    assert [key in cache for key in KEYS[:4]] == [True, False, True, True]


def test_disk_is_bounded_and_the_longest_unused_go_first(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, disk_bytes=50_000)
    for age, key in enumerate(KEYS[:5]):
        cache.put(make_clip(key=key))  # about 16 kB each
        path = tmp_path / f"{key}.safetensors"
        if path.exists():
            os.utime(path, (1000 + age, 1000 + age))
    left = {path.stem for path in tmp_path.glob("*.safetensors")}
    assert KEYS[4] in left and KEYS[0] not in left and len(left) == 3


def test_what_a_killed_process_left_is_tidied(tmp_path: Path) -> None:
    old, new, folder = tmp_path / "old.tmp", tmp_path / "new.tmp", tmp_path / "folder.tmp"
    folder.mkdir()
    for path in (old, new, folder / "file"):
        path.write_bytes(b"half")
    for path in (old, folder):
        os.utime(path, (1000, 1000))
    FeatureCache(tmp_path).put(make_clip())
    assert not old.exists() and not folder.exists() and new.exists()


def test_many_threads_may_use_one_cache(tmp_path: Path) -> None:
    cache, faults = FeatureCache(tmp_path, memory_bytes=40_000, disk_bytes=60_000), []

    def work(number: int) -> None:
        for turn in range(20):
            key = KEYS[(number + turn) % 8]
            clip = cache.get_or(key, lambda key=key: make_clip(key=key))  # type: ignore[misc]
            if clip.clip_id != key:
                faults.append(key)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


def test_a_part_holds_the_rows_that_overlap_it() -> None:
    clip = make_clip(10)
    assert torch.equal(clip.part(3, 9).features, clip.features[1:3])
    assert torch.equal(clip.part(4, 4.5).features, clip.features[1:2])
    assert torch.equal(clip.part(29.9, 30).features, clip.features[9:])
    assert len(clip.part(100, 101).features) == 1


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 200])
@pytest.mark.parametrize("segments", [None, 1, 4])
def test_pooling_bounds_rows_and_keeps_their_order(rows: int, segments: int | None) -> None:
    features = torch.arange(rows, dtype=torch.float32).unsqueeze(1).repeat(1, 5)
    pooled = pool(features, segments)
    assert pooled.shape == (pooled_rows(rows, segments), 5)
    if segments is not None and rows > 1:
        assert pooled[0, 0] == pytest.approx((rows - 1) / 2)
        assert pooled[1:, 0].tolist() == sorted(pooled[1:, 0].tolist())
        weights = torch.tensor([len(p) for p in features.tensor_split(len(pooled) - 1)])
        assert float((pooled[1:, 0] * weights).sum()) == pytest.approx(features[:, 0].sum())
