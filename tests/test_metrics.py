"""Values beside an equals sign were worked out on paper."""

import sys
from collections.abc import Callable
from math import exp
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nltk.corpus import WordNetCorpusReader
from nltk.corpus.util import LazyCorpusLoader
from sklearn.metrics import balanced_accuracy_score
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from musilingo_core import metrics
from musilingo_core.errors import ResourceMissing
from musilingo_core.metrics import (
    Bert,
    balanced_accuracy,
    bert_score,
    bootstrap,
    character_bleu,
    meteor,
    rouge_l_f1,
    rouge_l_recall,
    score_all,
    word_bleu,
    word_bleu_counts,
)

DEBIAN = metrics.WORDNET_FOLDER


@pytest.fixture
def no_wordnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without WordNet; gives the folder that is looked at last."""
    nothing = LazyCorpusLoader("no-such-wordnet", WordNetCorpusReader)
    monkeypatch.setattr("nltk.corpus.wordnet", nothing)
    monkeypatch.setattr(metrics, "WORDNET_FOLDER", tmp_path / "wordnet")
    return tmp_path / "wordnet"


@pytest.fixture
def small_wordnet(no_wordnet: Path) -> None:
    """A WordNet whose only synonyms are “quick” and “fast”, in the form of Debian's package."""
    no_wordnet.mkdir()
    for kind in ("noun", "verb", "adv", "adj"):
        for name in (f"index.{kind}", f"data.{kind}", f"{kind}.exc"):
            (no_wordnet / name).touch()
    (no_wordnet / "data.adj").write_text("00000000 00 a 02 quick 0 fast 0 000 | hurried\n")
    (no_wordnet / "index.adj").write_text("fast a 1 0 1 0 00000000\nquick a 1 0 1 0 00000000\n")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Bert:
    """A BERT whose layer 0 gives distinct tokens cosine 0: rows of a Hadamard matrix."""
    folder = tmp_path_factory.mktemp("bert")
    names = ["<s>", "</s>", "<pad>", "<unk>", "Ġdeep", "Ġslow", "Ġsong"]
    core = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, "<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=core,
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    ).save_pretrained(folder)
    torch.manual_seed(0)
    model = BertModel(
        BertConfig(
            vocab_size=len(names),
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            initializer_range=0.5,
        )
    )
    two = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    with torch.no_grad():
        embeddings = model.embeddings
        embeddings.word_embeddings.weight.copy_(torch.kron(two, torch.kron(two, two))[1:])
        embeddings.position_embeddings.weight.zero_()
        embeddings.token_type_embeddings.weight.zero_()
    model.save_pretrained(folder)
    return Bert(str(folder), layer=0)


def test_legacy_bleu_counts_characters() -> None:
    # One to four characters in a row: 4/5, 3/4, 2/3 and 1/2 of them match.
    values = character_bleu(["abcdx", "abcd"], ["abcde", "abcde"])
    assert values[0] == pytest.approx([(1 / 5) ** (1 / 4), 1 / 2])
    assert values[1] == pytest.approx([exp(-1 / 4)] * 2)  # all match, but it is one short


@pytest.mark.filterwarnings("error")
def test_legacy_bleu_of_texts_that_share_nothing_is_zero_and_quiet() -> None:
    values = character_bleu(["", "abcd", "", "ABCD", "abc"], ["abcd", "", "", "abcd", "abx"])
    assert values == pytest.approx(np.zeros((5, 2)), abs=1e-70)


def test_word_bleu_of_one_sentence() -> None:
    # Of one to four words in a row 5/6, 3/5, 2/4 and 1/3 match.
    counts = word_bleu_counts(["the cat sat on a mat"], ["the cat sat on the mat"])
    values = [word_bleu(counts, order) for order in (1, 2, 3, 4)]
    wanted = [5 / 6, (1 / 2) ** (1 / 2), (1 / 4) ** (1 / 3), (1 / 12) ** (1 / 4)]
    assert values == pytest.approx(wanted)


def test_word_bleu_adds_up_the_corpus_before_it_divides() -> None:
    counts = word_bleu_counts(
        ["the cat sat on a mat", "a dog"], ["the cat sat on the mat", "a dog barks at me"]
    )
    # 7 of 8 words, 4 of 6 pairs; 8 words said where 11 were wanted.
    assert word_bleu(counts, 2) == pytest.approx(exp(-3 / 8) * (7 / 12) ** (1 / 2))


def test_word_bleu_is_zero_where_one_order_has_no_match(caplog: pytest.LogCaptureFixture) -> None:
    counts = word_bleu_counts(["the cat sat on", "a"], ["on sat cat the", "a"])
    assert word_bleu(counts, 1) == pytest.approx(1) and word_bleu(counts, 2) == 0
    assert not caplog.text


def test_words_of_bleu_keep_case_and_part_from_punctuation() -> None:
    # “Stop , café .” against “stop café”: one of four words.
    assert word_bleu(word_bleu_counts(["Stop, café."], ["stop café"]), 1) == pytest.approx(1 / 4)
    assert word_bleu(word_bleu_counts(["cafe"], ["café"]), 1) == 0


@pytest.mark.parametrize(("prediction", "reference"), [("", "a b"), ("a b", ""), ("", "")])
def test_an_empty_text_scores_zero(
    prediction: str, reference: str, bert: Bert, small_wordnet: None
) -> None:
    for score in score_all([prediction], [reference], ["song"], bert):
        assert (score.value, score.low) == (0, 0), score.name


def test_legacy_rouge_is_the_recall_of_stems() -> None:
    # “the singer sing softli” against “a singer sing soft song”: two of five.
    values = rouge_l_recall(["The singer sings softly!"], ["A singer, singing soft songs."])
    assert values.tolist() == [2 / 5]


def test_legacy_rouge_drops_what_is_not_ascii_and_the_proper_one_does_not() -> None:
    assert rouge_l_recall(["caf"], ["café"]).tolist() == [1]
    assert rouge_l_f1(["caf", "CAFÉ", "cafe\u0301", "поёт"], ["café"] * 3 + ["Поёт!"]).tolist() == [
        0,
        1,
        1,
        1,
    ]


def test_rouge_f1_looks_at_the_longest_common_subsequence() -> None:
    # “slow … piano” is shared: 2 of 3 and 2 of 4; in the other order only one word is.
    values = rouge_l_f1(["Slow, sad piano", "piano slow"], ["a slow piano_piece", "slow piano"])
    assert values.tolist() == pytest.approx([4 / 7, 1 / 2])


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_two_texts_score_between_nothing_and_one(one: str, other: str) -> None:
    for measure in (character_bleu, rouge_l_recall, rouge_l_f1):
        assert 0 <= measure([one], [other]).min() <= measure([one], [other]).max() <= 1 + 1e-9
    assert 0 <= word_bleu(word_bleu_counts([one], [other]), 1) <= 1 + 1e-9
    assert rouge_l_f1([one], [other]) == rouge_l_f1([other], [one])


def test_meteor_takes_synonyms_and_pays_for_chunks(small_wordnet: None) -> None:
    values = meteor(
        ["a quick song", "A QUICK songs.", "a sad song", "nothing"],
        ["a fast song", "a fast song!", "a fast song", "a fast song"],
    )
    one_chunk = 1 - (1 / 3) ** 3 / 2
    assert values.tolist() == pytest.approx(
        [
            one_chunk,  # all three in one chunk: 53/54
            3 / 4 * one_chunk,  # three of four words; marks differ, case and plural do not
            1 / 3,  # two of three words in two chunks: 2/3 · (1 − 1/2)
            0,
        ]
    )


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's package wordnet-base")
def test_wordnet_of_debian_gives_the_value_that_nltk_documents(
    no_wordnet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "WORDNET_FOLDER", DEBIAN)
    said = (
        "It is a guide to action which ensures that the military always obeys the commands of "
        "the party"
    )
    wanted = (
        "It is a guide to action that ensures that the military will forever heed Party commands"
    )
    values = meteor([said, "a quick song"], [wanted, "a fast song"])
    assert values.tolist() == pytest.approx([0.6944, 53 / 54], abs=5e-5)


def test_meteor_without_wordnet_says_how_to_get_it(no_wordnet: Path) -> None:
    with pytest.raises(ResourceMissing, match=r"METEOR needs WordNet; please run .*wordnet-base"):
        meteor(["a"], ["a"])


@pytest.mark.parametrize(
    ("module", "measure"),
    [
        ("nltk.translate.bleu_score", character_bleu),
        ("nltk.stem.porter", rouge_l_recall),
        ("nltk.translate.meteor_score", meteor),
        ("sacrebleu.metrics", word_bleu_counts),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    module: str, measure: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    package = module.partition(".")[0]
    with pytest.raises(ResourceMissing, match=rf"needs the package {package} .*\[evaluation\]"):
        measure(["a"], ["a"])


def test_bert_score_matches_each_token_with_the_nearest(bert: Bert) -> None:
    values = bert_score(
        ["deep slow song", "song", "Music"], ["slow song", "deep slow song", "song"], bert
    )
    assert values[0] == pytest.approx([2 / 3, 1, 4 / 5])
    assert values[1] == pytest.approx([1, 1 / 3, 1 / 2])
    assert values[2].tolist() == [0, 0, 0]


def test_the_first_word_of_a_text_is_the_same_token_as_elsewhere(bert: Bert) -> None:
    assert bert_score([" song slow\n"], ["slow song"], bert)[0] == pytest.approx([1, 1, 1])


def test_marks_of_begin_and_end_can_be_matched_but_do_not_count() -> None:
    said = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.6, 0.8]])
    wanted = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    counts = torch.tensor([False, True, True])
    # The third is nearest to the mark, 4/5; the mark's own match, 1, is left out.
    found = metrics._match(said, counts, wanted, counts[:2])
    assert found == pytest.approx((9 / 10, 1, 18 / 19))


def test_bert_score_does_not_depend_on_the_batch(bert: Bert) -> None:
    said, wanted = ["deep", "slow song song song", "song"], ["song deep slow", "deep", "slow slow"]
    values = [bert_score(said, wanted, Bert(bert.name, 1, batch_size=n)) for n in (1, 2, 16)]
    embeddings = bert_score(said, wanted, bert)  # layer 0, and not layer 1
    assert np.abs(values[0] - embeddings).max() > 0.01
    assert values[1] == pytest.approx(values[0], abs=1e-6)
    assert values[2] == pytest.approx(values[0], abs=1e-6)


def test_a_text_longer_than_the_model_reads_is_cut(bert: Bert) -> None:
    values = bert_score(["song " * 600], ["song " * 510 + "slow"], bert)
    assert values[0] == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("there", [False, True])
def test_a_missing_model_is_named(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "bert").mkdir()
    with pytest.raises(ResourceMissing, match=r"BERTScore needs the model “.*/bert” .*folder"):
        bert_score(["a"], ["a"], Bert(str(tmp_path / "bert"), 1))


def test_all_metrics_come_in_two_families_with_their_intervals(
    bert: Bert, small_wordnet: None
) -> None:
    said = ["slow song", "deep song", "deep slow song"]
    wanted = ["slow song", "slow song", "slow song"]
    scores = score_all(said, wanted, ["a", "a", "b"], bert, draws=100)
    assert [(s.family, s.name) for s in scores] == [
        ("legacy", "BLEU"),
        ("legacy", "BLEU-4"),
        ("legacy", "ROUGE-L recall"),
        ("legacy", "METEOR"),
        ("legacy", "BERTScore recall"),
        ("proper", "BLEU-1"),
        ("proper", "BLEU-2"),
        ("proper", "BLEU-3"),
        ("proper", "BLEU-4"),
        ("proper", "ROUGE-L F1"),
        ("proper", "METEOR"),
        ("proper", "BERTScore F1"),
    ]
    found = {(s.family, s.name): s for s in scores}
    rouge = found["legacy", "ROUGE-L recall"]
    assert rouge.values == (1, 1 / 2, 1)
    # Track b alone has 1, track a alone 3/4, both together 5/6.
    assert (rouge.low, rouge.value, rouge.high) == pytest.approx((3 / 4, 5 / 6, 1))
    bleu = found["proper", "BLEU-1"]
    assert bleu.values == ()  # of the whole corpus: 5 of 7 words; a has 3 of 4, b 2 of 3
    assert (bleu.low, bleu.value, bleu.high) == pytest.approx((2 / 3, 5 / 7, 3 / 4))
    assert found["legacy", "BERTScore recall"].values == pytest.approx((1, 1 / 2, 1))
    assert found["proper", "BERTScore F1"].values == pytest.approx((1, 1 / 2, 4 / 5))


def test_a_cell_that_cannot_be_filled_says_why_and_the_others_are(
    no_wordnet: Path, tmp_path: Path
) -> None:
    scores = score_all(["a b c d"], ["a b c d"], ["song"], Bert(str(tmp_path / "gone")))
    missing = {s.name: s.missing for s in scores if s.value is None}
    assert set(missing) == {"METEOR", "BERTScore recall", "BERTScore F1"}
    assert "WordNet" in missing["METEOR"] and "gone" in missing["BERTScore F1"]
    assert all(s.value == pytest.approx(1) and not s.missing for s in scores if not s.missing)
    assert sum(s.value is None for s in scores) == 4


@pytest.mark.parametrize(
    ("said", "wanted", "tracks"), [([], [], []), (["a"], ["a", "b"], ["t"]), (["a"], ["a"], [])]
)
def test_lists_of_different_lengths_are_refused(
    said: list[str], wanted: list[str], tracks: list[str]
) -> None:
    with pytest.raises(ValueError, match="as many predictions, references and tracks"):
        score_all(said, wanted, tracks)


def test_the_interval_draws_whole_tracks() -> None:
    values = [0.0] * 50 + [1.0] * 50
    # Two tracks: both drawn in half of the draws, one of them twice in a quarter each.
    assert bootstrap(values, ["a"] * 50 + ["b"] * 50) == (0, 1)
    # A hundred tracks: 2.5 % of binomial(100, 1/2) are up to 40.
    assert bootstrap(values, range(100), draws=9999) == pytest.approx((0.4, 0.6), abs=0.011)


def test_a_track_is_drawn_with_all_of_its_examples() -> None:
    seen = set()

    def statistic(drawn: np.ndarray) -> float:  # type: ignore[type-arg]
        seen.add(tuple(np.bincount(drawn, minlength=3)))
        return 0.0

    bootstrap(statistic, ["a", "b", "a"], draws=50)
    assert seen == {(1, 1, 1), (2, 0, 2), (0, 2, 0)}


def test_the_interval_is_the_same_again_and_for_a_mean_written_out() -> None:
    values = np.random.default_rng(1).normal(size=30)
    tracks = [number % 7 for number in range(30)]
    first = bootstrap(values, tracks)
    assert first == bootstrap(list(values), tracks) == bootstrap(lambda d: values[d].mean(), tracks)
    assert first != bootstrap(values, tracks, seed=1)
    assert bootstrap(values[:1], ["one"]) == (values[0], values[0])


def test_all_right_or_none_of_a_few_tracks_is_not_certain() -> None:
    # Wilson: 1.96² = 3.8416; all of 6 are at least 6 / 9.8416.
    assert bootstrap([1.0] * 6, range(6)) == pytest.approx((6 / 9.8416, 1))
    assert bootstrap([0.0] * 6, range(6)) == pytest.approx((0, 3.8416 / 9.8416))
    assert bootstrap([1.0] * 6, [1, 1, 1, 1, 2, 2]) == pytest.approx((2 / 5.8416, 1))
    labels = np.array(["yes", "no", "no"])
    right = bootstrap(lambda d: balanced_accuracy(labels[d], labels[d]), range(3))
    assert right == pytest.approx((3 / 6.8416, 1))


@pytest.mark.parametrize(("values", "groups"), [([1.0], ["a", "b"]), ([], []), (len, [])])
def test_an_interval_needs_a_group_for_each_value(values: list[float], groups: list[str]) -> None:
    with pytest.raises(ValueError, match="as many groups as values"):
        bootstrap(values, groups)


def test_balanced_accuracy_weighs_classes_alike() -> None:
    truth, said = ["rock", "rock", "rock", "folk"], ["rock", "rock", "jazz", "folk"]
    assert balanced_accuracy(truth, said) == pytest.approx((2 / 3 + 1) / 2)
    assert balanced_accuracy(np.array(truth), np.array(said)) == pytest.approx(5 / 6)
    with pytest.warns(UserWarning, match="y_pred contains classes"):
        assert balanced_accuracy_score(truth, said) == pytest.approx(5 / 6)


def test_no_answers_have_no_accuracy() -> None:
    with pytest.raises(ValueError, match="no answers"):
        balanced_accuracy([], [])
    with pytest.raises(ValueError, match="shorter"):
        balanced_accuracy(["a", "b"], ["a"])
