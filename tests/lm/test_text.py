"""Plain text to pretrain on: one stream of tokens, and rows of it."""

import gzip

import numpy as np
import pytest
from lm_files import BEGIN, BYTES, END, write

from rlx.lm import CharacterTokenizer, DataError, load_text, windows


def test_text_is_one_stream(tmp_path):
    plain = tmp_path / "a.txt"
    plain.write_bytes(b"\xef\xbb\xbfone\r\n\ntwo")
    lines = write(tmp_path / "b.jsonl", {"text": "x"}, {"text": "yz"})
    tokens, report = load_text([plain, lines], BYTES)
    assert tokens.tolist() == [BEGIN, *b"one\r\n\ntwo", END, BEGIN, 120, END, BEGIN, 121, 122, END]
    assert tokens.dtype == np.int32
    assert report.good == 5
    zipped = tmp_path / "a.txt.gz"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    np.testing.assert_array_equal(load_text([zipped, lines], BYTES)[0], tokens)
    assert load_text(tmp_path, BYTES)[0].size == 2 * 11 + 7  # a.txt, a.txt.gz, b.jsonl


def test_long_texts_are_encoded_in_blocks_without_a_seam(tmp_path):
    text = "".join(f"línea {i}\n" for i in range(25_000))
    (tmp_path / "a.txt").write_text(text)
    assert BYTES.decode(load_text(tmp_path / "a.txt", BYTES)[0]) == text


def test_bad_text_is_named_by_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ncaf\xe9\nthree\n")
    with pytest.raises(DataError, match=r"a\.txt:2: not UTF-8: byte 0xe9 at 4$"):
        load_text(path, BYTES)
    tokens, report = load_text(path, BYTES, on_error="skip")
    assert BYTES.decode(tokens) == "one\nthree\n"
    assert report.skipped == {"not UTF-8": 1}
    path.write_bytes(b"ab\nax\n")
    with pytest.raises(DataError, match=r"a\.txt:2: \"text\" cannot be encoded: 'x' is none of the characters 'ab\\n'"):
        load_text(path, CharacterTokenizer("ab\n"))
    assert load_text(path, CharacterTokenizer("ab\n"), on_error="skip")[0].tolist() == [4, 0, 1, 2, 3]
    for content in (b"", b"\n \n"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.txt is empty$"):
            load_text(path, BYTES)


def test_windows_predict_every_token_once():
    tokens = np.arange(10, 21, dtype=np.int32)
    found = windows(tokens, 3)
    assert found.prompt.tolist() == [[10], [13], [16]]
    assert found.response.tolist() == [[11, 12, 13], [14, 15, 16], [17, 18, 19]]  # 20 is left over
    assert found.prompt_length.tolist() == [1, 1, 1]
    assert found.response_length.tolist() == [3, 3, 3]
    assert {array.dtype for array in found} == {np.dtype(np.int32)}
    assert windows(tokens[:4], 3).response.shape == (1, 3)
    with pytest.raises(DataError, match=r"a text of 3 tokens does not fill one window of 3 \+ 1"):
        windows(tokens[:3], 3)


def test_real_text(real):
    text = (real / "tinyshakespeare.txt").read_text()
    tokens, report = load_text(real / "tinyshakespeare.txt", BYTES)
    assert BYTES.decode(tokens) == text
    assert (len(tokens), report.skipped) == (1_115_394 + 2, {})
    assert windows(tokens, 256).response.shape == (4357, 256)
    names, _ = load_text(real / "names.txt", CharacterTokenizer("\nabcdefghijklmnopqrstuvwxyz"))
    assert names[:6].tolist() == [28, 5, 13, 13, 1, 0]
