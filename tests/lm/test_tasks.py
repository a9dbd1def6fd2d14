"""Synthetic tasks: what is asked, what is right, how the teacher slips, and that padding is never looked at."""

import string

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx.lm import TASKS, Sequences
from rlx.lm.answers import exact_match, slip, token_accuracy

SMALL = {"copy": {"longest": 4, "letters": 3}, "sort": {"longest": 5, "letters": 4}, "add": {"digits": 3}}
RIGHT = {  # in plain Python
    "copy": lambda text: text[:-1],
    "sort": lambda text: "".join(sorted(text[:-1])),
    "add": lambda text: str(sum(map(int, text[:-1].split("+")))),
}


@pytest.fixture(params=TASKS)
def task(request):
    return TASKS[request.param](**SMALL[request.param])


def texts(task, tokens, length):
    """Rows as text, special ids and padding left out."""
    return [task.tokenizer.decode(row[:n]) for row, n in zip(np.asarray(tokens), np.asarray(length), strict=True)]


def answered(name, prompt, response, end=True, width=0):
    """One prompt with one response, as Sequences of the given text."""
    tokenizer = TASKS[name]().tokenizer
    prompt = jnp.array([[tokenizer.begin, *tokenizer.encode(prompt)]])
    response = [*tokenizer.encode(response)] + [tokenizer.end] * end
    padded = jnp.array([response + [0] * (width - len(response))], jnp.int32).reshape(1, -1)
    return Sequences(prompt, jnp.array([prompt.shape[1]]), padded, jnp.array([len(response)]))


@pytest.mark.parametrize("name", TASKS)
def test_perfect_answers_are_pythons_and_earn_1(name):
    task = TASKS[name](**SMALL[name])
    prompt, length = jax.jit(task.prompts, static_argnums=1)(jax.random.key(0), 500)
    response, response_length = jax.jit(task.answer)(prompt, length)
    asked, said = texts(task, prompt, length), texts(task, response, response_length)
    assert said == [RIGHT[name](text) for text in asked]
    assert len(set(asked)) > 50
    ends = response[jnp.arange(500), response_length - 1]
    assert jnp.all(ends == task.tokenizer.end)
    assert jnp.all(jax.jit(task.reward)(Sequences(prompt, length, response, response_length)) == 1.0)


def test_prompts_by_pencil():
    for name, (text, answer) in {"copy": ("cab=", "cab"), "sort": ("cab=", "abc"), "add": ("7+8=", "15")}.items():
        assert TASKS[name]().reward(answered(name, text, answer)) == 1.0
    for text, answer in {"0+0=": "0", "9+1=": "10", "99+99=": "198", "7+58=": "65"}.items():
        assert TASKS["add"](digits=2).reward(answered("add", text, answer)) == 1.0


@pytest.mark.parametrize(
    ("response", "end", "reward"),
    [
        ("cab", True, 1.0),
        ("cab", False, 3 / 4),  # it did not end
        ("cb", True, 1 / 4),  # "b" and `end` are not where they belong
        ("ca", True, 2 / 4),
        ("cabb", True, 3 / 5),
        ("cabb", False, 3 / 4),
        ("bbb", True, 2 / 4),
        ("", True, 0.0),
        ("", False, 0.0),
    ],
)
def test_token_accuracy_by_pencil(response, end, reward):
    np.testing.assert_allclose(TASKS["copy"]().reward(answered("copy", "cab=", response, end, width=8)), reward)
    ordered = response.translate(str.maketrans("cab", "abc"))
    np.testing.assert_allclose(TASKS["sort"]().reward(answered("sort", "cab=", ordered, end)), reward)


@pytest.mark.parametrize(
    ("response", "end", "reward"),
    [
        ("55", True, 1),
        ("55", False, 0),
        ("54", True, 0),
        ("555", True, 0),
        ("5", True, 0),
        ("", True, 0),
        ("055", True, 0),
    ],
)
def test_exact_match_by_pencil(response, end, reward):
    assert TASKS["add"](digits=2).reward(answered("add", "47+8=", response, end)) == reward


def test_nothing_but_the_perfect_answer_earns_1():
    random = np.random.default_rng(0)
    response, length = random.integers(0, 3, (2000, 4)), random.integers(0, 5, 2000)
    perfect = random.integers(0, 3, (2000, 6)), random.integers(1, 7, 2000)
    found, strict = token_accuracy((response, length), perfect), exact_match((response, length), perfect)
    for i in range(2000):
        mine, best = response[i, : length[i]].tolist(), perfect[0][i, : perfect[1][i]].tolist()
        share = sum(a == b for a, b in zip(mine, best, strict=False)) / max(len(mine), len(best))
        np.testing.assert_allclose(found[i], share, rtol=1e-6)
        assert (found[i] == 1) == (strict[i] == 1) == (mine == best)
    assert strict.sum() > 5


def test_padding_is_never_looked_at(task):
    data = jax.jit(task.demonstrations, static_argnums=1)(jax.random.key(0), 200)
    reward, answer = jax.jit(task.reward), jax.jit(task.answer)
    right, said = reward(data), texts(task, *answer(data.prompt, data.prompt_length))

    def padded(tokens, length, pad):
        wide = np.pad(tokens, ((0, 0), (0, 3)))
        return np.where(np.arange(wide.shape[1]) < np.asarray(length)[:, None], wide, pad).astype(np.int32)

    for pad in range(task.tokenizer.vocabulary):
        prompt, response = (
            padded(data.prompt, data.prompt_length, pad),
            padded(data.response, data.response_length, pad),
        )
        np.testing.assert_array_equal(reward(Sequences(prompt, data[1], response, data[3])), right)
        assert texts(task, *answer(prompt, data.prompt_length)) == said
    narrow = data.response[:, : data.response_length.max()]  # of a sampler that stopped early
    np.testing.assert_array_equal(task.reward(data._replace(response=narrow)), right)


def test_shapes_and_ids(task):
    data = jax.jit(task.demonstrations, static_argnums=1)(jax.random.key(0), 300)
    assert data.prompt.shape == (300, task.max_prompt)
    assert data.response.shape == (300, task.max_response)
    assert {x.dtype for x in data} == {jnp.dtype("int32")}
    assert data.prompt_length.max() == task.max_prompt
    assert (data.response_length.min() >= 1) & (data.response_length.max() <= task.max_response)
    for tokens in (data.prompt, data.response):
        assert (tokens.min() >= 0) & (tokens.max() < task.tokenizer.vocabulary)
    assert jnp.all(data.prompt[:, 0] == task.tokenizer.begin)
    assert all(text.endswith("=") for text in texts(task, data.prompt, data.prompt_length))
    inside = jnp.arange(task.max_response) < data.response_length[:, None]
    assert jnp.all(jnp.sum(inside & (data.response == task.tokenizer.end), axis=1) == 1)  # `end` once, and last
    assert task.reward(data).dtype == jnp.float32


def test_prompts_are_spread_evenly():
    _, length = TASKS["copy"](longest=4).prompts(jax.random.key(0), 20_000)
    np.testing.assert_allclose(np.bincount(length - 2)[1:] / 20_000, 1 / 4, atol=0.015)
    task = TASKS["add"](digits=1)
    asked = texts(task, *task.prompts(jax.random.key(0), 20_000))
    assert set(asked) == {f"{a}+{b}=" for a in string.digits for b in string.digits}


@pytest.mark.parametrize(("name", "reward", "perfect"), [("copy", 0.79, 0.37), ("sort", 0.79, 0.37), ("add", 0.6, 0.6)])
def test_the_teachers_mean_reward_is_what_the_docstring_says(name, reward, perfect):
    task = TASKS[name]()
    found = jax.jit(lambda key: task.reward(task.demonstrations(key, 20_000)))(jax.random.key(1))
    np.testing.assert_allclose(found.mean(), reward, atol=0.012)
    np.testing.assert_allclose((found == 1).mean(), perfect, atol=0.012)
    assert f"is {reward}" in TASKS[name].__doc__


@pytest.mark.parametrize("name", TASKS)
def test_noise_is_what_makes_the_teacher_wrong(name):
    def mean(noise):
        task = TASKS[name](noise=noise, **SMALL[name])
        return task.reward(task.demonstrations(jax.random.key(0), 200)).mean()

    found = jax.jit(jax.vmap(mean))(jnp.array([0.0, 0.3, 1.0]))  # it may be traced
    assert found[0] == 1.0
    assert found[0] > found[1] > found[2]


def test_slips_by_their_probabilities():
    response, length = jnp.tile(jnp.array([1, 1, 1, 5, 0]), (50_000, 1)), jnp.full(50_000, 4)
    found, found_length = slip(jax.random.key(0), response, length, 0.3, 4, 5)
    np.testing.assert_allclose(np.bincount(found_length, minlength=6) / 50_000, [0, 0, 0, 0.15, 0.7, 0.15], atol=0.01)
    same = found[found_length == 4]
    assert jnp.all(same[:, 3] == 5)
    np.testing.assert_allclose((same[:, :3] != 1).mean(0), 0.3 * 3 / 4, atol=0.01)
    longer = found[found_length == 5]
    np.testing.assert_allclose(np.bincount(longer[:, 3]) / len(longer), 1 / 4, atol=0.02)
    assert jnp.all(longer[:, 4] == 5)


def test_comparisons_follow_the_reward(task):
    pairs = jax.jit(task.comparisons, static_argnums=1)(jax.random.key(0), 500)
    better, worse = task.reward(pairs.chosen), task.reward(pairs.rejected)
    assert jnp.all(better >= worse)
    np.testing.assert_array_equal(pairs.tie, better == worse)
    assert 0.05 < pairs.tie.mean() < 0.7
    np.testing.assert_array_equal(pairs.chosen.prompt, pairs.rejected.prompt)
    np.testing.assert_array_equal(pairs.chosen.prompt_length, pairs.rejected.prompt_length)
    assert jnp.all(pairs.margin == 0)
    assert (pairs.margin.dtype, pairs.tie.dtype) == (jnp.float32, jnp.bool_)


def test_sampled_labels_are_bradley_terrys():
    task = TASKS["add"](digits=1, noise=0.3)

    @jax.jit
    def right(scale):
        pairs = task.comparisons(jax.random.key(0), 20_000, scale)
        gap = task.reward(pairs.chosen) - task.reward(pairs.rejected)
        return jnp.sum(gap > 0) / jnp.sum(gap != 0), pairs.tie.any()

    for scale in (0.0, 2.0):
        share, tie = right(scale)
        np.testing.assert_allclose(share, 1 / (1 + np.exp(-scale)), atol=0.02)
        assert not tie


def test_all_of_it_is_jax(task):
    keys = jax.random.split(jax.random.key(0), 3)
    demonstrate = jax.jit(task.demonstrations, static_argnums=1)
    data = jax.jit(jax.vmap(lambda key: task.demonstrations(key, 7)))(keys)
    pairs = jax.jit(jax.vmap(lambda key: task.comparisons(key, 7, 1.0)))(keys)
    assert data.prompt.shape == (3, 7, task.max_prompt)
    assert pairs.rejected.response.shape == (3, 7, task.max_response)
    rewards = jax.jit(jax.vmap(task.reward))(data)
    for i, key in enumerate(keys):
        alone = demonstrate(key, 7)
        jax.tree.map(lambda one, many: np.testing.assert_array_equal(one, many[i]), alone, data)  # noqa: B023
        np.testing.assert_array_equal(rewards[i], jax.jit(task.reward)(alone))
    assert not jnp.array_equal(data.prompt[0], data.prompt[1])  # another key, other prompts


def test_no_key_is_used_twice(task):
    with jax.debug_key_reuse(True):
        jax.jit(task.demonstrations, static_argnums=1)(jax.random.key(1), 3)
        jax.jit(task.comparisons, static_argnums=(1, 2))(jax.random.key(2), 3, 1.0)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("copy", {"longest": 0}, "longest=0 must be 1 or more"),
        ("sort", {"letters": 1}, "letters=1 must be 2 to 26"),
        ("sort", {"letters": 27}, "letters=27 must be 2 to 26"),
        ("add", {"digits": 0}, "digits=0 must be 1 to 8"),
        ("add", {"digits": 9}, "digits=9 must be 1 to 8"),
        ("copy", {"noise": 1.5}, "noise=1.5 must be from 0 to 1"),
        ("add", {"noise": float("nan")}, "noise=nan must be from 0 to 1"),
    ],
)
def test_arguments_out_of_range(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        TASKS[name](**arguments)


def test_the_largest_sums_do_not_overflow():
    task = TASKS["add"](digits=8)
    tokenizer = task.tokenizer
    prompt = jnp.array([[tokenizer.begin, *tokenizer.encode("99999999+99999999=")]])
    response, length = task.answer(prompt, jnp.array([prompt.shape[1]]))
    assert texts(task, response, length) == ["199999998"]
