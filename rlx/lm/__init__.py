"""Language: tokens, data, sampling, log-probabilities, and a language small enough to know everything about."""

from rlx.lm import best_of_n, enumerable
from rlx.lm.data import (
    Comparisons,
    Rankings,
    folds,
    load_comparisons,
    load_demonstrations,
    load_prompts,
    load_rankings,
)
from rlx.lm.doctor import Diagnosis, ches_scores, diagnose, warnings_of
from rlx.lm.huggingface import Loaded, load_hf
from rlx.lm.jsonl import DataError, Report
from rlx.lm.log_linear import LogLinearModel
from rlx.lm.pairs import pair_log_probs, preference_loss
from rlx.lm.rewards import (
    Normalization,
    RewardError,
    TextReward,
    member_scores,
    normalize_reward,
    reward_of,
    score,
)
from rlx.lm.safetensors import LoadError
from rlx.lm.sequences import Prompts, Samples, Sampling, Sequences, complete, response_logits, sample, token_log_probs
from rlx.lm.tasks import TASKS, Task
from rlx.lm.text import load_text, windows
from rlx.lm.tokenizer import ByteTokenizer, CharacterTokenizer, FileTokenizer, Tokenizer, TokenizerError, load_tokenizer

__all__ = [
    "TASKS",
    "ByteTokenizer",
    "CharacterTokenizer",
    "Comparisons",
    "DataError",
    "Diagnosis",
    "FileTokenizer",
    "LoadError",
    "Loaded",
    "LogLinearModel",
    "Normalization",
    "Prompts",
    "Rankings",
    "Report",
    "RewardError",
    "Samples",
    "Sampling",
    "Sequences",
    "Task",
    "TextReward",
    "Tokenizer",
    "TokenizerError",
    "best_of_n",
    "ches_scores",
    "complete",
    "diagnose",
    "enumerable",
    "folds",
    "load_comparisons",
    "load_demonstrations",
    "load_hf",
    "load_prompts",
    "load_rankings",
    "load_text",
    "load_tokenizer",
    "member_scores",
    "normalize_reward",
    "pair_log_probs",
    "preference_loss",
    "response_logits",
    "reward_of",
    "sample",
    "score",
    "token_log_probs",
    "warnings_of",
    "windows",
]
