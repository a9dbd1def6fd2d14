"""Reward-model overoptimisation: Gao, Schulman and Hilton 2022 (arXiv 2210.10760), and its follow-ups."""
