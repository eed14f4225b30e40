"""How near predictions are to references: one function a metric, and intervals over tracks.

Two families. `legacy` is what the script of MusiLingo computes under these names, so that published
numbers can be compared (https://github.com/zihaod/MusiLingo, end of qa.py): its BLEU counts
characters, its ROUGE-L and BERTScore are recalls. `proper` is what the names mean elsewhere.
Values go from 0 to 1. Nothing here knows MusiLingo or a data set; nothing heavy is imported before
its use.
"""

import importlib
import io
import re
import unicodedata
import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from musilingo_core.errors import ResourceMissing

if TYPE_CHECKING:
    from torch import Tensor

Texts = Sequence[str]
Labels = Sequence[Hashable] | NDArray[Any]
Values = NDArray[np.float64]
Statistic = Callable[[NDArray[np.intp]], float]  # of the examples with these numbers

DRAWS = 1000  # of the bootstrap
DEVIATIONS = 1.96  # from the mean of a normal distribution to the ends of 95 %
WORDNET_FOLDER = Path("/usr/share/wordnet")  # of Debian's package wordnet-base
ORDERS = 4  # BLEU counts one to four words in a row
MAX_TOKENS = 512  # what BERT and RoBERTa can read


@dataclass(frozen=True)
class Bert:
    """The model behind BERTScore, by default the one of `bert_score.score(…, lang="en")`.

    Attributes:
        name: A name on the Hugging Face Hub, or a folder.
        layer: The layer whose output is compared; 0 is the embeddings.
        device: Where it runs.
        batch_size: Predictions a step, and as many references.
    """

    name: str = "FacebookAI/roberta-large"
    layer: int = 17
    device: str = "cpu"
    batch_size: int = 16


@dataclass(frozen=True)
class Score:
    """One cell of a report.

    Attributes:
        name: Of the metric, such as `BLEU-4`; unique within its family.
        family: `legacy` or `proper`.
        value: From 0 to 1; None where it could not be computed.
        low: Lower end of the 95 % interval.
        high: Upper end.
        missing: Why there is no value, and what to do about it.
        values: One value an example, in order, so that two runs can be compared pair by pair;
            empty for a metric of the whole corpus.
    """

    name: str
    family: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    missing: str = ""
    values: tuple[float, ...] = field(default=(), repr=False)


def score_all(
    predictions: Texts,
    references: Texts,
    tracks: Sequence[Hashable],
    bert: Bert = Bert(),
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Score]:
    """Every metric with its interval over tracks, legacy ones first.

    Args:
        predictions: What the model said.
        references: What it should have said, one for each prediction.
        tracks: The track of each example; examples of one track are drawn together.
        bert: The model of BERTScore.
        draws: Of the bootstrap.
        seed: Of the bootstrap; all metrics get the same draws.

    Raises:
        ValueError: The three do not match in length, or are empty.
    """
    if not predictions or not len(predictions) == len(references) == len(tracks):
        lengths = f"{len(predictions)}, {len(references)} and {len(tracks)}"
        raise ValueError(f"as many predictions, references and tracks are needed, not {lengths}")
    scores = []
    for cells, measure in _measures(bert):
        try:
            results = measure(predictions, references)
        except ResourceMissing as error:
            scores += [Score(name, family, missing=str(error)) for family, name in cells]
            continue
        for (family, name), result in zip(cells, results, strict=True):
            low, high = bootstrap(result, tracks, draws, seed)
            value = _statistic(result)(np.arange(len(tracks)))
            values = () if callable(result) else tuple(result.tolist())
            scores.append(Score(name, family, value, low, high, values=values))
    return sorted(scores, key=lambda score: score.family)


_Measure = Callable[[Texts, Texts], Sequence[Values | Statistic]]


def _measures(bert: Bert) -> list[tuple[list[tuple[str, str]], _Measure]]:
    """Families and names of what each function gives; what serves both is computed once."""
    legacy, proper = "legacy", "proper"
    return [
        ([(legacy, "BLEU"), (legacy, "BLEU-4")], lambda p, r: list(character_bleu(p, r).T)),
        ([(proper, f"BLEU-{n}") for n in range(1, ORDERS + 1)], _word_bleus),
        ([(legacy, "ROUGE-L recall")], lambda p, r: [rouge_l_recall(p, r)]),
        ([(proper, "ROUGE-L F1")], lambda p, r: [rouge_l_f1(p, r)]),
        ([(legacy, "METEOR"), (proper, "METEOR")], lambda p, r: [meteor(p, r)] * 2),
        (
            [(legacy, "BERTScore recall"), (proper, "BERTScore F1")],
            lambda p, r: list(bert_score(p, r, bert)[:, 1:].T),
        ),
    ]


def character_bleu(predictions: Texts, references: Texts) -> Values:
    """What the legacy script calls BLEU and BLEU-4: (examples, 2).

    NLTK gets strings where it expects words, so it counts characters, with case and spaces. The
    first column is the geometric mean over one to four characters, the second looks at four in a
    row only. No smoothing. The script averages over examples.

    Raises:
        ResourceMissing: NLTK is not installed.
    """
    score = _library("nltk.translate.bleu_score", "BLEU (legacy)").sentence_bleu
    weights = [(0.25, 0.25, 0.25, 0.25), (0.0, 0.0, 0.0, 1.0)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "\nThe hypothesis contains 0 counts")
        return np.array(
            [score([r], p, weights) for p, r in zip(predictions, references, strict=True)],
            dtype=np.float64,
        )


def word_bleu_counts(predictions: Texts, references: Texts) -> NDArray[np.int64]:
    """What word BLEU is made of: (examples, 10).

    Words as mteval-v13a cuts them (punctuation apart, case kept): the default of sacreBLEU, and
    what LP-MusicCaps reports. Columns: length of the prediction, of the reference, then how many
    of its 1- to 4-grams the reference has, then how many it has itself.

    Raises:
        ResourceMissing: sacreBLEU is not installed.
    """
    # effective_order only keeps it from advising about sentences; their scores are not used.
    bleu = _library("sacrebleu.metrics", "BLEU").BLEU(tokenize="13a", effective_order=True)
    scores = [bleu.sentence_score(p, [r]) for p, r in zip(predictions, references, strict=True)]
    rows = [[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in scores]
    return np.array(rows, dtype=np.int64)


def word_bleu(counts: NDArray[np.int64], order: int) -> float:
    """Corpus BLEU-`order` without smoothing: 0 as soon as one order has no match.

    Papineni et al. 2002, https://aclanthology.org/P02-1040/: matches are added up over the corpus
    before they are divided.

    Args:
        counts: (examples, 10), of `word_bleu_counts`.
        order: 1 to 4.
    """
    compute = _library("sacrebleu.metrics", "BLEU").BLEU.compute_bleu
    said, wanted, *grams = counts.sum(axis=0).tolist()
    matched, total = grams[:order], grams[ORDERS : ORDERS + order]
    score: float = compute(matched, total, said, wanted, "none", max_ngram_order=order).score
    return score / 100


def _word_bleus(predictions: Texts, references: Texts) -> list[Statistic]:
    counts = word_bleu_counts(predictions, references)
    return [partial(_bleu_of, counts, order) for order in range(1, ORDERS + 1)]


def _bleu_of(counts: NDArray[np.int64], order: int, drawn: NDArray[np.intp]) -> float:
    return word_bleu(counts[drawn], order)


def rouge_l_recall(predictions: Texts, references: Texts) -> Values:
    """Legacy ROUGE-L: the share of the reference's words in the longest common subsequence.

    As package rouge-score with a stemmer: lower case, ASCII letters and digits only (“café” is
    “caf”), words of more than three letters by their Porter stem.

    Raises:
        ResourceMissing: NLTK, which has the stemmer, is not installed.
    """
    stem = _library("nltk.stem.porter", "ROUGE-L recall (legacy)").PorterStemmer().stem

    def words(text: str) -> list[str]:
        found = re.findall("[a-z0-9]+", text.lower())
        return [stem(word) if len(word) > 3 else word for word in found]

    def recall(prediction: str, reference: str) -> float:
        wanted = words(reference)
        return _longest_common(words(prediction), wanted) / max(len(wanted), 1)

    return _each(recall, predictions, references)


def rouge_l_f1(predictions: Texts, references: Texts) -> Values:
    """ROUGE-L F1: harmonic mean of the shares of both texts in their longest common subsequence.

    Words are runs of letters and digits of any script, in lower case and not stemmed; on ASCII text
    that is the default of package rouge-score. Lin 2004, https://aclanthology.org/W04-1013/.
    """

    def f1(prediction: str, reference: str) -> float:
        said, wanted = _words(prediction), _words(reference)
        return 2 * _longest_common(said, wanted) / max(len(said) + len(wanted), 1)

    return _each(f1, predictions, references)


def _words(text: str) -> list[str]:
    # An accent may be a sign of its own, which is no letter: joined with its letter first.
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFC", text).lower())


def _longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for j, other in enumerate(second, start=1):
            best = diagonal + 1 if word == other else max(row[j], row[j - 1])
            diagonal, row[j] = row[j], best
    return row[-1]


def meteor(predictions: Texts, references: Texts) -> Values:
    """METEOR as NLTK has it, on words and runs of punctuation in lower case.

    Words match if they, their Porter stems or a synonym of the stem are equal; α = 0.9, β = 3 and
    γ = 0.5 as in Lavie and Agarwal 2007, https://aclanthology.org/W07-0734/. The legacy script does
    the same. Identical texts score just under 1: they are one chunk, and a chunk costs.

    Raises:
        ResourceMissing: NLTK is not installed, or WordNet is not found.
    """
    cut = _library("nltk.tokenize", "METEOR").wordpunct_tokenize
    score = _library("nltk.translate.meteor_score", "METEOR").meteor_score
    wordnet = _wordnet(WORDNET_FOLDER)
    return _each(lambda p, r: score([cut(r)], cut(p), wordnet=wordnet), predictions, references)


@cache
def _wordnet(folder: Path) -> Any:
    """WordNet 3.0, of NLTK's own data if that has it, else of a folder of database files.

    Raises:
        ResourceMissing: It is in neither place.
    """
    corpus = _library("nltk.corpus", "METEOR")
    try:
        corpus.wordnet.ensure_loaded()
        return corpus.wordnet
    except LookupError:
        if (folder / "index.noun").is_file():
            return _read_wordnet(corpus.WordNetCorpusReader, folder)
    raise ResourceMissing(
        "METEOR",
        "WordNet",
        "please run “python -m nltk.downloader wordnet”, or on Debian and Ubuntu "
        "“apt install wordnet-base”",
    )


def _read_wordnet(reader: Any, folder: Path) -> Any:
    """WordNet's database files, which lack two things that NLTK's reader wants."""

    class Database(reader):
        def open(self, file: str) -> Any:
            if file == "lexnames":  # names of the 45 topics, which METEOR does not ask for
                return io.StringIO("".join(f"{n:02d} topic{n} 0\n" for n in range(45)))
            return super().open(file)

        def map_wn(self, version: str = "wordnet") -> None:
            """No map to other versions, which would need the sense index."""

    places = _library("nltk.data", "METEOR").path  # NLTK reads only below these
    if str(folder) not in places:
        places.append(str(folder))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The multilingual functions are not available")
        return Database(str(folder), None)


def bert_score(predictions: Texts, references: Texts, bert: Bert = Bert()) -> Values:
    """BERTScore's precision, recall and F1: (examples, 3).

    Each token of one text is matched with the nearest of the other by the cosine of their hidden
    states; no idf weights, no rescaling. Zhang et al. 2020, https://arxiv.org/abs/1904.09675. As
    package bert-score 0.3.13: the marks of begin and end can be matched with but do not count, and
    an empty text scores 0. Text after 512 tokens is not read.

    Raises:
        ResourceMissing: The model is neither here nor on the Hub.
    """
    embed = partial(_embed, *_load_bert(bert), bert)
    rows: list[tuple[float, float, float]] = []
    for start in range(0, len(predictions), bert.batch_size):
        batch = slice(start, start + bert.batch_size)
        pairs = zip(embed(predictions[batch]), embed(references[batch]), strict=True)
        rows += [_match(*said, *wanted) for said, wanted in pairs]
    return np.array(rows, dtype=np.float64)


def _load_bert(bert: Bert) -> tuple[Any, Any]:
    """Tokenizer and model.

    Raises:
        ResourceMissing: They are neither here nor on the Hub.
    """
    found = _find_bert(bert)
    if isinstance(found, str):
        raise ResourceMissing(
            "BERTScore",
            f"the model “{bert.name}” ({found})",
            "please connect to the Hugging Face Hub once, or name a folder that holds it",
        )
    return found


@cache
def _find_bert(bert: Bert) -> tuple[Any, Any] | str:
    """Tokenizer and model, or why there are none; looked for once, for that may take a minute."""
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(bert.name)
        return tokenizer, AutoModel.from_pretrained(bert.name).eval().to(bert.device)
    except (OSError, ValueError) as error:  # ValueError: a folder without a tokenizer
        return str(error).partition("\n")[0]


def _embed(tokenizer: Any, model: Any, bert: Bert, texts: Texts) -> "list[tuple[Tensor, Tensor]]":
    """Unit vectors (tokens, size) of each text, and which of them count (tokens,)."""
    import torch

    # A word is another token for RoBERTa when no space is before it; other models do not mind.
    tokens = tokenizer(
        [" " + text if text else "" for text in map(str.strip, texts)],
        padding=True,
        truncation=True,
        max_length=min(tokenizer.model_max_length, MAX_TOKENS),
        return_tensors="pt",
    ).to(bert.device)
    with torch.inference_mode():
        states = model(**tokens, output_hidden_states=True).hidden_states[bert.layer]
    vectors = torch.nn.functional.normalize(states.float(), dim=-1).cpu()
    ids, real = tokens["input_ids"].cpu(), tokens["attention_mask"].cpu().bool()
    marks = torch.tensor([tokenizer.cls_token_id, tokenizer.sep_token_id])
    counts = ~torch.isin(ids, marks)
    return [(v[r], c[r]) for v, r, c in zip(vectors, real, counts, strict=True)]


def _match(
    said: "Tensor", said_counts: "Tensor", wanted: "Tensor", wanted_counts: "Tensor"
) -> tuple[float, float, float]:
    if not said_counts.any() or not wanted_counts.any():
        return 0.0, 0.0, 0.0
    cosines = said @ wanted.T
    precision = float(cosines.amax(1)[said_counts].mean())
    recall = float(cosines.amax(0)[wanted_counts].mean())
    both = precision + recall
    return precision, recall, 2 * precision * recall / both if both else 0.0


def balanced_accuracy(truth: Labels, said: Labels) -> float:
    """The mean over the classes of the truth of the share said right, so that none outweighs.

    Raises:
        ValueError: The two do not match in length, or are empty.
    """
    hits: dict[Hashable, list[bool]] = {}
    for t, s in zip(truth, said, strict=True):
        hits.setdefault(t, []).append(bool(t == s))
    if not hits:
        raise ValueError("no answers have no accuracy")
    return sum(sum(h) / len(h) for h in hits.values()) / len(hits)


def bootstrap(
    values: Statistic | Sequence[float] | Values,
    groups: Sequence[Hashable],
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile interval of a mean, or of any statistic, over whole groups.

    Examples of one track are alike, so tracks are drawn with replacement, each with all of its
    examples. With one group there is nothing to draw, and both ends are the value itself. Where
    each draw gives 0, or each gives 1, draws say nothing of what was not met: then it is Wilson's
    interval for so many groups (Wilson 1927, https://doi.org/10.2307/2276774).

    Args:
        values: One value an example, from 0 to 1, for their mean; or a function from the numbers of
            the examples drawn (an example drawn twice is there twice) to such a value, as
            `lambda drawn: balanced_accuracy(truth[drawn], said[drawn])` on arrays.
        groups: The group of each example.
        draws: How many times to draw.
        seed: The same seed gives the same interval.

    Raises:
        ValueError: Values and groups do not match in length, or are empty.
    """
    if not len(groups) or (not callable(values) and len(values) != len(groups)):
        raise ValueError("as many groups as values are needed, and at least one")
    statistic = _statistic(values)
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    group_of = np.array([numbers[group] for group in groups])
    dice = np.random.default_rng(seed)
    results = []
    for _ in range(draws):
        drawn = dice.integers(len(numbers), size=len(numbers))
        times = np.bincount(drawn, minlength=len(numbers))
        results.append(statistic(np.repeat(np.arange(len(groups)), times[group_of])))
    if set(results) in ({0.0}, {1.0}):
        width = DEVIATIONS**2 / (len(numbers) + DEVIATIONS**2)
        return (1 - width, 1.0) if results[0] else (0.0, width)
    low, high = np.percentile(results, [2.5, 97.5])
    return float(low), float(high)


def _statistic(values: Statistic | Sequence[float] | Values) -> Statistic:
    if callable(values):
        return values
    array = np.asarray(values, dtype=np.float64)
    return lambda drawn: float(array[drawn].mean())


def _each(measure: Callable[[str, str], float], predictions: Texts, references: Texts) -> Values:
    pairs = zip(predictions, references, strict=True)
    return np.array([measure(p, r) for p, r in pairs], dtype=np.float64)


def _library(name: str, metric: str) -> Any:
    """A module of the extra `evaluation`.

    Raises:
        ResourceMissing: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ResourceMissing(
            metric,
            f"the package {name.partition('.')[0]} ({error})",
            "please install the extra “evaluation”: pip install '.[evaluation]'",
        ) from error
