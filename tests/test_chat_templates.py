"""Chat models of others: the words around the turns are those of their own templates."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

from musilingo_core.errors import ConfigError
from musilingo_core.features import Clip
from musilingo_core.forms import prompt_settings
from musilingo_core.processing import MusiLingoProcessor
from musilingo_core.prompt import IGNORED, assistant, user
from musilingo_core.weights import spare_token
from tests.conftest import make_clip
from tests.llama_tokenizer import make_tokenizer

# As Meta-Llama-3-8B-Instruct has it.
LLAMA_3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = "
    "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim "
    "+ '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant"
    "<|end_header_id|>\n\n' }}{% endif %}"
)
SPECIALS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|reserved_special_token_0|>",
)
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. "
)
TALK = [user("Who?", "song"), assistant("A man."), user("Why?")]


def find(key: str) -> Clip:
    return make_clip(rows=2)


@pytest.fixture
def llama_3() -> PreTrainedTokenizerFast:
    """Bytes and Llama 3's special tokens, with its template."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"
    )
    made.chat_template = LLAMA_3
    return made


def test_llama_3_is_asked_in_its_own_words(llama_3: Any) -> None:
    processor = MusiLingoProcessor(llama_3, spare_token(llama_3))
    prompt = processor.render(TALK, find)
    shown = llama_3.decode(prompt.ids).replace("<|reserved_special_token_0|>", "♪")
    assert shown == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n♪♪\nWho?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nA man.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    learnt = [i for i, label in zip(prompt.ids, prompt.labels, strict=True) if label != IGNORED]
    assert llama_3.decode(learnt) == "A man.<|eot_id|>"


def test_the_tokens_are_those_of_the_template_as_a_whole(llama_3: Any) -> None:
    said = [("user", "Who?"), ("assistant", "A man."), ("user", "Why?")]
    whole = llama_3.apply_chat_template(
        [{"role": role, "content": text} for role, text in said],
        add_generation_prompt=True,
        return_dict=False,
    )
    processor = MusiLingoProcessor(llama_3, spare_token(llama_3))
    bare = [user("Who?"), assistant("A man."), user("Why?")]
    assert processor.render(bare, find).ids == whole


def test_vicuna_15_is_asked_in_fastchats_words(tmp_path: Path) -> None:
    tokenizer = LlamaTokenizer.from_pretrained(make_tokenizer(tmp_path))
    processor = MusiLingoProcessor(tokenizer, **prompt_settings("vicuna-v1.5"))
    prompt = processor.render(TALK, find)
    shown = tokenizer.decode(prompt.ids).replace("<unk>", "♪")
    assert "".join(shown.split()) == "".join(
        f"<s>{VICUNA}USER: ♪♪\nWho? ASSISTANT: A man.</s>USER: Why? ASSISTANT:".split()
    )
    asked = processor.render(TALK[:1], find).ids
    assert prompt.ids[: len(asked)] == asked
    assert prompt.ids.count(tokenizer.eos_token_id) == 1


def test_a_tokenizer_without_template_or_spare_token_says_so(llama_3: Any) -> None:
    llama_3.chat_template = None
    processor = MusiLingoProcessor(llama_3, "<|end_of_text|>")
    with pytest.raises(ConfigError, match="no chat template"):
        processor.render(TALK, find)
    core = Tokenizer(models.BPE({"a": 0}, []))
    with pytest.raises(ConfigError, match="no token to spare"):
        spare_token(PreTrainedTokenizerFast(tokenizer_object=core))


def test_a_template_that_refuses_a_conversation_is_named(llama_3: Any) -> None:
    llama_3.chat_template = "{{ raise_exception('No system, please') }}"
    with pytest.raises(ConfigError, match="No system, please"):
        MusiLingoProcessor(llama_3, "<|end_of_text|>").render(TALK, find)
