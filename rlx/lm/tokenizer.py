"""Text to token ids and back: bytes, the characters of a small alphabet, or a file of Hugging Face's `tokenizers`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

BEGIN_NAMES = ("<|begin_of_text|>", "<s>", "<bos>", "[BOS]", "<|startoftext|>", "<|endoftext|>")
END_NAMES = ("<|end_of_text|>", "</s>", "<eos>", "[EOS]", "<|endoftext|>", "<|im_end|>")


class TokenizerError(ValueError):
    """A text that cannot be encoded, ids that cannot be decoded, or a tokenizer's file that cannot be used."""


class Tokenizer(Protocol):
    """What the data and the command line ask of a tokenizer. Neither direction adds or needs `begin` or `end`."""

    @property
    def vocabulary(self) -> int:
        """How many ids there are: 0 to vocabulary - 1, the special ones included."""
        ...

    @property
    def begin(self) -> int:
        """The id that stands before every prompt."""
        ...

    @property
    def end(self) -> int:
        """The id that ends a response; it may be the same as `begin`."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; TokenizerError where it has none."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids, special ones left out; TokenizerError for an id outside the vocabulary."""
        ...


class ByteTokenizer:
    """UTF-8, byte by byte: ids 0 to 255 are bytes, 256 is the end of a text, 257 its beginning.

    Every text comes back as it was. What is not UTF-8, as a model's samples may be, is decoded to U+FFFD.
    """

    vocabulary = 258
    end = 256
    begin = 257

    def encode(self, text: str) -> list[int]:
        """The bytes of a text; a lone surrogate, which has none, is a TokenizerError."""
        try:
            return list(text.encode())
        except UnicodeEncodeError as error:
            raise TokenizerError(surrogate(error)) from None

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some bytes, without the special ids."""
        array = checked(ids, self.vocabulary)
        return array[array < 256].astype(np.uint8).tobytes().decode(errors="replace")


class CharacterTokenizer:
    """One id for each character of a small alphabet; then the end of a text, then its beginning.

    Args:
        characters: the alphabet, in the order of the ids; no character twice.
    """

    def __init__(self, characters: str) -> None:
        if not characters or len(set(characters)) < len(characters):
            raise TokenizerError(f"characters={characters!r} must be one or more, each once")
        self.characters = characters
        self.vocabulary = len(characters) + 2
        self.end = len(characters)
        self.begin = len(characters) + 1

    def encode(self, text: str) -> list[int]:
        """The characters' ids; any other character is a TokenizerError."""
        ids = [self.characters.find(character) for character in text]
        if -1 in ids:
            raise TokenizerError(f"{text[ids.index(-1)]!r} is none of the characters {self.characters!r}")
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The characters, without the special ids."""
        return "".join(self.characters[i] for i in checked(ids, self.vocabulary) if i < len(self.characters))


class FileTokenizer:
    """A tokenizer of Hugging Face's `tokenizers`, as `load_tokenizer` reads it.

    The names of special tokens in a text (`<|im_start|>`) become these tokens, as chat templates need it.
    """

    def __init__(self, inner: Any, begin: int, end: int) -> None:
        self.inner = inner
        self.begin = begin
        self.end = end
        self.vocabulary = 1 + max(inner.get_vocab(with_added_tokens=True).values())  # there may be gaps

    def encode(self, text: str) -> list[int]:
        """Token ids, without any that the file's post-processor would add."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise TokenizerError(surrogate(error)) from None
        return self.inner.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text, without special tokens."""
        return self.inner.decode(checked(ids, self.vocabulary).tolist(), skip_special_tokens=True)


def load_tokenizer(path: str | Path, begin: str | None = None, end: str | None = None) -> FileTokenizer:
    """Read `tokenizer.json`, the file that Hugging Face's `tokenizers` writes.

    Which tokens begin and end a text is, in this order: what the arguments say; `bos_token` and `eos_token` of
    `tokenizer_config.json` beside it; an added token of a well-known name (`<s>`, `</s>`, `<|endoftext|>`, ...).

    Args:
        path: the file, or the folder it lies in.
        begin: the token that begins a text, as it is written in the file.
        end: the token that ends one.

    Raises:
        ImportError: `tokenizers` is missing: `pip install 'rlx[text]'`.
        TokenizerError: the file is missing or damaged, or does not say which tokens begin and end a text.
    """
    path = Path(path)
    path = path / "tokenizer.json" if path.is_dir() else path
    inner = read_tokenizer(path)
    config = read_config(path.with_name("tokenizer_config.json"))
    added = [token.content for token in inner.get_added_tokens_decoder().values()]
    begin = begin or config.get("bos_token") or first_of(BEGIN_NAMES, added)
    end = end or config.get("eos_token") or first_of(END_NAMES, added)
    ids = []
    for role, token in (("begin", begin), ("end", end)):
        if token is None:
            raise TokenizerError(f'{path} does not say which token {role}s a text: give it, {role}="..."')
        if (found := inner.token_to_id(token)) is None:
            raise TokenizerError(f"{path} has no token {token!r} to {role} a text")
        ids.append(found)
    return FileTokenizer(inner, *ids)


def read_tokenizer(path: Path) -> Any:
    """The file as `tokenizers.Tokenizer`."""
    try:
        import tokenizers  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("load_tokenizer needs tokenizers: pip install 'rlx[text]'") from error
    if not path.is_file():
        raise TokenizerError(f"{path} is not there")
    try:
        inner = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises nothing more special
        raise TokenizerError(f"{path} is no tokenizer: {' '.join(str(error).split())}") from None
    inner.no_truncation()  # a file may ask for either, and texts would be cut or padded without a word
    inner.no_padding()
    return inner


def read_config(path: Path) -> dict[str, str | None]:
    """`bos_token` and `eos_token` of tokenizer_config.json, where each may be a string or an object; {} without it."""
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{path} is no JSON: {error}") from None
    tokens = {}
    for name in ("bos_token", "eos_token"):
        token = config.get(name) if isinstance(config, dict) else config
        token = token.get("content", token) if isinstance(token, dict) else token
        if not isinstance(token, str | None):
            raise TokenizerError(f"{path}: {name} must be a string or an object with its content")
        tokens[name] = token
    return tokens


def first_of(names: Iterable[str], present: list[str]) -> str | None:
    """The first of these names that is present."""
    return next((name for name in names if name in present), None)


def checked(ids: Iterable[int], vocabulary: int) -> np.ndarray:
    """Ids of one text as an array, all of them in the vocabulary."""
    array = np.asarray(ids if hasattr(ids, "__array__") else list(ids))
    if array.size == 0:
        return np.zeros(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TokenizerError(f"ids must be the integers of one text, [T], not {array.dtype} {list(array.shape)}")
    outside = array[(array < 0) | (array >= vocabulary)]
    if outside.size:
        raise TokenizerError(f"id {outside[0]} is not in the vocabulary, 0 to {vocabulary - 1}")
    return array


def surrogate(error: UnicodeEncodeError) -> str:
    """Say where a text is none."""
    return f"character {error.start} is a lone surrogate, {error.object[error.start]!r}, which no UTF-8 text can hold"
