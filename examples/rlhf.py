"""PPO-RLHF: learn from a score of whole texts without leaving the language model one began with.

Run it: `python examples/rlhf.py` (about half a minute; it prints as it goes and saves rlhf.png).

1. The question. A reward model scores whole responses, and it is right only near the texts it has seen. Push a policy
   towards high scores alone and it ends in some corner where the score is high and the text is not language any more.
   How much reward can be had without going far?

2. The objective. Far means nats of KL from the reference, the model one began with:

       maximise  E[score(y)] - beta KL(pi || ref)        solved by        pi*(y) = ref(y) exp(score(y) / beta) / Z

   For real language Z is out of reach, so one learns. Here every string of up to four tokens is listed, 121 in all: the
   optimum, its reward and its KL are known, and so is the frontier, the most reward there is at each KL.

3. The loop, once per batch of responses (Ziegler et al. 2019, https://arxiv.org/abs/1909.08593; Ouyang et al. 2022,
   https://arxiv.org/abs/2203.02155), with a response as an episode and a token as an action:

       generate     y ~ pi
       reward       r_t = -beta (log pi(y_t) - log ref(y_t)) + score(y) [t is the last token]
       advantage    delta_t = r_t + V_{t+1} - V_t,     A_t = delta_t + trace A_{t+1},     V after the last token is 0
       losses       max(-A ratio, -A clip(ratio, 1 - clip, 1 + clip)),    1/2 (V_t - (A_t + V_t as a number))^2

   Token by token these penalties add up to log pi(y) / ref(y), whose mean is the KL: that is why beta times them is the
   right thing to take off.

4. What to look at. Left: PPO's policies, one for each beta and seed, beside the frontier: none is above it. Right: how
   far each is from the optimum of its own beta. With five seeds each the total variation is at most 0.006 for beta 0.25
   and more, where the reference's is 0.17 to 0.76. At 0.125 it is 0.07 to 0.51, at 0.0625 0.13 to 0.84, and the reward
   is below the optimum's at more KL: the best strings are rare under the reference, and a policy held so loosely has
   settled on others before it has seen them. A small beta is not only a risk for the text; it is hard to optimise.
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rlx
from rlx.lm.enumerable import (
    Language,
    TabularModel,
    divergence,
    frontier,
    optimal_policy,
    string_log_probs,
    total_variation,
)
from rlx.lm.feedback import token_rewards

# ---------------------------------------------------------------------------------------------------------------------
# One response of four tokens, by hand. The fourth ends it; the row has room for five, and nobody looks at the fifth.
# ---------------------------------------------------------------------------------------------------------------------
BETA, TRACE, CLIP, VALUE_CLIP = 0.5, 0.95, 0.2, 0.2

score = 0.8
old_probability = np.array([0.5, 0.4, 0.8, 0.25, 0.9])  # pi_old(y_t), which drew the tokens
ref_probability = np.array([0.25, 0.5, 0.6, 0.5, 0.1])  # ref(y_t)
value = np.array([0.3, 0.1, 0.4, 0.9, 7.0])  # what the critic says before each token
probability = np.array([0.65, 0.3, 0.82, 0.2, 0.9])  # pi(y_t), some updates later
new_value = np.array([0.2, 0.5, 0.4, 0.6, 7.0])  # and the critic's, likewise
LENGTH = 4


def losses_by_hand() -> tuple[np.ndarray, np.ndarray, float, float]:
    """Rewards and advantages of the tokens; the means over tokens of the actor's and the critic's losses."""
    reward, advantage, following = np.zeros(LENGTH), np.zeros(LENGTH), 0.0
    for t in reversed(range(LENGTH)):
        reward[t] = -BETA * (np.log(old_probability[t]) - np.log(ref_probability[t]))
        if t == LENGTH - 1:
            reward[t] += score
        next_value = value[t + 1] if t < LENGTH - 1 else 0.0
        following = reward[t] + next_value - value[t] + TRACE * following
        advantage[t] = following
    actor, critic = [], []
    for t in range(LENGTH):
        ratio = probability[t] / old_probability[t]
        actor.append(max(-advantage[t] * ratio, -advantage[t] * min(max(ratio, 1 - CLIP), 1 + CLIP)))
        target = advantage[t] + value[t]
        near = min(max(new_value[t], value[t] - VALUE_CLIP), value[t] + VALUE_CLIP)  # it may not move further
        critic.append(0.5 * max((new_value[t] - target) ** 2, (near - target) ** 2))
    return reward, advantage, float(np.mean(actor)), float(np.mean(critic))


def compare() -> None:
    """The same numbers from the library's stages, on a batch of this one response."""
    reward, advantage, actor, critic = losses_by_hand()
    log_prob, old, ref = (jnp.log(x)[None] for x in (probability, old_probability, ref_probability))
    length = jnp.array([LENGTH])
    mask = rlx.ops.length_mask(length, 5)
    penalty = jnp.where(mask, rlx.ops.kl_reward("k1", old, ref), 0.0)
    received = token_rewards(jnp.array([score]), penalty, length, jnp.float32(BETA))
    same, target = rlx.ops.token_gae(received, jnp.array(value)[None], length, 1.0, TRACE)
    surrogate = rlx.ops.clipped_surrogate(log_prob, old, same, CLIP)
    value_loss = rlx.ops.clipped_value_loss(jnp.array(new_value)[None], jnp.array(value)[None], target, VALUE_CLIP)
    print(f"{'t':>2} {'reward':>8} {'advantage':>10} {'rlx token_rewards':>18} {'token_gae':>10}")
    for t in range(LENGTH):
        print(f"{t:2} {reward[t]:8.4f} {advantage[t]:10.4f} {received[0, t]:18.4f} {same[0, t]:10.4f}")
    actor_ops, critic_ops = (rlx.ops.masked_mean(x, mask) for x in (surrogate, value_loss))
    print(f"actor loss by hand {actor:.6f}, by rlx.ops.clipped_surrogate {actor_ops:.6f}")
    print(f"critic loss by hand {critic:.6f}, by rlx.ops.clipped_value_loss {critic_ops:.6f}\n")
    np.testing.assert_allclose([actor, critic], [actor_ops, critic_ops], rtol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# The whole loop, on a language that is listed. One program: all betas and all seeds side by side.
# ---------------------------------------------------------------------------------------------------------------------
LANGUAGE = Language(vocabulary=4, max_tokens=4)
MODEL = TabularModel(LANGUAGE, "both")  # logits and a value of its own for each beginning of a string
START = {"params": {"table": jax.random.normal(jax.random.key(5), (85, 4))}}
SAMPLING = rlx.lm.Sampling(LANGUAGE.max_tokens, LANGUAGE.end)
REFERENCE = string_log_probs(TabularModel(LANGUAGE), START, LANGUAGE)
SCORE = jax.random.normal(jax.random.key(6), REFERENCE.shape)  # of each string
BETAS = (2.0, 1.0, 0.5, 0.25, 0.125, 0.0625)


def judge(sequences: rlx.lm.Sequences) -> jax.Array:
    """Score of each response, as a reward model would give it."""
    return SCORE[LANGUAGE.index(sequences)]


def learn(updates: int, seeds: int) -> jax.Array:
    """Log-probabilities of all strings after training, `[betas, seeds, strings]`."""
    optimizer = optax.adam(optax.linear_schedule(0.1, 0.0, updates * 4))

    def one(beta: Any, key: jax.Array) -> jax.Array:
        config = rlx.RLHFConfig(
            num_prompts=512,
            num_epochs=2,
            num_minibatches=2,
            kl_coef=beta,
            trace=TRACE,
            whiten=False,
            value_coef=1.0,
            value_clip=None,
        )
        algorithm = rlx.rlhf(MODEL, LANGUAGE.prompts, judge, optimizer, SAMPLING, config, START)
        state, _ = rlx.train(algorithm, key, updates)
        return string_log_probs(MODEL, state.learner.params, LANGUAGE)

    keys = jax.random.split(jax.random.key(0), seeds)
    return rlx.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))(jnp.array(BETAS), keys)


def report(log_prob: jax.Array, picture: str) -> None:
    """Print and draw each policy's reward and KL, exactly, beside the optimum of its beta."""
    kl = np.asarray(jax.vmap(jax.vmap(lambda p: divergence(p, REFERENCE)))(log_prob))
    reward = np.asarray(jnp.exp(log_prob) @ SCORE)
    line = frontier(REFERENCE, SCORE)
    best = [optimal_policy(REFERENCE, SCORE, beta) for beta in BETAS]
    away = np.asarray([[total_variation(p, optimum) for p in row] for row, optimum in zip(log_prob, best, strict=True)])
    began = [float(total_variation(REFERENCE, optimum)) for optimum in best]
    print(f"{'beta':>7} {'KL':>7} {'optimum':>8} {'reward':>7} {'optimum':>8}   total variation from it (at first)")
    for b, (beta, optimum) in enumerate(zip(BETAS, best, strict=True)):
        best_kl, best_reward = divergence(optimum, REFERENCE), jnp.exp(optimum) @ SCORE
        print(
            f"{beta:7.4f} {kl[b].mean():7.3f} {best_kl:8.3f} {reward[b].mean():7.3f} {best_reward:8.3f}"
            f"   {away[b].mean():.4f}, {away[b].min():.4f} to {away[b].max():.4f} ({began[b]:.2f})"
        )
    above = np.asarray(reward - line.at(jnp.array(kl))).max()
    print(f"highest above the frontier: {above:.5f}")

    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.0), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(line.kl, line.reward, color="black", linewidth=0.8, label="frontier: every optimum")
    for b, beta in enumerate(BETAS):
        left.plot(kl[b], reward[b], "o", markersize=4, label=f"PPO, beta {beta:g}")
        left.plot(divergence(best[b], REFERENCE), jnp.exp(best[b]) @ SCORE, "k+", markersize=10)
    left.set(title="Reward and distance from the reference", xlabel="KL(pi || ref), nats", ylabel="expected score")
    left.legend(fontsize="small", title="+: optimum of each beta", title_fontsize="small")
    spread = np.abs(np.stack([away.min(1), away.max(1)]) - away.mean(1))
    right.errorbar(BETAS, away.mean(1), spread, fmt="o", capsize=3, label="after training, range over seeds")
    right.plot(BETAS, began, "k_", markersize=12, label="the reference")
    right.set(title="From the optimum of the same beta", xlabel="beta", ylabel="total variation", yscale="log")
    right.set_xscale("log", base=2)
    right.set_xticks(BETAS, [f"{beta:g}" for beta in BETAS])
    right.legend(fontsize="small")
    figure.savefig(picture)
    print(f"frontier and distances: {picture}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=300, help="updates of 512 responses each")
    parser.add_argument("--seeds", type=int, default=5, help="seeds for each beta")
    parser.add_argument("--picture", default="rlhf.png", help="where to save the picture")
    arguments = parser.parse_args()
    compare()
    report(learn(arguments.updates, arguments.seeds), arguments.picture)
