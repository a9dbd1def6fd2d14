"""Language: tokens, data, sampling, log-probabilities, and a language small enough to know everything about."""
