"""Files of records for the tests of rlx.lm, and what arrays hold."""

import json
from pathlib import Path

from rlx.lm import ByteTokenizer

BYTES = ByteTokenizer()
BEGIN, END = BYTES.begin, BYTES.end
REAL = Path(__file__).parents[2].parent / "shared" / "data"  # real text, kept beside the repository


def write(path, *records):
    """Records, or lines as they are, as a JSONL file."""
    lines = [r if isinstance(r, bytes) else (r if isinstance(r, str) else json.dumps(r)).encode() for r in records]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def ids(text):
    return list(text.encode())


def rows(padded, length):
    return [row[:n].tolist() for row, n in zip(padded, length, strict=True)]


def prompts_of(arrays):
    return rows(arrays.prompt, arrays.prompt_length)


def responses_of(arrays):
    return rows(arrays.response, arrays.response_length)
