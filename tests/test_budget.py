"""What a compiled step of each algorithm executes does not grow unseen (benchmarks/results/budget.json)."""

import json

import jax
import jax.numpy as jnp
import pytest

from benchmarks import budget

ROOM = 1.15  # for what compilers do from one release to the next


@pytest.mark.parametrize("name", budget.ENVS)
def test_a_step_executes_no_more_than_was_measured(name):
    """`python -m benchmarks.budget` measures anew, where more is worth its price."""
    measured = json.loads(budget.FILE.read_text())["steps"][name]
    algorithm = budget.algorithm_of(name)
    state = jax.eval_shape(algorithm.init, jax.random.key(0))
    assert budget.matrix_flops(algorithm.step, state) <= 1.001 * 1e6 * measured["matrix_mflop"]
    with jax.debug_nans(False):
        assert budget.kernels_of(algorithm) <= ROOM * measured["kernels"]


def test_matrix_products_are_counted_by_hand():
    def function(x, flag):
        def one(x, _):
            return x @ jnp.ones((3, 3)), None

        x, _ = jax.lax.scan(one, x, length=5)  # 5 * 2 * 2 * 3 * 3 = 180
        double = lambda x: x @ jnp.ones((3, 3)) @ jnp.ones((3, 7))  # noqa: E731
        x = jax.lax.cond(flag, double, lambda x: x @ jnp.ones((3, 7)), x)  # the lesser: 2 * 2 * 3 * 7 = 84
        _ = x @ jnp.ones((7, 100))  # nothing depends on it
        return jnp.einsum("ij,kj->ik", x, x)  # 2 * 2 * 2 * 7 = 56

    assert budget.matrix_flops(function, jnp.ones((2, 3)), True) == 180 + 84 + 56


def test_kernels_in_loops_count_as_often_as_they_run():
    def function(x, length):
        return jax.lax.scan(lambda x, _: (jnp.sort(jnp.sin(x)), None), x, length=length)[0]

    def count(length):
        compiled = jax.jit(lambda x: function(x, length)).lower(jnp.ones(100)).compile()
        return budget.kernels(str(compiled.as_text()))

    each = (count(50) - count(20)) / 30
    assert 2 <= each <= 6  # sine, sort, and what the loop counts by
    assert count(50) < 1.2 * 50 * each
