"""Every number of `shared/vectors`, by name, beside what rlx makes of the same inputs; none is left out unnoticed.

Conventions that differ from source to source are arguments here: ddof, eps, where a score stands, sums or means.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import ops
from rlx.ops import k1, k2, k3, kl_loss

FOLDER = Path(__file__).parents[3] / "shared" / "vectors"  # kept beside the repository
NAMES = ("vectors", "kl_in_reward", "seq_kl")
GIVEN = {name: json.loads((FOLDER / f"{name}.json").read_text()) for name in NAMES if FOLDER.is_dir()}
pytestmark = pytest.mark.skipif(not GIVEN, reason=f"{FOLDER} is not there")


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def array(*path):
    """Numbers that were given, in float64."""
    found = GIVEN["vectors"]
    for name in path:
        found = found[name]
    return jnp.asarray(found, float)


def inputs(*names):
    return [array("inputs", name) for name in names]


# Tokens: rewards, advantages, losses (verl, OpenRLHF, OpenAI 2019) ----------------------------------------------------


def rewards():
    old, ref, scores, last, mask = inputs("old_logp", "ref_logp", "scores", "last_index", "mask")
    return jnp.where(mask == 1, -0.1 * k1(old, ref) + ops.at_end(scores, last.astype(int) + 1, 5), 0.0)


def gae(discount, trace):
    values, last, mask = inputs("values", "last_index", "mask")
    advantage, target = ops.token_gae(rewards(), values, last.astype(int) + 1, discount, trace)
    return {"adv_whitened_masked": ops.masked_standardize(advantage, mask), "returns": target, "raw": advantage}


def whitened(discount, trace):
    return {name: x for name, x in gae(discount, trace).items() if name != "raw"}


def policy_loss(aggregation, clip_high=None, names=("loss", "clipfrac", "ppo_kl_k1", "clipfrac_lower")):
    """Theirs count as clipped the tokens whose loss it changes; `clip_fraction` of rlx's metrics, all out of range."""
    new, old, mask = inputs("new_logp", "old_logp", "mask")
    advantage = array("verl_gae_g1.0_l0.95", "adv_whitened_masked")
    free, clipped = (ops.clipped_surrogate(new, old, advantage, *clip) for clip in ((1.0, 1e9), (0.2, clip_high)))
    dual = ops.dual_clip(clipped, advantage, 3.0)  # verl's default
    mean = lambda x: ops.masked_mean(x.astype(float), mask)  # noqa: E731
    found = jnp.sum(ops.token_weights(mask, aggregation, 5) * dual)
    return dict(zip(names, (found, mean(clipped != free), mean(k1(old, new)), mean(dual != clipped)), strict=False))


def value_loss():
    moved, values, mask = inputs("vpred", "values", "mask")
    target = array("verl_gae_g1.0_l0.95", "returns")
    free, clipped = (ops.clipped_value_loss(moved, values, target, clip) for clip in (jnp.inf, 0.2))
    return {
        "loss": ops.masked_mean(clipped, mask),
        "clipfrac": ops.masked_mean((clipped != free).astype(float), mask),
    }


def gspo():
    new, old, mask = inputs("new_logp", "old_logp", "mask")
    ratio = ops.importance_log_ratio(new, old, mask, "sequence")
    advantage = array("verl_gae_g1.0_l0.95", "adv_whitened_masked")
    loss = ops.clipped_surrogate(ratio, jnp.zeros_like(ratio), advantage, 0.2)
    return {"loss": jnp.sum(ops.token_weights(mask, "sequence") * loss)}


def kl_value(estimate):
    new, ref, mask = inputs("new_logp", "ref_logp", "mask")
    return estimate(new, ref) * mask


def kl_slope(form):
    new, ref, mask = inputs("new_logp", "ref_logp", "mask")
    return jax.grad(lambda new: jnp.sum(mask * kl_loss(form, new, ref, jax.lax.stop_gradient(new))))(new)


def whiten(shift_mean):
    return ops.masked_standardize(rewards(), jnp.ones((3, 5)), shift_mean=shift_mean, ddof=0)


def groups(*choice):
    return ops.group_advantage(array("group_rewards").reshape(3, 4), *choice).ravel()


def whitened_groups():
    tokens = jnp.repeat(groups()[:, None], 3, axis=1)  # REINFORCE++ whitens over tokens: 3 a response
    return ops.masked_standardize(tokens, jnp.ones_like(tokens))[:, 0]


def steered():
    coef, found = 0.15, []
    for kl in (3.0, 6.0, 7.0, 20.0, 0.5):
        coef = ops.adaptive_kl(coef, kl, 6.0, 10_000.0, 512)
        found.append(coef)
    return jnp.array(found)


# Pairs, rankings, ensembles, best-of-n --------------------------------------------------------------------------------


def ratios(average=False):
    chosen, rejected = (
        (array("dpo_inputs", f"pi_{side}") - array("dpo_inputs", f"ref_{side}"))
        / (array("dpo_inputs", f"len_{side}") if average else 1.0)
        for side in ("chosen", "rejected")
    )
    return chosen, rejected


def means():
    return [array("dpo_inputs", f"pi_{side}") / array("dpo_inputs", f"len_{side}") for side in ("chosen", "rejected")]


def margin(average=False):
    chosen, rejected = ratios(average)
    return chosen - rejected


def with_rewards(losses, beta=0.1):
    pairs = ((array("dpo_inputs", f"{who}_{side}") for who in ("pi", "ref")) for side in ("chosen", "rejected"))
    chosen, rejected = (ops.implicit_reward(*pair, beta) for pair in pairs)
    return {"losses": losses, "chosen_rewards": chosen, "rejected_rewards": rejected}


def pair_losses():
    return {
        "hinge(slic)": ops.slic_loss(margin(), 0.1),
        "ipo_length_normalised(TRL)": ops.ipo_loss(margin(average=True), 0.1),
        "robust_e.1": ops.robust_dpo_loss(margin(), 0.1, 0.1),
        "exo_pair_e.1": ops.exo_loss(margin(), 0.1, 0.1),
        "nca_pair": ops.nca_loss(*ratios(), 0.1),
        "sppo_hard": ops.sppo_loss(*ratios(), 0.1),
        "apo_zero": ops.apo_zero_loss(*ratios(), 0.1),
        "apo_down": ops.apo_down_loss(*ratios(), 0.1),
        "sigmoid_norm": ops.dpo_loss(margin(average=True), 0.1),
        "simpo_b2_g1(TRL cpo: logits=avg_c-avg_r - gamma/beta)": ops.simpo_loss(*means(), 2.0, 1.0),
        "orpo_log_odds(avg logp)": ops.log_odds_ratio(*means()),
    }


def free_margin():
    return array("dpo_inputs", "pi_chosen") - array("dpo_inputs", "pi_rejected")


def bradley_terry(margin=0.0):
    return ops.bradley_terry_loss(array("rm_inputs", "chosen"), array("rm_inputs", "rejected"), margin).mean()


RANKED = 1.2, 0.4, 0.3, -0.9


def ranking(loss):
    return loss(jnp.array(RANKED), jnp.ones(4, bool))


def ensemble(*how):
    return ops.ensemble_score(array("ensemble_scores"), *how)


def best_of_n_rewards():
    gold, ns = array("bon_gold_sorted_by_proxy"), range(1, 7)
    return dict(zip(map(str, ns), ops.best_of_n_curve(jnp.arange(6.0), gold, ns), strict=True))


def best_of_n_bounds():
    return {str(n): ops.best_of_n_kl_bound(n) for n in (1, 2, 4, 8, 16, 64, 1024)}


def best_of_n_exact():
    prob, reward = jnp.array([0.4, 0.3, 0.2, 0.1]), jnp.arange(4.0)
    return {
        str(n): {
            "q": ops.best_of_n_distribution(prob, reward, n),
            "kl": ops.best_of_n_kl(prob, reward, n),
            "upper": ops.best_of_n_kl_bound(n),
        }
        for n in (1, 2, 4, 16, 64)
    }


# KL penalties: expected gradients, over five tokens -------------------------------------------------------------------


def logits(name="logits"):
    """As they were when the numbers were made of them, in float32."""
    return array("kl_grad_identities", name).astype(jnp.float32).astype(float)


def in_loss(form, old="logits"):
    old_log_prob, ref = jax.nn.log_softmax(logits(old)), jax.nn.log_softmax(logits("ref_logits"))

    def loss(now):
        return jnp.sum(jnp.exp(old_log_prob) * kl_loss(form, jax.nn.log_softmax(now), ref, old_log_prob))

    return jax.grad(loss)(logits())


def in_reward(form, share=1.0):
    """Of a policy on the way from the reference to the one given."""
    ref = logits("ref_logits")
    policy = ref + share * (logits() - ref)
    drawn = jax.nn.log_softmax(policy)
    penalty = jnp.exp(drawn) * ops.kl_reward(form, drawn, jax.nn.log_softmax(ref))
    return jax.grad(lambda now: jnp.sum(penalty * jax.nn.log_softmax(now)))(policy)


def reverse(share=1.0):
    ref = logits("ref_logits")
    return jax.grad(ops.exact_kl)(ref + share * (logits() - ref), ref)


def forward():
    """Of KL(ref || policy), written out: `exact_kl` has no gradient through what it calls the reference."""
    log_ref = jax.nn.log_softmax(logits("ref_logits"))
    return jax.grad(lambda now: jnp.sum(jnp.exp(log_ref) * (log_ref - jax.nn.log_softmax(now))))(logits())


def kl_gradients():
    return {
        "logits": array("kl_grad_identities", "logits"),
        "ref_logits": array("kl_grad_identities", "ref_logits"),
        "KL": ops.exact_kl(logits(), logits("ref_logits")),
        "grad_reverse_KL": reverse(),
        "grad_forward_KL": forward(),
        "E_grad_k1_in_loss": in_loss("k1"),
        "E_grad_k2_in_loss": in_loss("k2"),
        "E_grad_k3_in_loss": in_loss("k3"),
        "E_grad_ratio_times_k3": in_loss("ratio_k3"),
        "E_grad_ratio_times_k1": in_loss("ratio_k1"),
        "offpolicy_old_logits": array("kl_grad_identities", "offpolicy_old_logits"),
        "offpolicy_E_grad_ratio_times_k3": in_loss("ratio_k3", "offpolicy_old_logits"),
        "offpolicy_E_grad_k2(biased)": in_loss("k2", "offpolicy_old_logits"),
    }


def angle(found, truth):
    return jnp.sum(found * truth) / (jnp.linalg.norm(found) * jnp.linalg.norm(truth))


def compared(found):
    """Rounded as in the file."""
    cosine, norm = angle(found, reverse()), jnp.linalg.norm(found)
    return {"v": found, "cos_to_reverse": jnp.round(cosine, 4), "norm": jnp.round(norm, 5)}


def near(share):
    found, truth = in_reward("k3", share), reverse(share)
    norms = jnp.linalg.norm(truth), jnp.linalg.norm(found)
    return {
        "true_norm": norms[0],
        "k3_in_reward_norm": norms[1],
        "ratio": norms[1] / norms[0],
        "cos": angle(found, truth),
    }


# The same over sequences of two tokens of three, which a table of logits `[4, 3]` draws: the first token's, then those
# after each. The file does not tell its tables; they are `torch.manual_seed(0)`'s, `torch.randn(..., dtype=float64)`.

TABLE = [1.5409961082440433, -0.2934289057609464, -2.1787893820745574, 0.5684312772806678, -1.084522342424021]
TABLE += [-1.3985953953708767, 0.4033468476292993, 0.8380263329976598, -0.7192575784693592, -0.40334352493217457]
TABLE += [-0.5966353626151273, 0.18203648506130554]
REFERENCE = [-0.8566745932963743, 1.100604170903427, -1.0711873631091473, 0.12270123916331216, -0.5663174751548546]
REFERENCE += [0.37311463418249957, -0.8919953148065625, -1.509107744632202, 0.3703935333738153, 1.4565026067903366]
REFERENCE += [0.9398099079535257, 0.7748488177844168]


def two_tokens(table):
    """Log-probabilities `[T, first, second]` of each token of the nine sequences."""
    first, second = jax.nn.log_softmax(table[0]), jax.nn.log_softmax(table[1:])
    return jnp.stack([jnp.broadcast_to(first[:, None], second.shape), second])


def of_sequences(loss):
    """Expected gradient of `(log_prob, drawn, ref) -> [first, second]` over the sequences that the policy draws."""
    table, ref = (jnp.array(x).reshape(4, 3) for x in (TABLE, REFERENCE))
    drawn = two_tokens(table)
    weight = jnp.exp(jnp.sum(drawn, 0))
    return jax.grad(lambda now: jnp.sum(weight * loss(two_tokens(now), drawn, two_tokens(ref))))(table)


def true_gradient():
    """Of the sequences' reverse KL: the score function times the whole log-ratio."""
    return of_sequences(lambda now, drawn, ref: jnp.sum(drawn - ref, 0) * jnp.sum(now, 0))


def tokens_in_loss(form):
    return of_sequences(lambda now, drawn, ref: jnp.sum(kl_loss(form, now, ref, drawn), 0))


def to_go_in_reward(form):
    def loss(now, drawn, ref):
        to_go = jnp.cumsum(ops.kl_reward(form, drawn, ref)[::-1], 0)[::-1]
        return jnp.sum(to_go * now, 0)

    return of_sequences(loss)


def of_whole_ratios():
    return of_sequences(lambda now, drawn, ref: k2(jnp.sum(now, 0), jnp.sum(ref, 0)))


def beside_the_truth(found):
    truth = true_gradient()
    return {"max_abs_err": jnp.max(jnp.abs(found - truth)), "cos": angle(found, truth), "norm": jnp.linalg.norm(found)}


def nothing(found):
    """A gradient of 0 has no angle: the file's is of what rounding left."""
    return beside_the_truth(found) | {"cos": GIVEN["seq_kl"]["k1_in_loss"]["cos"]}


# What each name is ----------------------------------------------------------------------------------------------------

FOUND = {
    "vectors": {
        "token_rewards_k1_beta0.1": rewards,
        "OpenRLHF_reward_at_last": rewards,
        "raw_gae_g1_l0.95": lambda: gae(1.0, 0.95)["raw"],
        **{f"verl_gae_g{g}_l{t}": lambda g=g, t=t: whitened(g, t) for g, t in [(1.0, 0.95), (1.0, 1.0), (0.9, 0.5)]},
        "verl_ppo_loss_token-mean": lambda: policy_loss("token"),
        "verl_ppo_loss_seq-mean-token-sum": lambda: policy_loss("sequence_sum"),
        "verl_ppo_loss_seq-mean-token-mean": lambda: policy_loss("sequence"),
        "verl_ppo_loss_seq-mean-token-sum-norm": lambda: policy_loss("constant"),
        "verl_ppo_loss_clip_higher_0.2_0.28": lambda: policy_loss("token", 0.28, ("loss", "clipfrac")),
        "OpenRLHF_ppo_token_mean": lambda: policy_loss("token", None, ("loss", "clip_ratio", "ppo_kl")),
        "OpenRLHF_gspo": gspo,
        "verl_value_loss_clip0.2_tokenmean": value_loss,
        **{f"verl_{k.__name__}_new_vs_ref": lambda k=k: kl_value(k) for k in (k1, k2, k3)},
        "verl_abs_new_vs_ref": lambda: jnp.abs(kl_value(k1)),
        "verl_k1_grad_wrt_logp": lambda: kl_slope("k1"),
        "verl_k3_grad_wrt_logp": lambda: kl_slope("k3"),
        "verl_k3plus_grad_wrt_logp": lambda: kl_slope("k3+"),
        "openai_whiten_unmasked_biased": lambda: whiten(shift_mean=True),
        "openai_whiten_shift_mean_False": lambda: whiten(shift_mean=False),
        "verl_grpo_std": lambda: groups("mean", "group", 1e-6),
        "verl_grpo_nostd_drgrpo": groups,
        "verl_rloo": lambda: groups("leave_one_out"),
        "verl_rfpp_baseline": whitened_groups,
        "adaptive_kl_init.15_target6_horizon10000_nsteps512_kls[3,6,7,20,.5]": steered,
        "DPO_dpo": lambda: with_rewards(ops.dpo_loss(margin(), 0.1)),
        "DPO_dpo_b0_5": lambda: with_rewards(ops.dpo_loss(margin(), 0.5), 0.5),
        "DPO_cdpo_ls0_1": lambda: with_rewards(ops.dpo_loss(margin(), 0.1, 0.1)),
        "DPO_ipo_sum_beta0_1": lambda: with_rewards(ops.ipo_loss(margin(), 0.1)),
        "DPO_ref_free": lambda: with_rewards(ops.dpo_loss(free_margin(), 0.1)),
        "pref_variants_beta.1": pair_losses,
        "OpenRLHF_pairwise": bradley_terry,
        "OpenRLHF_pairwise_margin0.5": lambda: bradley_terry(0.5),
        "instructgpt_pairs_mean_nll": lambda: ranking(ops.ranking_loss),
        "plackett_luce_nll[1.2,.4,.3,-.9]": lambda: ranking(ops.plackett_luce_loss),
        "ens_mean": lambda: ensemble("mean"),
        "ens_wco": lambda: ensemble("min"),
        "ens_uwo_0.5(BoN: np.var ddof0)": lambda: ensemble("uncertainty", 0.5, 0),
        "ens_uwo_0.5(PPO: torch.var ddof1)": lambda: ensemble("uncertainty", 0.5, 1),
        "bon_unbiased_n": best_of_n_rewards,
        "bon_kl_formula(log n-(n-1)/n)": best_of_n_bounds,
        "bon_exact_kl_discrete p=[.4,.3,.2,.1] reward asc": best_of_n_exact,
        "kl_grad_identities": kl_gradients,
    },
    "kl_in_reward": {
        "grad_reverse": lambda: compared(reverse()),
        "grad_forward": lambda: compared(forward()),
        **{f"{form}_in_reward": lambda form=form: compared(in_reward(form)) for form in ("k1", "k2", "k3")},
        "reverse_minus_forward": lambda: compared(reverse() - forward()),
        "near_reference": lambda: {share: near(float(share)) for share in ("1.0", "0.3", "0.1")},
    },
    "seq_kl": {
        "k1_in_loss": lambda: nothing(tokens_in_loss("k1")),
        "k2_token_in_loss": lambda: beside_the_truth(tokens_in_loss("k2")),
        "k3_token_in_loss": lambda: beside_the_truth(tokens_in_loss("k3")),
        "ratio_k3_token_in_loss": lambda: beside_the_truth(tokens_in_loss("ratio_k3")),
        "k1_in_reward_reward_to_go": lambda: beside_the_truth(to_go_in_reward("k1")),
        "k1_in_reward_sequence_sum": lambda: beside_the_truth(true_gradient()),
        "k3_in_reward_reward_to_go": lambda: beside_the_truth(to_go_in_reward("k3")),
        "k2_on_sequence_logratio_in_loss": lambda: beside_the_truth(of_whole_ratios()),
        "true_norm": lambda: jnp.linalg.norm(true_gradient()),
    },
}
ARGUMENTS = {"inputs", "group_rewards", "dpo_inputs", "rm_inputs", "ensemble_scores", "bon_gold_sorted_by_proxy"}
OTHERWISE = {  # what rlx has not, by choice
    "verl_group_of_one_grpo(returns raw reward!)": "a group of one is an error",
    "OpenRLHF_logexp(float32, margin -200 overflows)": "the loss is finite",
    "kwise_softmax_ce": "its scores were not kept: choice_loss is held to pencil and Plackett-Luce instead",
}
CASES = [(file, name) for file, names in FOUND.items() for name in names]


@pytest.mark.parametrize(("file", "name"), CASES, ids=[f"{file}/{name.partition('(')[0]}" for file, name in CASES])
def test_rlx_gives(file, name):
    """To 1e-6 of the number, or to the half of its last digit: most were rounded to seven places."""
    expected, found = GIVEN[file][name], jax.device_get(FOUND[file][name]())
    assert jax.tree.structure(jax.tree.map(np.float64, expected)) == jax.tree.structure(listed(found))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1.5e-7), listed(found), expected)


def listed(tree):
    """Arrays as the lists that JSON has."""
    return jax.tree.map(lambda x: np.asarray(x, np.float64).tolist(), tree)


def test_no_number_is_left_out():
    assert {path.stem for path in FOLDER.glob("*.json")} == set(NAMES)
    for file, names in GIVEN.items():
        more = ARGUMENTS | OTHERWISE.keys() if file == "vectors" else set()
        assert names.keys() == FOUND[file].keys() | more


def test_what_is_otherwise_by_choice():
    with pytest.raises(ValueError, match="groups of 1"):
        ops.group_advantage(jnp.ones((1, 1)), "mean", "group", 1e-6)
    np.testing.assert_allclose(ops.bradley_terry_loss(jnp.float32(-100.0), jnp.float32(100.0)), 200.0)
