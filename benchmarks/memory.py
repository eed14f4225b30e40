"""How much memory models take: the table of the README, from shapes alone.

`python -m benchmarks.memory`; needs no weights. It is what the program itself expects, and refuses
to load where there is less (`musilingo_core.memory`).
"""

import torch
from transformers import LlamaConfig

from musilingo_core.configuration import MusiLingoConfig
from musilingo_core.encoders.mert import MertConfig
from musilingo_core.memory import need
from musilingo_core.placement import Placement

MERT_330M = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "do_stable_layer_norm": True,
}  # fmt: skip
LLAMAS = {
    "Llama 3.2 1B": {
        "vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 8192,
        "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
        "head_dim": 64, "max_position_embeddings": 131_072, "tie_word_embeddings": True,
    },
    "Vicuna-7B v0 (MusiLingo)": {"vocab_size": 32_001},  # LlamaConfig's defaults are LLaMA-7B's
    "Llama 3.1 8B": {
        "vocab_size": 128_256, "intermediate_size": 14_336, "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
    },
    "Vicuna-13B v1.5": {
        "vocab_size": 32_000, "hidden_size": 5120, "intermediate_size": 13_824,
        "num_hidden_layers": 40, "num_attention_heads": 40, "max_position_embeddings": 4096,
    },
}  # fmt: skip
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
BFLOAT16 = torch.bfloat16
PLACEMENTS = {
    "float32, processor": Placement(CPU, torch.float32, packed=False),
    "bfloat16 and int8, processor": Placement(CPU, BFLOAT16, packed=True),
    "bfloat16, GPU": Placement(CUDA, BFLOAT16),
    "8bit, GPU": Placement(CUDA, BFLOAT16, bits=8, packed=False),
    "4bit, GPU": Placement(CUDA, BFLOAT16, bits=4, packed=False),
}


def table() -> str:
    """Markdown: gigabytes of each language model in each precision, and MERT-v1-330M's."""
    rows = ["| " + " | ".join(["", *PLACEMENTS]) + " |", "|---|" + "--:|" * len(PLACEMENTS)]
    for name, shape in LLAMAS.items():
        config = MusiLingoConfig(
            audio_config=MertConfig(**MERT_330M), text_config=LlamaConfig(**shape)
        )
        needs = [need(config, placement) for placement in PLACEMENTS.values()]
        cells = [f"{(each.words + each.states) / 1e9:.1f}" for each in needs]
        rows.append("| " + " | ".join([name, *cells]) + " |")
    exact = need(config, Placement(CPU))
    hearing = f"{(exact.ear + exact.window) / 1e9:.1f}"
    rows.append("| " + " | ".join(["MERT-v1-330M, beside it", *[hearing] * len(needs)]) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
