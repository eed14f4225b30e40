"""A SentencePiece model with LLaMA's settings."""

from pathlib import Path

import sentencepiece

WORDS = (
    "###Human: <Audio></Audio> ###Assistant: ###",
    "Give the following music: <Audio>AudioContent</Audio>. You will be able to see the music once "
    "I provide it to you. Please answer my questions.",
    "A chat between a curious user and an artificial intelligence assistant. USER: ASSISTANT:",
    "What instruments do you hear? Ünïcödé 音楽 🎵 1234 Ça va",
)


def make_tokenizer(folder: Path) -> Path:
    """Writes `tokenizer.model` and nothing else into a folder."""
    text = folder / "text.txt"
    text.write_text("\n".join([*WORDS, *Path(__file__).read_text("utf-8").splitlines()]), "utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=600,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    text.unlink()
    return folder
