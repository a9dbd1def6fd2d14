"""Checkpoints: transformers' own answers (tests/data/make_hf.py), and one line for every way a file can be broken."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx.lm import LoadError, load_hf
from rlx.lm.huggingface import transformer_config
from rlx.lm.safetensors import read_header, read_tensor
from rlx.lm.sequences import Prompts, Sampling, sample

DATA = Path(__file__).parents[1] / "data" / "hf"
NAMES = ["llama", "llama-gqa", "llama3", "qwen2", "qwen3", "qwen2-sharded", "llama-bfloat16"]
UP = "model.layers.1.mlp.up_proj.weight"
SECOND = "model-00002-of-00002.safetensors"


def answers(name):
    with np.load(DATA / name / "answers.npz") as found:
        return dict(found)


def logits_of(model, params, tokens):
    return np.asarray(model.apply(params, tokens))


def write(path, tensors, dtype="F32", metadata=True):
    """A file in the format, by its specification alone."""
    header, at, blobs = {"__metadata__": {"format": "pt"}} if metadata else {}, 0, []
    for name, tensor in tensors.items():
        blob = np.ascontiguousarray(tensor).tobytes()
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [at, at + len(blob)]}
        at += len(blob)
        blobs.append(blob)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))


def read(path):
    return {name: read_tensor(name, stored) for name, stored in read_header(path).items()}


@pytest.fixture
def copy(tmp_path):
    """Copies a fixture to where it may be broken."""

    def to_tmp(name, **config):
        folder = tmp_path / name
        shutil.copytree(DATA / name, folder, copy_function=shutil.copy)
        if config:
            both = json.loads((folder / "config.json").read_text()) | config
            (folder / "config.json").write_text(json.dumps({key: x for key, x in both.items() if x is not ...}))
        return folder

    return to_tmp


def refusal(folder):
    with pytest.raises(LoadError) as caught:
        load_hf(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(folder), "FOLDER")


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_transformers(name):
    model, params, tokenizer = load_hf(DATA / name)
    found = answers(name)
    assert found["logits"].std() > 0.3
    np.testing.assert_allclose(logits_of(model, params, found["tokens"]), found["logits"], atol=1e-4)
    assert tokenizer is None
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), model.init(jax.random.key(0), found["tokens"]))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == shapes
    assert model.config.parameter_count == sum(x.size for x in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("llama3", {"rope_scaling": None}),
        ("llama3", {"rope_scaling": (8.0, 1.0, 4.0, 64)}),
        ("llama3", {"rope_base": 10_000.0}),
        ("qwen2", {"rope_base": 10_000.0}),
        ("llama", {"norm_eps": 1e-6}),
    ],
)
def test_the_answers_depend_on_what_only_the_config_says(name, change):
    model, params, _ = load_hf(DATA / name)
    found = answers(name)
    other = model.clone(config=dataclasses.replace(model.config, **change))
    assert np.abs(logits_of(other, params, found["tokens"]) - found["logits"]).max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_greedy_continuations_are_those_of_transformers(name):
    model, params, _ = load_hf(DATA / name)
    found = answers(name)
    lengths, greedy = found["lengths"], found["greedy"]
    prompt = found["tokens"][:, : max(lengths)]
    sampling = Sampling(greedy.shape[1], end=model.config.vocabulary)  # no token ends it
    samples = sample(model, params, None, Prompts(jnp.asarray(prompt), jnp.asarray(lengths)), sampling)
    np.testing.assert_array_equal(samples.response[:, 0], greedy)
    for row, length, new in zip(prompt, lengths, greedy, strict=True):
        logits = logits_of(model, params, np.concatenate([row[:length], new])[None])[0]
        np.testing.assert_array_equal(logits[length - 1 : -1].argmax(-1), new)


def test_dtypes(copy):
    """bfloat16 and float16 files give the float32 parameters nearest to them; `dtype` is that of the products."""
    stored = read_header(DATA / "llama-bfloat16" / "model.safetensors")[UP]
    raw = np.fromfile(stored.path, np.uint16, 24 * 16, offset=stored.start).astype(np.uint32) << 16
    model, params, _ = load_hf(DATA / "llama-bfloat16", dtype="bfloat16")
    up = params["params"]["transformer"]["layers"]["up"]
    assert stored.dtype == "BF16"
    assert up.dtype == jnp.float32
    np.testing.assert_array_equal(up[1], raw.view(np.float32).reshape(24, 16).T)
    found = answers("llama-bfloat16")
    assert model.config.dtype == "bfloat16"
    np.testing.assert_allclose(logits_of(model, params, found["tokens"]), found["logits"], atol=0.2)

    folder = copy("llama")
    tensors = {name: x.astype(np.float16) for name, x in read(folder / "model.safetensors").items()}
    write(folder / "model.safetensors", tensors, "F16", metadata=False)
    half = load_hf(folder).params["params"]["transformer"]["layers"]["up"]
    np.testing.assert_array_equal(half[1], tensors[UP].T.astype(np.float32))


ROPE_4 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8}


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("llama3", {"rope_theta": 500.0, "rope_scaling": {"rope_type": "llama3"} | ROPE_4, "torch_dtype": "float32"}),
        ("llama3", {"rope_theta": 500.0, "rope_scaling": {"type": "llama3"} | ROPE_4}),
        ("llama", {"rope_theta": 10000.0, "rope_scaling": None, "num_key_value_heads": None, "head_dim": None}),
        ("llama", {"num_key_value_heads": ..., "head_dim": ...}),
        ("llama-gqa", {"tie_word_embeddings": ...}),  # none of the three ties unless it says so
        ("qwen2", {"rope_theta": 1000000, "sliding_window": 4, "layer_types": ..., "max_window_layers": 0}),
        ("qwen2", {"rope_theta": 1e6, "sliding_window": 4, "layer_types": ..., "use_sliding_window": True}),
        ("qwen3", {"rope_theta": 1e6, "rope_scaling": {"rope_type": "default"}}),
    ],
)
def test_configs_as_transformers_4_writes_them(copy, name, config):
    config = {"rope_parameters": ..., "dtype": ..., "transformers_version": "4.51.0"} | config
    assert load_hf(copy(name, **config)).model == load_hf(DATA / name).model


def test_rotary_scaling_that_does_not_say_for_what_length():
    """transformers takes `max_position_embeddings`, 64 here."""
    config = json.loads((DATA / "llama3" / "config.json").read_text())
    del config["rope_parameters"]["original_max_position_embeddings"]
    assert transformer_config(config).rope_scaling == (8.0, 1.0, 4.0, 64)


def test_sizes_of_known_models():
    """As published: 1,235,814,400 numbers in Llama-3.2-1B, 494,032,768 in Qwen2.5-0.5B, 596,049,920 in Qwen3-0.6B."""

    def size(kind, vocabulary, width, hidden, layers, heads, groups, **more):
        names = "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads"
        sizes = dict(zip(names.split(), (vocabulary, width, hidden, layers, heads, groups), strict=True))
        return transformer_config({"model_type": kind, "tie_word_embeddings": True} | sizes | more).parameter_count

    assert size("llama", 128256, 2048, 8192, 16, 32, 8, head_dim=64) == 1_235_814_400
    assert size("qwen2", 151936, 896, 4864, 24, 14, 2) == 494_032_768
    assert size("qwen3", 151936, 1024, 3072, 28, 16, 8) == 596_049_920


@pytest.mark.parametrize(
    ("name", "config", "says"),
    [
        ("llama", {"model_type": "gemma3"}, "model_type='gemma3' is not read: only llama, qwen2 and qwen3"),
        ("llama", {"model_type": ...}, "model_type=None"),
        ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification is not read"),
        ("llama", {"quantization_config": {"quant_method": "gptq"}}, "quantised"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ("llama", {"attention_bias": True}, "attention_bias=True"),
        ("qwen3", {"attention_bias": True}, "attention_bias=True"),
        ("llama", {"mlp_bias": True}, "mlp_bias=True"),
        ("llama", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "'yarn'"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "'linear'"),
        ("llama3", {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor=None"),
        ("qwen3", {"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, "one object for all layers"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
        ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, "sliding windows are in use"),
        (
            "qwen2",
            {"layer_types": ..., "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
            "sliding windows are in use",
        ),
        ("llama", {"hidden_size": ...}, "hidden_size=None: must be a whole number above 0"),
        ("llama", {"vocab_size": "48"}, "vocab_size='48'"),
        ("llama", {"num_key_value_heads": 3}, "must be a multiple of kv_heads=3"),
        ("qwen3", {"head_dim": 5}, "width 5: must be even"),
        ("llama", {"rms_norm_eps": -1}, "rms_norm_eps=-1: must be a number above 0"),
    ],
)
def test_models_that_are_not_read(copy, name, config, says):
    message = refusal(copy(name, **config))
    assert message.startswith("FOLDER/config.json: ")
    assert says in message


@pytest.mark.parametrize("bad", ["text", -3, 0.5, [], {}, None, True, [1], {"a": {}}])
def test_a_config_of_wrong_types_is_refused_or_read(bad):
    """No value of any key ends in another error than ValueError."""
    config = json.loads((DATA / "qwen2" / "config.json").read_text())
    config |= {"quantization_config": None, "rope_scaling": None, "use_sliding_window": True, "head_dim": 4}
    for layer_types in (None, ["full_attention"]):
        for key in config:
            try:
                transformer_config(config | {"layer_types": layer_types} | {key: bad})
            except ValueError as error:
                message = str(error)
                assert "\n" not in message


def test_a_broken_config(copy):
    folder = copy("llama")
    for text, says in [(b'{"model_type": ', "broken JSON"), (b"[]", "not list"), (b"\xff", "broken JSON")]:
        (folder / "config.json").write_bytes(text)
        assert refusal(folder).startswith("FOLDER/config.json: ")
        assert says in refusal(folder)
    (folder / "config.json").unlink()
    assert refusal(folder) == "FOLDER/config.json is not there"


def test_no_weights(copy):
    folder = copy("llama")
    (folder / "model.safetensors").unlink()
    says = "FOLDER has neither model.safetensors nor model.safetensors.index.json: no other format is read"
    assert refusal(folder) == says


def test_a_file_cut_off_anywhere_is_refused(copy):
    folder = copy("llama")
    path = folder / "model.safetensors"
    whole, stored = path.read_bytes(), read_header(path)
    path.write_bytes(whole[: stored[UP].start + 100])
    end = stored[UP].start + 4 * 16 * 24
    says = f"FOLDER/model.safetensors: cut off: {UP} ends at byte {end}, the file at {end - 4 * 16 * 24 + 100}"
    assert refusal(folder) == says
    for size in [0, 3, 8, 9, 500, *range(1000, len(whole), 997), len(whole) - 1]:
        path.write_bytes(whole[:size])
        assert "cut off" in refusal(folder)
    path.write_bytes(whole + b"xyz")
    assert "3 bytes too many" in refusal(folder)


def test_a_broken_header(copy):
    folder = copy("llama")
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    good = json.loads(whole[8 : 8 + length])

    def with_header(text):
        path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])
        return refusal(folder)

    def with_entry(**changes):
        return with_header(json.dumps(good | {UP: good[UP] | changes}).encode())

    begin, end = good[UP]["data_offsets"]
    assert "FOLDER/model.safetensors, its header: broken JSON" in with_header(whole[8 : length - 40])
    assert "must be a JSON object" in with_header(b"[1]")
    assert f"{UP}: its entry in the header" in with_header(json.dumps(good | {UP: 3}).encode())
    assert f"{UP}: its entry in the header" in with_entry(data_offsets=[0])
    assert f"{UP}: shape [24, -16]" in with_entry(shape=[24, -16])
    assert f"{UP}: 1536 bytes cannot be F32 of shape [24, 17]" in with_entry(shape=[24, 17])
    assert f"{UP}: 1536 bytes cannot be BF16 of shape [24, 16]" in with_entry(dtype="BF16")
    assert f"{UP} begins at byte" in with_entry(data_offsets=[begin - 4, end - 4])
    assert f"{UP} is I32 (quantised?): only F64, F32, F16, BF16 are read" in with_entry(dtype="I32")
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 21184\n")
    assert "git lfs pull" in refusal(folder)


def test_tensors_that_do_not_fit_the_config(copy):
    folder = copy("qwen3")
    path = folder / "model.safetensors"
    good = read(path)

    def refused(tensors):
        write(path, tensors)
        return refusal(folder)

    bias = "model.layers.0.self_attn.q_proj.bias"
    without = {name: x for name, x in good.items() if name != UP}
    assert refused(without) == f"FOLDER has no tensor {UP}, which its config.json asks for"
    fewer = {name: x for name, x in good.items() if "layers.1." not in name}
    assert "(and 10 more)" in refused(fewer)
    assert refused(good | {bias: np.zeros(32, np.float32)}) == (
        f"FOLDER/model.safetensors: {bias} has no place in the model of config.json"
    )
    assert refused(good | {UP: good[UP].T}) == (
        f"FOLDER/model.safetensors: {UP} has the shape [16, 24]: by config.json it should be [24, 16]"
    )
    assert "embed_tokens.weight has the shape [47, 16]" in refused(
        good | {"model.embed_tokens.weight": good["model.embed_tokens.weight"][:-1]}
    )
    write(path, good | {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32)})
    assert load_hf(folder).model == load_hf(DATA / "qwen3").model


def test_a_tied_models_copy_of_the_embedding(copy):
    folder = copy("llama")
    path = folder / "model.safetensors"
    good = read(path)
    embedding = good["model.embed_tokens.weight"]
    write(path, good | {"lm_head.weight": embedding})
    both = jax.tree.leaves(load_hf(folder).params), jax.tree.leaves(load_hf(DATA / "llama").params)
    for ours, theirs in zip(*both, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    write(path, good | {"lm_head.weight": embedding + 1e-3})
    assert "lm_head.weight is not the embedding" in refusal(folder)
    write(path, good | {"lm_head.weight": embedding[1:]})
    assert "lm_head.weight has the shape [47, 16]: by config.json it should be [48, 16]" in refusal(folder)


def test_an_untied_models_head_must_be_there(copy):
    assert refusal(copy("llama", tie_word_embeddings=False)) == (
        "FOLDER has no tensor lm_head.weight, which its config.json asks for"
    )


def test_shards_that_are_missing_or_not_as_listed(copy):
    folder = copy("qwen2-sharded")
    index = folder / "model.safetensors.index.json"
    listed = json.loads(index.read_text())
    tensors = read(folder / SECOND)
    write(folder / SECOND, {name: x for name, x in tensors.items() if name != UP})
    assert refusal(folder) == f"FOLDER/{SECOND} has no {UP}, which model.safetensors.index.json says it holds"
    write(folder / SECOND, tensors)
    whole = (folder / SECOND).read_bytes()
    (folder / SECOND).write_bytes(whole[:-1])
    assert f"FOLDER/{SECOND}: cut off: {list(tensors)[-1]} ends at byte" in refusal(folder)
    (folder / SECOND).unlink()
    first = next(name for name, file in listed["weight_map"].items() if file == SECOND)
    assert refusal(folder) == f"FOLDER/{SECOND} is not there: it should hold {first}"
    for broken in ({}, {"weight_map": {}}, {"weight_map": [1]}, {"weight_map": {UP: 3}}):
        index.write_text(json.dumps(broken))
        assert refusal(folder) == f"FOLDER/{index.name}: weight_map must say in which file each tensor is"
    index.write_text("{")
    assert refusal(folder).startswith(f"FOLDER/{index.name}: broken JSON")


def test_the_folders_tokenizer(copy):
    pytest.importorskip("rlx.lm.tokenizer")
    tokenizers = pytest.importorskip("tokenizers")
    folder = copy("llama")

    def save(size):
        words = {"<s>": 0, "</s>": 1} | {f"w{i}": i for i in range(2, size)}
        made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<s>"))
        made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        made.add_special_tokens(["<s>", "</s>"])
        made.save(str(folder / "tokenizer.json"))

    save(40)
    tokenizer = load_hf(folder).tokenizer
    assert tokenizer.encode("w5 w39 w2") == [5, 39, 2]
    assert (tokenizer.begin, tokenizer.end) == (0, 1)
    save(49)
    assert refusal(folder) == "FOLDER/tokenizer.json has 49 ids, but by config.json the model has 48"
