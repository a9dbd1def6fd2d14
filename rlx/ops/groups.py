"""Advantages from several responses to one prompt, and ratios of tokens or of whole responses.

Axes: N prompts, G group (responses to one prompt), B sequences, T response tokens.
"""

import chex
import jax
import jax.numpy as jnp

from rlx.ops.sequences import masked_mean


def group_advantage(reward: jax.Array, baseline: str = "mean", scale: str = "none", eps: float = 1e-4) -> jax.Array:
    """How much better a response is than the others of its prompt: a baseline and a scale, chosen apart.

        A_i = (r_i - baseline) / (std + eps)

        baseline "none"           0
                 "mean"           mean of the group, r_i among it
                 "leave_one_out"  mean of the others: G / (G - 1) (r_i - mean), unbiased (RLOO, arXiv 2402.14740)
        scale    "none"           1: A = r - baseline (Dr. GRPO, arXiv 2503.20783)
                 "group"          std of the group, by G - 1 (GRPO, arXiv 2402.03300, sec. 4.1.2): prompts that are
                                  nearly always or nearly never solved weigh most
                 "batch"          std of all rewards, by N G - 1: one unit for all prompts

    eps is 1e-4 in TRL, 1e-6 in verl and tunix, 1e-9 in OpenRLHF: it matters where a group hardly varies.

    Args:
        reward: `[N, G]`, one row a prompt.
        baseline: one of the three.
        scale: one of the three.
        eps: added to the std, in units of reward.

    Returns:
        `[N, G]`, with gradients stopped. With a baseline a group of equal rewards has exactly 0, and so no gradient.
        Rewards that do not vary are not scaled.

    Raises:
        ValueError: a choice is unknown, or groups of one are given a baseline or a scale of their own group, which
            they do not have.
    """
    chex.assert_rank(reward, 2)
    reward = reward + 0.0  # whole numbers and truth values are rewards too
    _check_choice("baseline", baseline, ("none", "mean", "leave_one_out"))
    _check_choice("scale", scale, ("none", "group", "batch"))
    size = reward.shape[1]
    if size < 2 and (baseline != "none" or scale == "group"):
        raise ValueError(
            f"groups of {size} have no baseline {baseline!r} with scale {scale!r}: draw 2 or more a prompt"
        )
    advantage = reward
    if baseline != "none":
        deviation = reward - jnp.mean(reward, axis=1, keepdims=True)
        advantage = jnp.where(varied_groups(reward)[:, None], deviation, 0.0)  # not what rounding leaves of 0
    if baseline == "leave_one_out":
        advantage = advantage * (size / (size - 1))
    if scale == "group":
        advantage = _divide(advantage, jnp.std(reward, axis=1, keepdims=True, ddof=1), eps)
    elif scale == "batch":
        advantage = _divide(advantage, jnp.std(reward, ddof=1), eps)
    return jax.lax.stop_gradient(advantage)


def _check_choice(name: str, choice: str, choices: tuple[str, ...]) -> None:
    if choice not in choices:
        raise ValueError(f"{name} {choice!r} is none of {', '.join(map(repr, choices))}")


def _divide(advantage: jax.Array, std: jax.Array, eps: float) -> jax.Array:
    return advantage / jnp.where(std > 0.0, std + eps, 1.0)


def varied_groups(reward: jax.Array) -> jax.Array:
    """Tell which groups teach anything: those whose rewards are not all the same.

    Dynamic sampling (DAPO, arXiv 2503.14476, eq. 11) keeps these and drops the others, whose advantages are 0: multiply
    the mask of tokens by it before `token_weights`, and the mean is over what is kept.

    Args:
        reward: `[N, G]`, one row a prompt.

    Returns:
        `[N]` bool.
    """
    chex.assert_rank(reward, 2)
    return jnp.any(reward != reward[:, :1], axis=1)


def effective_groups(reward: jax.Array) -> jax.Array:
    """Share of the groups whose rewards vary. At 0 a batch has no gradient, whatever its mean reward.

    Args:
        reward: `[N, G]`, one row a prompt.

    Returns:
        A scalar, 0 to 1.
    """
    return jnp.mean(varied_groups(reward).astype(float))


def importance_log_ratio(log_prob: jax.Array, old_log_prob: jax.Array, mask: jax.Array, level: str) -> jax.Array:
    """Log of how much more probable tokens, or whole responses, have become.

        "token"           log pi(t) - log pi_old(t), of each token (PPO, GRPO)
        "sequence"        its mean over the response, at each of its tokens (GSPO, arXiv 2507.18071, eq. 7)
        "sequence_token"  the value of "sequence", the gradient of "token" (GSPO-token, eq. 14)

    It takes the place of log_prob in a surrogate, with 0 for old_log_prob:
    `clipped_surrogate(log_ratio, jnp.zeros_like(log_ratio), advantage, clip, clip_high)`. Under "sequence" that is
    GSPO's objective with the weights of `token_weights(mask, "sequence")`; its clips are some 1e-3 of those for tokens.

    Args:
        log_prob: `[B, T]` log pi of the policy that learns.
        old_log_prob: `[B, T]` log pi_old of the policy that drew the tokens.
        mask: `[B, T]` bool or 0 and 1, whether a token counts.
        level: one of the three.

    Returns:
        `[B, T]` nats, with gradients through `log_prob` alone; 0 where the mask is.

    Raises:
        ValueError: the level is unknown.
    """
    chex.assert_equal_shape([log_prob, old_log_prob, mask])
    _check_choice("level", level, ("token", "sequence", "sequence_token"))
    mask = mask.astype(bool)
    token = jnp.where(mask, log_prob - jax.lax.stop_gradient(old_log_prob), 0.0)
    if level == "token":
        return token
    sequence = jnp.where(mask, masked_mean(token, mask, axis=1)[:, None], 0.0)
    return sequence if level == "sequence" else token + jax.lax.stop_gradient(sequence - token)


def overlong_penalty(length: jax.Array, max_length: int, buffer: int, penalty: float = 1.0) -> jax.Array:
    """Reward taken off responses that come close to the longest allowed (DAPO, arXiv 2503.14476, eq. 13).

        penalty * clip((max_length - buffer - length) / buffer, -1, 0)

    0 up to max_length - buffer tokens, falling to -penalty at max_length. In tokens, not in characters.

    Args:
        length: `[...]` int, tokens of a response.
        max_length: the most tokens a response may have.
        buffer: over how many tokens the penalty grows; 4096 of 20480 in the paper.
        penalty: what a response of the greatest length loses, above 0.

    Returns:
        `[...]`, 0 or below, to be added to the reward.
    """
    return penalty * jnp.clip((max_length - buffer - length) / buffer, -1.0, 0.0)
