"""Whatever is wrong with a file is named by file and line, or counted by reason."""

import gzip
import json

import numpy as np
import pytest
from lm_files import BEGIN, BYTES, END, prompts_of, responses_of, write

from rlx.lm import ByteTokenizer, DataError, load_comparisons, load_demonstrations, load_rankings

BAD = [
    (b'{"prompt": "p"', "broken JSON", "broken JSON: Expecting ',' delimiter, at character 15"),
    (b"not json", "broken JSON", "broken JSON: Expecting value, at character 1"),
    (b'{"prompt": "p"} {}', "broken JSON", "broken JSON: Extra data, at character 17"),
    (b'{"prompt": "a\x00b"}', "broken JSON", "broken JSON: Invalid control character at, at character 14"),
    (b"\x00" * 50, "broken JSON", "broken JSON: Expecting value, at character 1"),
    (b"[" * 100_000, "broken JSON", "broken JSON: "),
    (b'{"prompt": ' + b"9" * 5000 + b"}", "broken JSON", "broken JSON: Exceeds the limit"),
    (b"\x89PNG\r\x1a\x00\xff", "not UTF-8", "not UTF-8: byte 0x89 at 1"),
    (b'{"prompt": "caf\xe9"}', "not UTF-8", "not UTF-8: byte 0xe9 at 16"),
    ('{"prompt": "p"}'.encode("utf-16"), "not UTF-8", "not UTF-8: byte 0xff at 1"),
    (b"[1, 2]", "not an object", "must be an object, not a list"),
    (b'"text"', "not an object", "must be an object, not a string"),
    (b"null", "not an object", "must be an object, not null"),
    (b"3", "not an object", "must be an object, not a number"),
    ({}, "missing key", '"chosen" is missing (keys: none)'),
    ({"prompt": "p", "rejected": "r"}, "missing key", '"chosen" is missing (keys: prompt, rejected)'),
    ({"a\nb\ud800": 1}, "missing key", r'"chosen" is missing (keys: ' + r"'a\nb\ud800')"),
    ({"prompt": "p", "chosen": "c"}, "missing key", '"rejected" is missing (keys: prompt, chosen)'),
    ({"prompt": "p", "chosen": 5, "rejected": "r"}, "wrong type", '"chosen" must be a string, not a number'),
    ({"prompt": None, "chosen": "c", "rejected": "r"}, "wrong type", '"prompt" must be a string, not null'),
    ({"prompt": "p", "chosen": ["c"], "rejected": "r"}, "wrong type", '"chosen" must be a string, not a list'),
    ({"prompt": "", "chosen": "c", "rejected": "r"}, "empty text", '"prompt" is empty'),
    ({"prompt": "p", "chosen": "c", "rejected": " \n\u3000"}, "empty text", '"rejected" is empty'),
    ({"chosen": "q\n\nAssistant: ", "rejected": "q\n\nAssistant: x"}, "empty text", '"chosen" has an empty response'),
    ({"prompt": "p", "chosen": "c", "rejected": "c"}, "same responses", '"chosen" and "rejected" are the same'),
    ({"chosen": "q\n\nAssistant: x", "rejected": "q\n\nAssistant: x"}, "same responses", "are the same"),
    ({"chosen": "a", "rejected": "b"}, "no shared prompt", 'no "prompt", and "chosen" and "rejected" share no'),
    ({"chosen": "q\n\nAssistant: x", "rejected": "r\n\nAssistant: x"}, "no shared prompt", "share no beginning"),
    ({"prompt": "p", "chosen": "\ud800", "rejected": "r"}, "cannot be encoded", "character 0 is a lone surrogate"),
    ({"prompt": "p", "chosen": "c" * 200, "rejected": "r"}, "too long", '"chosen" has 201 tokens, more than 100'),
    (b'{"prompt": "' + b"p" * 10_000_000 + b'", "chosen": "c", "rejected": "r"}', "too long", "10000001 tokens"),
    *(
        ({"prompt": "p", "chosen": "c", "rejected": "r", "margin": margin}, "wrong type", f'"margin" must {rest}')
        for margin, rest in [
            (-1, "be a finite number, 0 or more, not a number"),
            (float("nan"), "be a finite number, 0 or more, not nan"),
            (float("inf"), "be a finite number, 0 or more, not inf"),
            (10**400, "be a finite number"),
            (True, "be a finite number, 0 or more, not true or false"),
            ("1", "be a finite number, 0 or more, not a string"),
            (None, "be a finite number, 0 or more, not null"),
        ]
    ),
    ({"prompt": "p", "chosen": "c", "rejected": "r", "tie": 1}, "wrong type", '"tie" must be true or false'),
]  # fmt: skip


@pytest.mark.parametrize(("line", "reason", "message"), BAD, ids=[f"{i}-{bad[1]}" for i, bad in enumerate(BAD)])
def test_bad_lines_are_named_or_counted(tmp_path, line, reason, message):
    good = {"prompt": "p", "chosen": "c", "rejected": "r"}
    path = write(tmp_path / "comments.jsonl", good, "", line, good)
    with pytest.raises(DataError) as error:
        load_comparisons(path, BYTES, 100, 100)
    assert str(error.value).startswith(f"{path}:3: ")
    assert message in str(error.value)
    assert error.value.reason == reason
    assert len(str(error.value).splitlines()) == 1
    str(error.value).encode()  # it can be printed

    found, report = load_comparisons(path, BYTES, 100, 100, on_error="skip")
    assert prompts_of(found.chosen) == [[BEGIN, 112]] * 2
    assert (report.good, report.skipped) == (2, {reason: 1})
    assert report.first == {reason: str(error.value)}
    assert f"2 good lines; skipped 1: {reason} (first: {path}:3: " in str(report)


@pytest.mark.parametrize(
    ("load", "record", "message"),
    [
        (load_demonstrations, {"prompt": "p"}, '"completion" is missing (keys: prompt)'),
        (load_demonstrations, {"completion": "p"}, '"prompt" is missing (keys: completion)'),
        (load_demonstrations, {"text": ""}, '"text" is empty'),
        (load_demonstrations, {"text": 3}, '"text" must be a string, not a number'),
        (load_rankings, {"prompt": "p"}, '"responses" is missing (keys: prompt)'),
        (load_rankings, {"prompt": "p", "responses": "ab"}, '"responses" must be a list of strings, not a string'),
        (load_rankings, {"prompt": "p", "responses": ["a"]}, '"responses" must hold two strings or more, not 1'),
        (load_rankings, {"prompt": "p", "responses": ["a", 1]}, '"responses[1]" must be a string, not a number'),
        (load_rankings, {"prompt": "p", "responses": ["a", " "]}, '"responses[1]" is empty'),
        (
            load_rankings,
            {"prompt": "p", "responses": ["a", "b", "a"]},
            '"responses[0]" and "responses[2]" are the same',
        ),
        (load_rankings, {"prompt": "p", "responses": ["a", "b" * 9]}, '"responses[1]" has 10 tokens, more than 9'),
    ],
)
def test_bad_lines_of_other_kinds(tmp_path, load, record, message):
    path = write(tmp_path / "a.jsonl", record)
    with pytest.raises(DataError) as error:
        load(path, BYTES, 9, 9)
    assert str(error.value) == f"{path}:1: {message}"


def test_a_response_may_not_hold_the_end(tmp_path):
    class Special(ByteTokenizer):  # as tokenizers that know the names of special tokens do
        def encode(self, text):
            return [END if byte == ord("$") else byte for byte in super().encode(text)]

    found, _ = load_demonstrations(write(tmp_path / "a.jsonl", {"prompt": "a$", "completion": "b"}), Special(), 9, 9)
    assert prompts_of(found) == [[BEGIN, 97, END]]  # a prompt may
    path = write(tmp_path / "a.jsonl", {"prompt": "a", "completion": "b$"})
    with pytest.raises(DataError, match=r'a\.jsonl:1: "completion" holds the end-of-text token, which is added'):
        load_demonstrations(path, Special(), 9, 9)


def test_skipped_lines_are_counted_by_reason(tmp_path):
    path = write(tmp_path / "a.jsonl", "{", {"text": "a"}, "{", {"text": ""}, {"texts": ""})
    _, report = load_demonstrations(
        [path, write(tmp_path / "b.jsonl", "{", {"text": "b"})], BYTES, 9, 9, on_error="skip"
    )
    assert report.good == 2
    assert report.skipped == {"broken JSON": 3, "empty text": 1, "missing key": 1}
    assert {reason: first.split(":")[1] for reason, first in report.first.items()} == {
        "broken JSON": "1",
        "empty text": "4",
        "missing key": "5",
    }


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_files_that_hold_nothing(tmp_path, on_error):
    good = write(tmp_path / "good.jsonl", {"text": "a"})

    def message(paths, load=load_demonstrations):
        with pytest.raises(DataError) as error:
            load(paths, BYTES, 9, 9, on_error=on_error)
        assert len(str(error.value).splitlines()) == 1
        return str(error.value)

    for name, content in {"zero.jsonl": b"", "blank.jsonl": b"\n \r\n", "zip.jsonl.gz": gzip.compress(b"")}.items():
        (tmp_path / name).write_bytes(content)
        assert message([good, tmp_path / name]) == f"{tmp_path / name} is empty"
    (tmp_path / "folder").mkdir()
    assert message(tmp_path / "folder") == f"{tmp_path / 'folder'} holds no .jsonl or .jsonl.gz file"
    assert message(tmp_path / "gone.jsonl") == f"{tmp_path / 'gone.jsonl'} is not there"
    assert message([]) == "no files were given"


def test_no_good_line_is_an_error_all_the_same(tmp_path):
    path = write(tmp_path / "a.jsonl", "{", "{}")
    with pytest.raises(
        DataError, match=r"a\.jsonl: no line is good: 0 good lines; skipped 1: broken JSON \(first: .*:1: "
    ):
        load_demonstrations(path, BYTES, 9, 9, on_error="skip")


@pytest.mark.parametrize("damage", ["cut", "flipped", "trailing"])
def test_damaged_gzip(tmp_path, damage):
    lines = [json.dumps({"text": f"{i} {np.random.default_rng(i).integers(1e9)}"}).encode() for i in range(20_000)]
    whole = gzip.compress(b"\n".join(lines))
    content = {"cut": whole[: len(whole) // 2], "flipped": whole[:-8] + b"\xff" * 8, "trailing": whole + b"rubbish"}
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(content[damage])
    with pytest.raises(
        DataError, match=r"a\.jsonl\.gz:\d+: the gzip stream is damaged, and the rest of the file lost: "
    ) as error:
        load_demonstrations(path, BYTES, 1, 99)
    assert error.value.reason == "damaged gzip"
    found, report = load_demonstrations(path, BYTES, 1, 99, on_error="skip")
    number = int(str(error.value).split(":")[1])
    assert report.skipped == {"damaged gzip": 1}
    assert report.good == number - 1 == len(found.prompt)
    assert 1000 < number <= 20_001
    assert [BYTES.decode(row) for row in responses_of(found)[:2]] == [json.loads(line)["text"] for line in lines[:2]]


def test_only_the_head_of_a_gzip_file(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "a"}')[:7])
    with pytest.raises(DataError, match=r"a\.jsonl\.gz:1: the gzip stream is damaged"):
        load_demonstrations(path, BYTES, 9, 9)
    with pytest.raises(DataError, match=r"no line is good: 0 good lines; skipped 1: damaged gzip"):
        load_demonstrations(path, BYTES, 9, 9, on_error="skip")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"too_long": "cut"}, "too_long='cut' must be error, skip or truncate"),
        ({"on_error": "ignore"}, "on_error='ignore' must be raise or skip"),
        ({"max_prompt": 0}, "max_prompt and max_response must be 1 or more, not 0 and 9"),
    ],
)
def test_arguments_that_mean_nothing(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        load_demonstrations(tmp_path, BYTES, **{"max_prompt": 9, "max_response": 9} | arguments)
