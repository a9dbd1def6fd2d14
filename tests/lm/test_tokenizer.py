"""Tokenizers: every text comes back as it was, and what cannot be used is said in one line."""

import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from rlx.lm import ByteTokenizer, CharacterTokenizer, TokenizerError, load_tokenizer

TEXTS = [
    "",
    "plain",
    "né 漢字 👩‍👩‍👧 \u202e",
    "\x00\t\r\n\x7f",
    "\ufeffBOM",
    "e\u0301 is not é",
    "\U0010ffff",
    "</s><|endoftext|>",
]


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_come_back(text):
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode(text)
    assert ids == list(text.encode())
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([tokenizer.begin, *ids, tokenizer.end]) == text  # special ids say nothing


def test_bytes_by_pencil():
    tokenizer = ByteTokenizer()
    assert tokenizer.encode("aé") == [97, 0xC3, 0xA9]
    assert (tokenizer.vocabulary, tokenizer.end, tokenizer.begin) == (258, 256, 257)
    assert tokenizer.decode(iter([0xC3, 0xA9])) == "é"
    assert tokenizer.decode([]) == tokenizer.decode(np.zeros(0)) == ""


def test_every_character_comes_back():
    text = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    assert ByteTokenizer().decode(ByteTokenizer().encode(text)) == text


def test_what_is_not_utf8_is_decoded_all_the_same():
    assert ByteTokenizer().decode([97, 0xC3, 98]) == "a\ufffdb"  # a sampler may cut a character in two
    assert ByteTokenizer().decode([97, 0xC3]) == "a\ufffd"
    noise = np.random.default_rng(0).integers(0, 258, 10_000)
    assert isinstance(ByteTokenizer().decode(noise), str)


@pytest.mark.parametrize("wrap", [list, tuple, np.array, jnp.array, lambda ids: np.array(ids, np.uint16)])
def test_ids_of_any_kind(wrap):
    assert ByteTokenizer().decode(wrap([104, 105, 256])) == "hi"


def test_a_lone_surrogate_has_no_bytes():
    with pytest.raises(TokenizerError, match=r"character 1 is a lone surrogate, '\\ud800'"):
        ByteTokenizer().encode("a\ud800b")


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1, 258], "id 258 is not in the vocabulary, 0 to 257"),
        ([-1], "id -1 is not"),
        (np.zeros((2, 3), int), r"the integers of one text, \[T\], not int64 \[2, 3\]"),
        ([1.5], "not float64"),
    ],
)
def test_ids_that_mean_nothing(ids, message):
    with pytest.raises(TokenizerError, match=message):
        ByteTokenizer().decode(ids)


def test_characters():
    tokenizer = CharacterTokenizer("ba=")
    assert tokenizer.encode("ab=") == [1, 0, 2]
    assert tokenizer.decode([tokenizer.begin, 1, 0, tokenizer.end, 2]) == "ab="
    assert (tokenizer.vocabulary, tokenizer.end, tokenizer.begin) == (5, 3, 4)
    with pytest.raises(TokenizerError, match="'c' is none of the characters 'ba='"):
        tokenizer.encode("abc")
    with pytest.raises(TokenizerError, match="id 5 is not in the vocabulary, 0 to 4"):
        tokenizer.decode([5])
    for alphabet in ("", "aa"):
        with pytest.raises(TokenizerError, match="each once"):
            CharacterTokenizer(alphabet)


def write_tokenizer(folder, special=("<s>", "</s>"), config=None, truncate=False):
    """A byte-level BPE of 300 tokens, trained here, as tokenizer.json."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=list(special),
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["hello world, hello tokens"] * 3, trainer)
    if truncate:
        tokenizer.enable_truncation(4)
        tokenizer.enable_padding(length=4)
    tokenizer.save(str(folder / "tokenizer.json"))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder / "tokenizer.json"


@pytest.mark.parametrize("text", TEXTS)
def test_files_texts_come_back(tmp_path, text):
    tokenizer = load_tokenizer(write_tokenizer(tmp_path, special=["<bos>", "<eos>"]))
    ids = tokenizer.encode(text)
    assert tokenizer.decode([tokenizer.begin, *ids, tokenizer.end]) == text
    assert all(0 <= i < tokenizer.vocabulary for i in ids)


def test_files_merge_and_know_their_special_tokens(tmp_path):
    write_tokenizer(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert len(tokenizer.encode("hello")) < 5
    assert (tokenizer.begin, tokenizer.end) == (0, 1)
    assert tokenizer.vocabulary == max(tokenizer.inner.get_vocab().values()) + 1
    assert tokenizer.encode("hello</s>") == [*tokenizer.encode("hello"), 1]
    with pytest.raises(TokenizerError, match="is not in the vocabulary"):
        tokenizer.decode([tokenizer.vocabulary])
    with pytest.raises(TokenizerError, match="character 0 is a lone surrogate"):
        tokenizer.encode("\ud800")


def test_a_files_own_truncation_and_padding_are_off(tmp_path):
    tokenizer = load_tokenizer(write_tokenizer(tmp_path, truncate=True))
    assert tokenizer.decode(tokenizer.encode("a text of many letters")) == "a text of many letters"
    assert len(tokenizer.encode("a")) == 1


@pytest.mark.parametrize(
    ("config", "arguments", "begin", "end"),
    [
        (None, {}, "<s>", "</s>"),
        ({"bos_token": "<x>", "eos_token": {"content": "<y>", "lstrip": False}}, {}, "<x>", "<y>"),
        ({"bos_token": None, "eos_token": "<y>"}, {}, "<s>", "<y>"),
        ({"bos_token": "<x>"}, {"begin": "<y>", "end": "<y>"}, "<y>", "<y>"),
    ],
)
def test_where_begin_and_end_are_found(tmp_path, config, arguments, begin, end):
    path = write_tokenizer(tmp_path, ["<s>", "</s>", "<x>", "<y>"], config)
    tokenizer = load_tokenizer(path, **arguments)
    assert tokenizer.inner.id_to_token(tokenizer.begin) == begin
    assert tokenizer.inner.id_to_token(tokenizer.end) == end


@pytest.mark.parametrize(
    ("special", "config", "message"),
    [
        (["<q>"], None, r'does not say which token begins a text: give it, begin="\.\.\."'),
        (["<s>"], None, r'does not say which token ends a text: give it, end="\.\.\."'),
        (["<s>"], {"eos_token": "<gone>"}, "has no token '<gone>' to end a text"),
        (["<s>"], {"eos_token": 5}, "tokenizer_config.json: eos_token must be a string"),
        (["<s>"], [1], "tokenizer_config.json: bos_token must be a string"),
    ],
)
def test_files_that_do_not_say(tmp_path, special, config, message):
    path = write_tokenizer(tmp_path, special, config)
    with pytest.raises(TokenizerError, match=message) as error:
        load_tokenizer(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\x00garbage", b"[]", b'{"model": 3}', b"[" * 100_000])
def test_files_that_are_no_tokenizer(tmp_path, content):
    pytest.importorskip("tokenizers")
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is no tokenizer: ") as error:
        load_tokenizer(path)
    assert "\n" not in str(error.value)


def test_files_that_are_missing_or_have_a_broken_config(tmp_path):
    pytest.importorskip("tokenizers")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is not there"):
        load_tokenizer(tmp_path)
    write_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_bytes(b"{\xff")
    with pytest.raises(TokenizerError, match=r"tokenizer_config\.json is no JSON"):
        load_tokenizer(tmp_path)


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"load_tokenizer needs tokenizers: pip install 'rlx\[text\]'"):
        load_tokenizer(tmp_path / "tokenizer.json")
