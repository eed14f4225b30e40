"""What do an encoder's features tell? A probe for each thing that is certain of rendered scores.

    python -m benchmarks.probe --train scores-train/manifest.jsonl \
        --test scores/manifest.jsonl --test scores-timgm/manifest.jsonl --output results

A logistic regression learns each attribute from a clip's features: from the mean of its rows, and
from their mean and standard deviation. It is tested on other works, in each list on its own: give
one with the instruments of the training clips and one with others. What it cannot find, a language
model behind one linear projection is unlikely to hear. (A ridge regression stands in for `bpm`; it
is right within 4 %.) Beside the balanced accuracy and its interval, a bootstrap over works, stand
*chance*, the best constant answer, and *guess*, a regression that knows no sound but the composer
and the other attributes: where chorales are slow and reels in major, style alone tells much.

*Heard* is what beats both with the lower end of its interval in every list, by the features that
did better in cross-validation on the training works; *faintly*, where the answer would still be
wrong more often than right. `probe.json` names what is heard for `musilingo build-data scores
--heard`.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from musilingo_core.audio import AudioLimits
from musilingo_core.data.certain import ATTRIBUTES, MANY, stretches, throughout
from musilingo_core.data.manifest import read_sounds
from musilingo_core.encoders import MusicEncoder, fingerprint
from musilingo_core.engine import hear
from musilingo_core.features import FeatureCache, clip_id
from musilingo_core.metrics import balanced_accuracy, bootstrap
from musilingo_core.models import find_preset
from musilingo_core.storage import cache_folder
from musilingo_core.weights import encoder_folder, load_encoder

FEWEST = 4  # clips that a class needs, in training and in a test list
NEAR = 1.04  # a tempo is right up to this factor, as in the MIREX task
MIDDLE_BPM = 95  # between the renderer's slow and fast
EDGE_S = 1.5  # half a feature row of the starter's, left out beside a change
STRENGTHS = (1e-4, 1e-3, 1e-2)  # of the logistic regression, chosen by cross-validation
FOLDS = 4
MOST_DEVIATIONS = 5.0  # of a feature from its mean in training
KIND = "music or not"
# What must not be known when an attribute is guessed without sound: it says the same, or more.
TIED = {
    "lead": ("family", "singer"),
    "family": ("lead", "singer"),
    "second": ("drums", "singer"),
    "singer": ("lead", "family", "second"),
    "drums": ("second",),
    "tempo": ("bpm",),
    "key": ("mode",),
    "mode": ("key",),
    "change": tuple(ATTRIBUTES),
}

Array = NDArray[np.float64]
Say = Callable[[Sequence["Sample"]], list[str]]  # names a class for each clip


@dataclass(frozen=True)
class Sample:
    """A clip, or a stretch of one in which nothing changes.

    Attributes:
        work: What must not be in training and test.
        composer: Of the work.
        labels: What is certain, by attribute; empty where nothing is.
        rows: (rows, size), its features.
    """

    work: str
    composer: str
    labels: dict[str, str]
    rows: Tensor


def mean(samples: Sequence[Sample]) -> Array:
    """(samples, size): the mean of each clip's rows."""
    return np.stack([sample.rows.mean(0).double().numpy() for sample in samples])


def spread(samples: Sequence[Sample]) -> Array:
    """(samples, 2 · size): mean and standard deviation of each clip's rows."""
    deviations = [sample.rows.std(0, correction=0).double().numpy() for sample in samples]
    return np.concatenate([mean(samples), np.stack(deviations)], axis=1)


VIEWS = {"mean": mean, "mean and spread": spread}


def in_samples(row: dict[str, Any], hears: Callable[[str], Any]) -> Iterator[Sample]:
    """A row of a list as samples: the clip, and each of its stretches where something changes.

    Args:
        row: Of a list of rendered scores or of what is no music.
        hears: Gives the `Clip` of a sound file.
    """
    clip = hears(row["path"])
    if "kind" in row:
        yield Sample(row["path"], "", {KIND: row["kind"]}, clip.features)
        return
    work, composer = row.get("work") or row["score"], row["composer"]
    parts = stretches(row)
    whole = {name: "" if label == MANY else label for name, label in throughout(parts).items()}
    yield Sample(work, composer, whole | {KIND: "music"}, clip.features)
    for part in parts if len(parts) > 1 else ():
        inner = clip.part(part.start_s + EDGE_S, part.end_s - EDGE_S)
        yield Sample(work, composer, part.labels, inner.features)


def _scaled(model: Any) -> Any:
    """A model of standardised features, none too far out.

    What hardly varies in the training clips may be thousands of their deviations off elsewhere.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    bound = FunctionTransformer(
        np.clip, kw_args={"a_min": -MOST_DEVIATIONS, "a_max": MOST_DEVIATIONS}
    )
    return make_pipeline(StandardScaler(), bound, model)


def best_fit(
    features: Array, truth: Sequence[str], works: Sequence[str], strengths: Sequence[float]
) -> tuple[Any, float]:
    """A logistic regression and its balanced accuracy on works that it was not fitted to.

    Args:
        features: (samples, size).
        truth: A class for each.
        works: Kept together in cross-validation, which chooses the strength.
        strengths: To choose from.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold

    regression = LogisticRegression(class_weight="balanced", max_iter=300, tol=1e-3)
    search = GridSearchCV(
        _scaled(regression),
        {"logisticregression__C": list(strengths)},
        scoring="balanced_accuracy",
        cv=StratifiedGroupKFold(FOLDS),
    )
    search.fit(features, list(truth), groups=list(works))
    return search.best_estimator_, float(search.best_score_)


def sounding(
    name: str, view: Callable[[Sequence[Sample]], Array], train: Sequence[Sample]
) -> tuple[Say, float]:
    """A probe that listens, and its score in cross-validation."""
    truth, works = [sample.labels[name] for sample in train], [sample.work for sample in train]
    if name == "bpm":
        return _by_ridge(view, train)
    model, score = best_fit(view(train), truth, works, STRENGTHS)
    return lambda samples: [str(label) for label in model.predict(view(samples))], score


def guessing(name: str, train: Sequence[Sample]) -> Say:
    """A probe that knows no sound: the composer and the other attributes."""
    from sklearn.feature_extraction import DictVectorizer

    hidden = {name, "bpm", "change", KIND, *TIED.get(name, ())}

    def known(sample: Sample) -> dict[str, str]:
        rest = {key: label for key, label in sample.labels.items() if key not in hidden}
        return rest | {"composer": sample.composer}

    table = DictVectorizer(sparse=False).fit([known(sample) for sample in train])

    def view(samples: Sequence[Sample]) -> Array:
        return np.asarray(table.transform([known(sample) for sample in samples]))

    if name == "bpm":
        return _by_ridge(view, train)[0]
    truth, works = [sample.labels[name] for sample in train], [sample.work for sample in train]
    model, _ = best_fit(view(train), truth, works, (1e-2, 1e-1, 1.0))
    return lambda samples: [str(label) for label in model.predict(view(samples))]


def _by_ridge(
    view: Callable[[Sequence[Sample]], Array], train: Sequence[Sample]
) -> tuple[Say, float]:
    """A regression of the tempo's logarithm that names whole beats per minute."""
    from sklearn.linear_model import RidgeCV

    model = _scaled(RidgeCV(np.logspace(0, 5, 11)))
    model.fit(view(train), np.log([float(sample.labels["bpm"]) for sample in train]))

    def say(samples: Sequence[Sample]) -> list[str]:
        return [str(round(float(np.exp(log)))) for log in model.predict(view(samples))]

    return say, float(model[-1].best_score_)


def measure(
    name: str, train: Sequence[Sample], tests: dict[str, Sequence[Sample]]
) -> dict[str, Any] | None:
    """One row of the table; None where fewer than two classes are known.

    Args:
        name: Attribute.
        train: Samples to learn from.
        tests: Samples of each test list, of other works.
    """
    train = _of_common_classes(name, train)
    tests = {test: _of_common_classes(name, samples) for test, samples in tests.items()}
    if name != "bpm":
        shared = set.intersection(*(_classes(name, some) for some in (train, *tests.values())))
        train = [sample for sample in train if sample.labels[name] in shared]
        tests = {t: [s for s in some if s.labels[name] in shared] for t, some in tests.items()}
        if len(shared) < 2:
            return None
    if not train or not all(tests.values()):
        return None
    probes = {view: sounding(name, features, train) for view, features in VIEWS.items()}
    guess = None if name == KIND else guessing(name, train)
    better = max(probes, key=lambda view: probes[view][1])
    row: dict[str, Any] = {
        "attribute": name,
        "classes": dict(Counter(sample.labels[name] for sample in train)),
        "train": len(train),
        "better": better,
        "tests": {},
    }
    for test, samples in tests.items():
        found: dict[str, Any] = {"clips": len(samples), "works": len({s.work for s in samples})}
        found["chance"] = _chance(name, samples)
        found["guess"] = found["chance"]
        if guess:
            found["guess"] = balanced_accuracy(*judged(name, samples, guess))
        found |= {view: score(name, samples, say) for view, (say, _) in probes.items()}
        if name == "bpm":
            found |= pace(samples, probes[better][0])
        row["tests"][test] = found
    row["heard"] = verdict([found | {"value": found[better]} for found in row["tests"].values()])
    return row


def verdict(tests: Sequence[dict[str, Any]]) -> str:
    """`yes`, `faintly` or `no` from what each list gave: `value`, `chance` and `guess`."""
    if not all(found["value"][1][0] > max(found["chance"], found["guess"]) for found in tests):
        return "no"
    return "yes" if all(found["value"][0] > 0.5 for found in tests) else "faintly"


def _of_common_classes(name: str, samples: Iterable[Sample]) -> list[Sample]:
    """Samples with a label that several have; any tempo counts."""
    known = [sample for sample in samples if sample.labels.get(name)]
    counts = Counter(sample.labels[name] for sample in known)
    return [s for s in known if name == "bpm" or counts[s.labels[name]] >= FEWEST]


def _classes(name: str, samples: Iterable[Sample]) -> set[str]:
    return {sample.labels[name] for sample in samples}


def judged(name: str, samples: Sequence[Sample], say: Say) -> tuple[list[str], list[str]]:
    """What is so, and what a probe said; of tempi, whether it was near."""
    truth, said = [sample.labels[name] for sample in samples], say(samples)
    if name == "bpm":
        said = ["near" if _near(t, s) else "far" for t, s in zip(truth, said, strict=True)]
        truth = ["near"] * len(said)
    return truth, said


def score(name: str, samples: Sequence[Sample], say: Say) -> tuple[float, tuple[float, float]]:
    """Balanced accuracy and its interval; of tempi, the share that is near."""
    return rated(*judged(name, samples, say), [sample.work for sample in samples])


def rated(
    truth: Sequence[str], said: Sequence[str], groups: Sequence[str]
) -> tuple[float, tuple[float, float]]:
    """Balanced accuracy and its interval, a bootstrap over groups."""
    t, s = np.array(truth), np.array(said)
    return balanced_accuracy(t, s), bootstrap(lambda n: balanced_accuracy(t[n], s[n]), groups)


def pace(samples: Sequence[Sample], say: Say) -> dict[str, float]:
    """How far off tempi are (median share), and how well they part slow from fast (balanced)."""
    said = np.array([float(bpm) for bpm in say(samples)])
    truth = np.array([float(sample.labels["bpm"]) for sample in samples])
    known = [sample.labels.get("tempo", "") for sample in samples]
    sides = ["fast" if bpm > MIDDLE_BPM else "slow" for bpm in said]
    told = [(k, side) for k, side in zip(known, sides, strict=True) if k in ("slow", "fast")]
    return {
        "median_error": float(np.median(np.abs(said / truth - 1))),
        "slow_or_fast": balanced_accuracy(*zip(*told, strict=True)) if told else float("nan"),
    }


def _near(truth: str, said: str) -> bool:
    return 1 / NEAR <= float(said) / float(truth) <= NEAR


def _chance(name: str, samples: Sequence[Sample]) -> float:
    """What the best constant answer reaches."""
    known = [sample.labels[name] for sample in samples]
    if name != "bpm":
        return 1 / len(set(known))
    return max(sum(_near(truth, said) for truth in known) for said in set(known)) / len(known)


def check_apart(train: Iterable[Sample], test: Iterable[Sample]) -> None:
    """Refuses works that are trained and tested on.

    Raises:
        SystemExit: There is one.
    """
    if both := {sample.work for sample in train} & {sample.work for sample in test}:
        raise SystemExit(f"{min(both)} is in a training and in a test list.")


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table, per cent."""
    tests = list(rows[0]["tests"])
    head = "".join(f" {test}: {' | '.join(VIEWS)} | guess | chance |" for test in tests)
    lines = [
        f"| attribute | classes | clips |{head} heard |",
        "|---|--:|--:|" + "---|---|--:|--:|" * len(tests) + "---|",
    ]
    for row in rows:
        classes = "±4 %" if row["attribute"] == "bpm" else len(row["classes"])
        cells = "".join(_cells(row["tests"][test], row["better"]) for test in tests)
        lines.append(f"| {row['attribute']} | {classes} | {row['train']} |{cells} {row['heard']} |")
    for found in (row["tests"] for row in rows if row["attribute"] == "bpm"):
        lines += ["", *(_pace_line(test, found[test]) for test in tests)]
    return "\n".join(lines) + "\n"


def _pace_line(test: str, found: dict[str, Any]) -> str:
    return (
        f"{test}: beats per minute are {100 * found['median_error']:.0f} % off (median); by them, "
        f"slow is told from fast in {100 * found['slow_or_fast']:.0f} %."
    )


def _cells(found: dict[str, Any], better: str) -> str:
    cells = []
    for view in VIEWS:
        value, (low, high) = found[view]
        figure = f"**{100 * value:.0f}**" if view == better else f"{100 * value:.0f}"
        cells.append(f" {figure} ({100 * low:.0f}–{100 * high:.0f}; {found['works']}) |")
    return "".join(cells) + f" {100 * found['guess']:.0f} | {100 * found['chance']:.0f} |"


def ear(encoder: MusicEncoder) -> Callable[[str], Any]:
    """Hears sound files, each once: the features are kept."""
    cache = FeatureCache(cache_folder() / "features", disk_bytes=10_000_000_000)
    name, limits = fingerprint(encoder), AudioLimits(max_duration_s=3600)

    def hears(path: str) -> Any:
        make = partial(hear, encoder, path, limits, name=name)
        return cache.get_or(clip_id(path, name), make)

    return hears


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--train", type=Path, nargs="+", required=True, metavar="JSONL")
    parser.add_argument(
        "--test", type=Path, nargs="+", action="append", required=True, metavar="JSONL",
        help="lists of rendered scores and of what is no music; several times for several columns",
    )  # fmt: skip
    parser.add_argument("--preset", default="starter")
    parser.add_argument("--encoder", type=Path, metavar="DIR", help="instead of the preset's")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    folder = options.encoder or encoder_folder(find_preset(options.preset), lambda *_: None)
    hears = ear(load_encoder(folder, options.device))

    def heard(lists: Sequence[Path]) -> list[Sample]:
        return [s for path in lists for row in read_sounds(path) for s in in_samples(row, hears)]

    train = heard(options.train)
    tests = {lists[0].resolve().parent.name: heard(lists) for lists in options.test}
    for samples in tests.values():
        check_apart(train, samples)
    rows = [row for name in (*ATTRIBUTES, KIND) if (row := measure(name, train, tests))]
    report = markdown(rows)
    clear = [row["attribute"] for row in rows if row["heard"] == "yes" and row["attribute"] != KIND]
    options.output.mkdir(parents=True, exist_ok=True)
    found = {"heard": clear, "rows": rows}
    (options.output / "probe.json").write_text(json.dumps(found, indent=1) + "\n")
    (options.output / "probe.md").write_text(report)
    print(report)


if __name__ == "__main__":
    main()
