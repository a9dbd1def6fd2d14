"""Makes hf/: small models of random weights as transformers saves them, and what it answers. The tests need the files.

pip install torch transformers==5.23 && python tests/data/make_hf.py

transformers 4.51.3 (with rope_theta and rope_scaling for rope_parameters) saves the same weights and answers the same.
"""

import shutil
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

OUT = Path(__file__).parent / "hf"
LENGTHS, NEW = (11, 5), 14  # of two prompts, and how many tokens continue each
SMALL = {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 47,
    "pad_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,  # a sequence of 24 is far beyond
}
ROPE = {"rope_type": "default", "rope_theta": 1e6}
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SMALL, rms_norm_eps=1e-3, tie_word_embeddings=True)),
    "llama-gqa": (LlamaForCausalLM, LlamaConfig(**SMALL, num_key_value_heads=2, head_dim=6)),
    "llama3": (LlamaForCausalLM, LlamaConfig(**SMALL, num_key_value_heads=1, head_dim=16, rope_parameters=LLAMA3)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SMALL, num_key_value_heads=2, rope_parameters=ROPE)),
    "qwen3": (
        Qwen3ForCausalLM,
        Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=8, rope_parameters=ROPE, tie_word_embeddings=True),
    ),
    "qwen2-sharded": (Qwen2ForCausalLM, Qwen2Config(**SMALL, num_key_value_heads=4, tie_word_embeddings=True)),
    "llama-bfloat16": (LlamaForCausalLM, LlamaConfig(**SMALL, num_key_value_heads=2)),
}


def randomise(model: torch.nn.Module) -> None:
    """Weights as different from 0, gains as different from 1 and biases as different from 0 as trained ones."""
    for name, weights in model.named_parameters():
        noise = torch.randn_like(weights)
        with torch.no_grad():
            weights.copy_(1.0 + 0.3 * noise if "norm" in name else 0.25 * noise)


def answers(model: torch.nn.Module, tokens: torch.Tensor) -> dict[str, np.ndarray]:
    """Logits of whole rows, and greedy continuations of their beginnings."""
    with torch.no_grad():
        logits = model(tokens).logits
    model.generation_config.eos_token_id = None
    greedy = []
    for row, length in zip(tokens, LENGTHS, strict=True):
        prompt = row[None, :length]
        seen = torch.ones_like(prompt)  # else what looks like padding in a prompt would not be attended to
        out = model.generate(prompt, attention_mask=seen, do_sample=False, max_new_tokens=NEW, pad_token_id=0)
        greedy.append(out[0, length:])
    return {
        "tokens": tokens.numpy(),
        "logits": logits.numpy(),
        "lengths": LENGTHS,
        "greedy": torch.stack(greedy).numpy(),
    }


torch.manual_seed(0)
for name, (kind, config) in MODELS.items():
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    model = kind(config).eval()
    randomise(model)
    saved = model.to(torch.bfloat16) if name == "llama-bfloat16" else model
    saved.save_pretrained(folder, max_shard_size="12KB" if name == "qwen2-sharded" else "1GB")
    (folder / "generation_config.json").unlink(missing_ok=True)
    again = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    found = answers(again, torch.randint(0, config.vocab_size, (2, 24)))
    top = np.sort(found["logits"], axis=-1)
    print(name, "largest logit", top[..., -1].max(), "files", sorted(path.name for path in folder.iterdir()))
    np.savez_compressed(folder / "answers.npz", **found)
