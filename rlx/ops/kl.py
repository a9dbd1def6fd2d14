"""KL penalties between a policy and its reference: estimates, losses, what each one's gradient is.

One convention throughout: x was drawn from the distribution of `log_prob`, and the estimate is of KL(p || ref), the
reverse KL where p is the policy. Swap the arguments with the distributions. V: vocabulary.

What the expected gradient is, of tokens that the policy itself drew (enumerated in tests/ops/test_kl.py):

    form       in the loss                      in the reward
    k1         0                                the reverse KL's of whole sequences, exact
    k2         the reverse KL's, per state      wrong
    k3         the *forward* KL's, per state    reverse - forward: about 0 near the reference
    k3+        as k2                            -
    ratio_k1   the reverse KL's, per state,     -
    ratio_k3     from older policies too        -
    exact      the reverse KL's, per state      only what a token does to later states; with the exact one in the
                                                loss as well, that of whole sequences, exact

"Per state" leaves out that a token also decides which states come next.
"""

import warnings

import chex
import jax
import jax.numpy as jnp

from rlx.ops.distributions import Categorical


def k1(log_prob: jax.Array, ref_log_prob: jax.Array) -> jax.Array:
    """Log-ratio, the plain estimate of KL(p || ref): unbiased, of either sign (joschu.net/blog/kl-approx.html).

        k1 = log p(x) - log ref(x)

    Args:
        log_prob: `[...]` log p(x), x drawn from p.
        ref_log_prob: `[...]` log ref(x).

    Returns:
        `[...]` nats.
    """
    chex.assert_equal_shape([log_prob, ref_log_prob])
    return log_prob - ref_log_prob


def k2(log_prob: jax.Array, ref_log_prob: jax.Array) -> jax.Array:
    """Half the squared log-ratio: a biased estimate of KL(p || ref) whose gradient is unbiased (Schulman, as k1).

        k2 = 1/2 (log p(x) - log ref(x))^2

    Args:
        log_prob: `[...]` log p(x), x drawn from p.
        ref_log_prob: `[...]` log ref(x).

    Returns:
        `[...]` nats, never negative.
    """
    return 0.5 * jnp.square(k1(log_prob, ref_log_prob))


def k3(log_prob: jax.Array, ref_log_prob: jax.Array) -> jax.Array:
    """Schulman's k3 estimate of KL(p || ref): never negative, unbiased, low variance near the reference.

        k3 = ratio - 1 - log ratio,  ratio = ref(x) / p(x)     (joschu.net/blog/kl-approx.html)

    A measurement first of all: KL(old || new) of a PPO update is `k3(old_log_prob, log_prob)`.

    Args:
        log_prob: `[...]` log p(x), x drawn from p.
        ref_log_prob: `[...]` log ref(x).

    Returns:
        `[...]` nats.
    """
    log_ratio = k1(ref_log_prob, log_prob)
    return jnp.expm1(log_ratio) - log_ratio


def exact_kl(logits: jax.Array, ref_logits: jax.Array) -> jax.Array:
    """KL(p || ref) of a state's next token, summed over the vocabulary: no variance, differentiable as it is.

        KL = sum_v p(v) (log p(v) - log ref(v))

    Args:
        logits: `[..., V]` of p; -inf makes a token impossible.
        ref_logits: `[..., V]` of the reference.

    Returns:
        `[...]` nats, with gradients through `logits` alone; infinite where the reference rules out what p allows.
    """
    chex.assert_equal_shape([logits, ref_logits])
    return Categorical(logits).kl(Categorical(jax.lax.stop_gradient(ref_logits)))


def kl_loss(form: str, log_prob: jax.Array, ref_log_prob: jax.Array, old_log_prob: jax.Array) -> jax.Array:
    """KL penalty of sampled tokens as a term of the loss; what its gradient is stands at the head of the file.

        "k1", "k2", "k3"            the estimate
        "k3+"                       the value of k3, the gradient of k2
        "ratio_k1", "ratio_k3"      pi / pi_old times the estimate, the ratio differentiated too: right also for tokens
                                    that an older policy drew (DeepSeek-V3.2, arXiv 2512.02556)

    Args:
        form: one of the six. `exact_kl` needs the logits, and is a loss as it stands.
        log_prob: `[...]` log pi of the policy that learns.
        ref_log_prob: `[...]` log pi_ref.
        old_log_prob: `[...]` log pi_old of the policy that drew the tokens; read by the ratios alone.

    Returns:
        `[...]` nats, with gradients through `log_prob` alone.

    Raises:
        ValueError: the form is unknown.
    """
    chex.assert_equal_shape([log_prob, ref_log_prob, old_log_prob])
    ref_log_prob, old_log_prob = jax.lax.stop_gradient((ref_log_prob, old_log_prob))
    if form == "k3+":
        square = k2(log_prob, ref_log_prob)
        return square + jax.lax.stop_gradient(k3(log_prob, ref_log_prob) - square)
    if form in ("ratio_k1", "ratio_k3"):
        return jnp.exp(log_prob - old_log_prob) * _estimate(form.removeprefix("ratio_"), log_prob, ref_log_prob)
    return _estimate(form, log_prob, ref_log_prob)


def kl_reward(form: str, log_prob: jax.Array, ref_log_prob: jax.Array) -> jax.Array:
    """KL penalty of sampled tokens, to be taken off their rewards: r_t - beta * kl_reward (Ziegler et al. 2019, eq. 2).

    With k1 the expected gradient is that of the reverse KL of whole sequences: of the estimates it is the only one that
    also counts what a token does to later states.

    Args:
        form: "k1", or, to see what they do, "k2" and "k3".
        log_prob: `[...]` log pi_old of the policy that drew the tokens.
        ref_log_prob: `[...]` log pi_ref.

    Returns:
        `[...]` nats, with gradients stopped.

    Raises:
        ValueError: the form is unknown.
    """
    return jax.lax.stop_gradient(_estimate(form, log_prob, ref_log_prob))


def _estimate(form: str, log_prob: jax.Array, ref_log_prob: jax.Array) -> jax.Array:
    estimates = {"k1": k1, "k2": k2, "k3": k3}
    if form not in estimates:
        raise ValueError(f"KL form {form!r} is none of 'k1', 'k2', 'k3', nor, in a loss, 'k3+', 'ratio_k1', 'ratio_k3'")
    return estimates[form](log_prob, ref_log_prob)


_ZERO = "its expected gradient is zero: it adds noise and holds nothing back. {}"
_FORWARD = "its expected gradient is the forward KL's, KL(reference || policy), with weights that have no bound. {}"
_OTHER = "its expected gradient is not that of any KL and can point away from the reference. {}"
_DIFFERENCE = """its expected gradient is that of KL(policy || reference) - KL(reference || policy): about zero near the
reference, and pointing away from it further off. {}""".replace("\n", " ")
_LATER = """no token changes the exact KL of the state it is written in, so that only its effect on later states is held
back. Add the exact KL to the loss as well ('both'). {}""".replace("\n", " ")
_IN_LOSS = "For the reverse KL use 'k2', 'k3+', 'ratio_k1', 'ratio_k3' or 'exact' in the loss, or 'k1' in the reward."
_IN_REWARD = "For the reverse KL use 'k1' in the reward."
_EFFECT = {  # (form, where): what is wrong with it; None: nothing, its expected gradient is the reverse KL's
    ("k1", "loss"): _ZERO.format(_IN_LOSS),
    ("k2", "loss"): None,
    ("k3", "loss"): _FORWARD.format(_IN_LOSS),
    ("k3+", "loss"): None,
    ("ratio_k1", "loss"): None,
    ("ratio_k3", "loss"): None,
    ("exact", "loss"): None,
    ("k1", "reward"): None,
    ("k2", "reward"): _OTHER.format(_IN_REWARD),
    ("k3", "reward"): _DIFFERENCE.format(_IN_REWARD),
    ("exact", "reward"): _LATER.format(_IN_REWARD),
    ("exact", "both"): None,
}


def check_kl(form: str, where: str) -> None:
    """Warn of a KL penalty whose expected gradient is not the reverse KL's, saying in words what it does instead.

    For algorithms to call when they are made. k2 and k3+ in the loss are right for tokens that the policy itself drew;
    over several epochs on one batch they are as stale as the batch, and the ratio forms are not.

    Args:
        form: a name of `kl_loss` or `kl_reward`, or "exact".
        where: "loss", "reward", or "both" for the exact one in both places.

    Raises:
        ValueError: no such choice.
    """
    if (form, where) not in _EFFECT:
        known = ", ".join(f"{form} in {where}" for form, where in _EFFECT)
        raise ValueError(f"KL penalty {form!r} in {where!r} does not exist. There are: {known}")
    if effect := _EFFECT[form, where]:
        warnings.warn(f"KL penalty {form!r} in the {where}: {effect}", stacklevel=3)


def adaptive_kl(
    coef: float | jax.Array, kl: float | jax.Array, target: float, horizon: float, num_sequences: int
) -> jax.Array:
    """Next coefficient of a KL penalty that shall keep near a target (Ziegler et al. 2019, arXiv 1909.08593, sec. 2.2).

        error = clip(kl / target - 1, -0.2, 0.2)
        coef' = coef * (1 + error * num_sequences / horizon)

    Args:
        coef: beta as it was.
        kl: nats per *sequence*: the sum over a response's tokens, averaged over responses.
        target: nats per sequence.
        horizon: sequences in which beta may change by some 20 percent; 10,000 in the paper.
        num_sequences: sequences that `kl` was measured on.

    Returns:
        A scalar beta, above 0 as long as num_sequences is under 5 horizons.
    """
    error = jnp.clip(kl / target - 1.0, -0.2, 0.2)
    return coef * (1.0 + error * num_sequences / horizon)
