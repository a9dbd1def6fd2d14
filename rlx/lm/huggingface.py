"""Checkpoints of Hugging Face's `transformers`: Llama, Qwen2 and Qwen3, from a folder on disk."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from rlx.lm.safetensors import LoadError, Stored, read_header, read_json, read_tensor
from rlx.nets.transformer import Params, Transformer, TransformerConfig

TOP = {"embedding": "model.embed_tokens.weight", "norm": "model.norm.weight", "unembedding": "lm_head.weight"}
LAYER = {
    "attention_norm": "input_layernorm.weight",
    "query": "self_attn.q_proj.weight",
    "key": "self_attn.k_proj.weight",
    "value": "self_attn.v_proj.weight",
    "query_bias": "self_attn.q_proj.bias",
    "key_bias": "self_attn.k_proj.bias",
    "value_bias": "self_attn.v_proj.bias",
    "query_norm": "self_attn.q_norm.weight",
    "key_norm": "self_attn.k_norm.weight",
    "attention_out": "self_attn.o_proj.weight",
    "ffn_norm": "post_attention_layernorm.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
}
BUFFER = "rotary_emb.inv_freq"  # older files hold these frequencies, which follow from the config


class Loaded(NamedTuple):
    """What a folder held.

    Attributes:
        model: the transformer, with logits.
        params: its parameters, in float32 whatever the files hold.
        tokenizer: as `load_tokenizer` reads it; None where the folder has no tokenizer.json.
    """

    model: Transformer
    params: Params
    tokenizer: Any


def load_hf(folder: str | Path, dtype: str = "float32") -> Loaded:
    """Read a checkpoint as `transformers` saves it: config.json, safetensors in one file or several, tokenizer.json.

    Llama (with the rotary scaling of Llama 3.1 or none), Qwen2 and Qwen3, as transformers 4 and 5 write them. Logits
    are those of `transformers` but for rounding. Nothing is downloaded.

    Args:
        folder: where the files are.
        dtype: of products and activations, "bfloat16" on accelerators; parameters are float32.

    Raises:
        LoadError: a file is missing, damaged or does not fit the others, named with the tensor; or the model is of a
            kind that is not read.
        ImportError: there is a tokenizer.json, and `tokenizers` is missing: `pip install 'rlx[text]'`.
    """
    path = Path(folder) / "config.json"
    described = read_json(path)
    try:
        config = transformer_config(described)
    except ValueError as error:
        raise LoadError(f"{path}: {error}") from None
    config = dataclasses.replace(config, dtype=dtype)
    tensors = find_tensors(Path(folder))
    check_tensors(Path(folder), config, tensors)
    tokenizer = find_tokenizer(Path(folder), config)
    return Loaded(Transformer(config), {"params": {"transformer": read_params(config, tensors)}}, tokenizer)


def transformer_config(config: dict[str, Any]) -> TransformerConfig:
    """The shape that a config.json describes.

    Raises:
        ValueError: it is of a kind that is not read, or a number is missing or impossible; it names the key.
    """
    check_kind(config)
    check_sliding(config)
    base, scaling = rotary(config)
    width, heads = count(config, "hidden_size"), count(config, "num_attention_heads")
    usual = 128 if config["model_type"] == "qwen3" else width // heads  # where the file says nothing
    return TransformerConfig(
        vocabulary=count(config, "vocab_size"),
        width=width,
        layers=count(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=heads if config.get("num_key_value_heads") is None else count(config, "num_key_value_heads"),
        head_width=usual if config.get("head_dim") is None else count(config, "head_dim"),
        hidden=count(config, "intermediate_size"),
        tied=bool(config.get("tie_word_embeddings", False)),
        rope_base=base,
        rope_scaling=scaling,
        norm_eps=number({"rms_norm_eps": 1e-6} | config, "rms_norm_eps"),
        qkv_bias=config["model_type"] == "qwen2",
        qk_norm=config["model_type"] == "qwen3",
    )


def check_kind(config: dict[str, Any]) -> None:
    """Raise a ValueError that names what this transformer has not got."""
    kind = config.get("model_type")
    if kind not in ("llama", "qwen2", "qwen3"):
        raise ValueError(f"model_type={kind!r} is not read: only llama, qwen2 and qwen3")
    for name in strings(config, "architectures"):
        if not name.endswith("ForCausalLM"):
            raise ValueError(f"architectures: {name} is not read: only ...ForCausalLM, whose outputs are logits")
    if config.get("quantization_config"):
        raise ValueError("quantization_config: quantised weights are not read")
    if config.get("hidden_act", "silu") != "silu":
        raise ValueError(f"hidden_act={config['hidden_act']!r} is not read: only silu")
    for name in ("attention_bias", "mlp_bias"):
        if config.get(name) and (kind, name) != ("qwen2", "attention_bias"):  # where transformers does not look at it
            raise ValueError(f"{name}={config[name]!r} is not read: only false")


def check_sliding(config: dict[str, Any]) -> None:
    """Raise a ValueError if some layer attends to the newest tokens only."""
    if kinds := strings(config, "layer_types"):
        in_use = set(kinds) != {"full_attention"}
    else:
        first, layers = config.get("max_window_layers", 28), count(config, "num_hidden_layers")
        none_late = isinstance(first, int) and first >= layers
        in_use = config.get("use_sliding_window") and config.get("sliding_window") and not none_late
    if in_use:
        raise ValueError("sliding windows are in use, which are not read: only full attention in every layer")


def rotary(config: dict[str, Any]) -> tuple[float, tuple[float, float, float, int] | None]:
    """Base and scaling of the rotary positions.

    transformers 4 has `rope_theta` and `rope_scaling`, 5 has both in `rope_parameters`.
    """
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(rope, dict) or any(isinstance(value, dict) for value in rope.values()):
        raise ValueError(f"rotary positions {rope!r} are not read: only one object for all layers")
    usual = {"rope_theta": 10_000.0, "original_max_position_embeddings": config.get("max_position_embeddings")}
    found = usual | config | rope
    if found.get("partial_rotary_factor") not in (None, 1):
        raise ValueError(f"partial_rotary_factor={found['partial_rotary_factor']!r} is not read: only 1")
    base, kind = number(found, "rope_theta"), rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return base, None
    if kind != "llama3":
        raise ValueError(f"rotary positions of the type {kind!r} are not read: only default and llama3")
    factor, low, high = (number(rope, name) for name in ("factor", "low_freq_factor", "high_freq_factor"))
    return base, (factor, low, high, count(found, "original_max_position_embeddings"))


def count(config: dict[str, Any], name: str) -> int:
    """A whole number above 0."""
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r}: must be a whole number above 0")
    return value


def number(config: dict[str, Any], name: str) -> float:
    """A finite number above 0."""
    value = config.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise ValueError(f"{name}={value!r}: must be a number above 0")
    return float(value)


def strings(config: dict[str, Any], name: str) -> list[str]:
    """A list of strings; empty where there is none."""
    value = config.get(name) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{name}={value!r}: must be a list of strings")
    return value


def find_tensors(folder: Path) -> dict[str, Stored]:
    """Every tensor of model.safetensors, or of the files that model.safetensors.index.json lists, by name."""
    if (folder / "model.safetensors").is_file():
        return read_header(folder / "model.safetensors")
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        raise LoadError(f"{folder} has neither model.safetensors nor {index.name}: no other format is read")
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not listed or not all(isinstance(file, str) for file in listed.values()):
        raise LoadError(f"{index}: weight_map must say in which file each tensor is")
    headers = {}
    for name, file in listed.items():
        if not (folder / file).is_file():
            raise LoadError(f"{folder / file} is not there: it should hold {name}")
        if file not in headers:
            headers[file] = read_header(folder / file)
        if name not in headers[file]:
            raise LoadError(f"{folder / file} has no {name}, which {index.name} says it holds")
    return {name: stored for header in headers.values() for name, stored in header.items()}


def expected_shapes(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape that each tensor has in the files: a linear layer's `[in, out]` here is `[out, in]` there."""
    shapes = config.shapes()
    expected = {TOP[name]: shapes[name][0] for name in TOP if name in shapes}
    if not config.tied:
        expected[TOP["unembedding"]] = (config.vocabulary, config.width)
    for layer in range(config.layers):
        for name, (shape, _) in shapes["layers"].items():
            expected[f"model.layers.{layer}.{LAYER[name]}"] = shape[:0:-1]
    return expected


def check_tensors(folder: Path, config: TransformerConfig, tensors: dict[str, Stored]) -> None:
    """Raise a LoadError unless the files hold the tensors that config.json describes, and no others."""
    expected = expected_shapes(config)
    tied = {TOP["unembedding"]: (config.vocabulary, config.width)} if config.tied else {}  # a copy that some files have
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise LoadError(f"{folder} has no tensor {some(missing)}, which its config.json asks for")
    extra = [name for name in tensors if name not in expected | tied and not name.endswith(BUFFER)]
    if extra:
        raise LoadError(f"{tensors[extra[0]].path}: {some(extra)} has no place in the model of config.json")
    for name, shape in (expected | tied).items():
        if name in tensors and tensors[name].shape != shape:
            path, _, found, _ = tensors[name]
            raise LoadError(f"{path}: {name} has the shape {list(found)}: by config.json it should be {list(shape)}")


def some(names: list[str]) -> str:
    """The first of these names, and how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more)"


def read_params(config: TransformerConfig, tensors: dict[str, Stored]) -> Params:
    """Parameters as `Transformer` has them, layers on the leading axis."""

    def read(name: str) -> np.ndarray:
        return read_tensor(name, tensors[name])

    def stacked(name: str, shape: tuple[int, ...]) -> np.ndarray:
        layers = np.empty(shape, np.float32)
        for index in range(config.layers):
            layers[index] = read(f"model.layers.{index}.{LAYER[name]}").T
        return layers

    embedding, shapes = read(TOP["embedding"]), config.shapes()
    params = {"embedding": jnp.asarray(embedding), "norm": jnp.asarray(read(TOP["norm"]))}
    if TOP["unembedding"] in tensors:
        unembedding = read(TOP["unembedding"])
        if not config.tied:
            params["unembedding"] = jnp.asarray(unembedding.T)
        elif not np.array_equal(embedding, unembedding):
            path = tensors[TOP["unembedding"]].path
            raise LoadError(f"{path}: lm_head.weight is not the embedding, though config.json has tie_word_embeddings")
    return params | {
        "layers": {name: jnp.asarray(stacked(name, shape)) for name, (shape, _) in shapes["layers"].items()}
    }


def find_tokenizer(folder: Path, config: TransformerConfig) -> Any:
    """The folder's tokenizer, or None; LoadError if it has ids for which the model has no embedding."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    from rlx.lm.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(folder)
    if tokenizer.vocabulary > config.vocabulary:
        raise LoadError(f"{path} has {tokenizer.vocabulary} ids, but by config.json the model has {config.vocabulary}")
    return tokenizer
