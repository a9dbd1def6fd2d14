"""Files to arrays: every token where it belongs, and every prompt on one side of a fold."""

import gzip
import json
import time

import jax
import numpy as np
import pytest
from lm_files import BEGIN, BYTES, END, ids, prompts_of, responses_of, rows, write

from rlx.lm import (
    ByteTokenizer,
    DataError,
    folds,
    load_comparisons,
    load_demonstrations,
    load_prompts,
    load_rankings,
)


def test_demonstrations_by_pencil(tmp_path):
    path = write(tmp_path / "a.jsonl", {"prompt": "né", "completion": "b", "id": 7}, {"text": "cde"})
    found, report = load_demonstrations(path, BYTES, 10, 10)
    assert prompts_of(found) == [[BEGIN, 110, 0xC3, 0xA9], [BEGIN]]
    assert responses_of(found) == [[98, END], [99, 100, 101, END]]
    assert found.prompt.shape == found.response.shape == (2, 4)
    assert {array.dtype for array in found} == {np.dtype(np.int32)}
    assert (report.good, report.skipped, report.truncated, str(report)) == (2, {}, 0, "2 good lines")


def test_prompt_and_response_are_never_encoded_together(tmp_path):
    seen = []

    class Spy(ByteTokenizer):
        def encode(self, text):
            seen.append(text)
            return super().encode(text)

    load_demonstrations(write(tmp_path / "a.jsonl", {"prompt": "a", "completion": "b"}), Spy(), 9, 9)
    assert seen == ["a", "b"]


def test_comparisons_by_pencil(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        {"prompt": "p", "chosen": "good", "rejected": "b", "margin": 1.5},
        {"prompt": "pq", "chosen": "x", "rejected": "y", "tie": True},
        {"prompt": "q", "chosen": "same", "rejected": "same", "tie": True, "margin": 0},
    )
    found, report = load_comparisons(path, BYTES, 10, 10)
    for side in (found.chosen, found.rejected):
        assert prompts_of(side) == [[BEGIN, 112], [BEGIN, 112, 113], [BEGIN, 113]]
        assert side.response.shape == (3, 5)  # one width for both
    assert responses_of(found.chosen) == [[*ids("good"), END], [120, END], [*ids("same"), END]]
    assert responses_of(found.rejected) == [[98, END], [121, END], [*ids("same"), END]]
    assert found.margin.tolist() == [1.5, 0, 0]
    assert found.tie.tolist() == [False, True, True]
    assert (found.margin.dtype, found.tie.dtype) == (np.float32, bool)
    assert report.good == 3


def test_dialogues_share_their_prompt(tmp_path):
    start = "\n\nHuman: hi\n\nAssistant: yes\n\nHuman: and?\n\nAssistant:"
    path = write(
        tmp_path / "a.jsonl",
        {"chosen": start + " Sure.", "rejected": start + " So."},  # the shared " S" belongs to the responses
        {"chosen": start + " a\n\nHuman: b\n\nAssistant: c", "rejected": start + " d\n\nAssistant: c", "margin": 2},
        {
            "chosen": "\n\nHuman: x\n\nAssistant: a\n\nAssistant:",
            "rejected": "\n\nHuman: x\n\nAssistant: b",
            "tie": True,
        },
    )
    found, _ = load_comparisons(path, BYTES, 100, 100)
    assert prompts_of(found.chosen) == [[BEGIN, *ids(start)]] * 2 + [[BEGIN, *ids("\n\nHuman: x\n\nAssistant:")]]
    assert responses_of(found.chosen)[0] == [*ids(" Sure."), END]
    assert responses_of(found.rejected)[:2] == [[*ids(" So."), END], [*ids(" d\n\nAssistant: c"), END]]
    assert found.margin.tolist() == [0, 2, 0]
    prompts, _ = load_prompts(path, BYTES, 100)
    assert rows(*prompts) == prompts_of(found.chosen)


def test_rankings_by_pencil(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        {"prompt": "p", "responses": ["best", "worst"]},
        {"prompt": "pq", "responses": ["a", "b", "c"]},
    )
    found, _ = load_rankings(path, BYTES, 10, 10)
    assert prompts_of(found) == [[BEGIN, 112], [BEGIN, 112, 113]]
    assert found.response.shape == (2, 3, 6)
    assert found.response_length.tolist() == [[5, 6, 0], [2, 2, 2]]
    assert found.count.tolist() == [2, 3]
    assert found.response[0, 1].tolist() == [*ids("worst"), END]
    assert found.response[1, :, 0].tolist() == ids("abc")


def test_prompts_of_any_kind_of_record(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        {"prompt": "alone"},
        {"prompt": "p", "completion": 5},
        {"chosen": "x\n\nAssistant: a", "rejected": "x\n\nAssistant:"},
    )
    (prompt, length), report = load_prompts(path, BYTES, 20)
    assert rows(prompt, length) == [[BEGIN, *ids(text)] for text in ("alone", "p", "x\n\nAssistant:")]
    assert report.good == 3


def test_files_folders_and_gzip(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "b.jsonl", {"text": "2"})
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "1"}\n') + gzip.compress(b'{"text": "one"}'))
    (folder / "notes.md").write_text("not data")
    other = write(tmp_path / "c", {"text": "3"})
    zipped = tmp_path / "misnamed.jsonl"
    zipped.write_bytes(gzip.compress(b'{"text": "4"}'))
    found, report = load_demonstrations([str(folder), other, zipped], BYTES, 1, 4)
    assert [BYTES.decode(row) for row in responses_of(found)] == ["1", "one", "2", "3", "4"]
    assert report.good == 5


def test_marks_line_ends_and_blank_lines_are_fine(tmp_path):
    path = tmp_path / "windows.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"text": "a"}\r\n\r\n  \t\n\n{"text": "\\u0000\\r\\n\xc3\xa9"}'
    )  # no newline at the end
    found, report = load_demonstrations(path, BYTES, 9, 9)
    assert responses_of(found) == [[97, END], [0, 13, 10, 0xC3, 0xA9, END]]
    assert report.good == 2
    path.write_bytes(path.read_bytes() + b"\n\n[]")
    with pytest.raises(DataError, match=r"windows\.jsonl:7: must be an object, not a list$"):  # blank lines count
        load_demonstrations(path, BYTES, 9, 9)


def test_too_long_is_an_error_by_default(tmp_path):
    path = write(tmp_path / "a.jsonl", {"prompt": "abc", "completion": "xyz"})
    found, _ = load_demonstrations(path, BYTES, 4, 4)  # begin and end count, and just fit
    assert (found.prompt.shape, found.response.shape) == ((1, 4), (1, 4))
    with pytest.raises(DataError, match=r'a\.jsonl:1: "prompt" has 4 tokens, more than 3$'):
        load_demonstrations(path, BYTES, 3, 4)
    with pytest.raises(DataError, match=r'a\.jsonl:1: "completion" has 4 tokens, more than 3$'):
        load_demonstrations(path, BYTES, 4, 3)


def test_too_long_may_be_skipped_while_other_errors_are_raised(tmp_path):
    path = write(tmp_path / "a.jsonl", {"text": "long"}, {"text": "ok"})
    found, report = load_demonstrations(path, BYTES, 1, 3, too_long="skip")
    assert responses_of(found) == [[*ids("ok"), END]]
    assert report.skipped == {"too long": 1}
    assert report.first["too long"].endswith('a.jsonl:1: "text" has 5 tokens, more than 3')
    with pytest.raises(DataError, match=r'a\.jsonl:3: "text" is empty'):
        load_demonstrations(write(path, {"text": "long"}, {"text": "ok"}, {"text": ""}), BYTES, 1, 3, too_long="skip")


@pytest.mark.parametrize(("limit", "left"), [(1, ""), (2, "e"), (3, "de"), (5, "bcde"), (6, "abcde"), (7, "abcde")])
def test_truncation_keeps_a_prompts_end_and_a_responses_beginning(tmp_path, limit, left):
    path = write(tmp_path / "a.jsonl", {"prompt": "abcde", "completion": "vwxyz"}, {"prompt": "p", "completion": "q"})
    found, report = load_demonstrations(path, BYTES, limit, limit, too_long="truncate")
    assert prompts_of(found)[0] == [BEGIN, *ids(left)]
    assert responses_of(found)[0] == [*ids("vwxyz"), END][:limit]  # `end` is the first to go
    assert report.truncated == (2 if limit == 1 else int(limit < 6))
    assert report.good == 2


def test_truncation_may_leave_nothing_to_prefer(tmp_path):
    record = {"prompt": "p", "chosen": "same start, good end", "rejected": "same start, bad end"}
    path = write(tmp_path / "a.jsonl", record)
    with pytest.raises(DataError, match=r'a\.jsonl:1: "chosen" and "rejected" are the same once truncated$'):
        load_comparisons(path, BYTES, 9, 12, too_long="truncate")
    found, report = load_comparisons(path, BYTES, 9, 13, too_long="truncate")
    assert (report.truncated, found.chosen.response_length.tolist()) == (1, [13])
    assert END not in found.chosen.response
    load_comparisons(write(path, record | {"tie": True}), BYTES, 9, 12, too_long="truncate")


@pytest.mark.parametrize("k", [2, 5])
def test_folds_keep_a_prompt_on_one_side(k):
    random = np.random.default_rng(0)
    text = random.integers(0, 3, (300, 4))  # of 3 + 9 + 27 + 81 different prompts
    length = random.integers(1, 5, 300)
    padding = np.where(np.arange(4) < length[:, None], text, random.integers(0, 99, text.shape))
    part = folds(padding, length, k, jax.random.key(0))
    seen = {}
    for row, n, i in zip(text, length, part, strict=True):
        assert seen.setdefault(tuple(row[:n]), i) == i
    assert len(seen) < 120
    size = np.bincount(part, minlength=k)
    assert size.min() >= 0.9 * 300 / k
    assert (folds(padding, length, k, jax.random.key(1)) != part).mean() > 0.25  # another key, other parts
    np.testing.assert_array_equal(folds(padding, length, k, jax.random.key(0)), part)


def test_folds_of_few_prompts():
    prompt, length = np.array([[1], [1], [1], [1], [2], [3]]), np.ones(6, int)
    part = folds(prompt, length, 3, jax.random.key(0))
    assert len(set(part[:4])) == 1
    assert set(part) == {0, 1, 2}
    for k in (1, 4):
        with pytest.raises(DataError, match=f"k={k} parts of 3 different prompts"):
            folds(prompt, length, k, jax.random.key(0))


def test_real_comparisons(real):
    path = real / "hh_harmless_first1800.jsonl.gz"
    with pytest.raises(DataError, match=r'jsonl\.gz:87: "chosen" has an empty response'):
        load_comparisons(path, BYTES, 4096, 4096)
    start = time.process_time()
    found, report = load_comparisons(path, BYTES, 4096, 4096, on_error="skip")
    assert time.process_time() - start < 3.0  # 0.4 s, with room for a slow machine
    assert (report.good, report.skipped) == (1796, {"empty text": 4})
    record = json.loads(gzip.decompress(path.read_bytes()).split(b"\n")[0])
    for side, name in ((found.chosen, "chosen"), (found.rejected, "rejected")):
        assert BYTES.decode(np.append(prompts_of(side)[0], responses_of(side)[0])) == record[name]
        assert all(row[-1] == END and END not in row[:-1] for row in responses_of(side))
    assert all(BYTES.decode(row).endswith("\n\nAssistant:") for row in prompts_of(found.chosen))
    part = folds(found.chosen.prompt, found.chosen.prompt_length, 5, jax.random.key(0))
    assert sorted(np.bincount(part)) == [359, 359, 359, 359, 360]
    cut, report = load_comparisons(path, BYTES, 512, 256, too_long="truncate", on_error="skip")
    assert (report.good + report.skipped["empty text"] + report.skipped.get("same responses", 0), report.truncated) == (
        1800,
        1007,
    )
    assert cut.chosen.prompt.shape[1] == 512
