"""The natural gradient against dense matrices: Fisher, conjugate gradient, step, line search. Axes: P parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import rlx
from rlx.ops import Categorical, conjugate_gradient, fisher_vector_product, line_search, natural_step
from rlx.ops.distributions import mask_logits

KEY = jax.random.key(0)


@pytest.fixture
def nans():
    """Let NaNs happen, as they do outside the tests."""
    jax.config.update("jax_debug_nans", False)
    yield
    jax.config.update("jax_debug_nans", True)


def tiny_policy(kind):
    """A policy of a tiny network, `(params [P]) -> distribution` over 7 observations, and parameters."""
    sizes = rlx.nets.CategoricalHead(3) if kind != "normal" else rlx.nets.NormalHead(2)
    network = rlx.nets.Actor(sizes, (3,))
    observation = jax.random.normal(KEY, (7, 2))
    params, unravel = ravel_pytree(network.init(jax.random.key(1), observation))
    params += 0.5 * jax.random.normal(jax.random.key(2), params.shape)  # far from uniform

    def policy(params):
        distribution = network.apply(unravel(params), observation)
        if kind == "masked":
            distribution = Categorical(mask_logits(distribution.logits, jnp.arange(3) != jnp.arange(7)[:, None] % 3))
        return distribution

    return policy, params


def dense_fisher(policy, params, kind):
    """Mean over the rows of E_a[score score^T]: for choices over all actions, for normals by their known Fisher."""
    distribution = policy(params)
    if kind == "normal":
        mean, scale = (jax.jacobian(lambda p, i=i: jnp.broadcast_to(policy(p)[i], (7, 2)))(params) for i in (0, 1))
        precision = jnp.broadcast_to(jnp.exp(-2 * distribution.log_scale), (7, 2))
        fisher = jnp.einsum("nd,ndp,ndq->pq", precision, mean, mean) + 2 * jnp.einsum("ndp,ndq->pq", scale, scale)
        return fisher / 7
    total = np.zeros((params.size,) * 2)
    for action in range(3):
        rows = jnp.full(7, action)
        score = jax.jacobian(lambda p, rows=rows: policy(p).log_prob(rows))(params)
        probability = jnp.exp(distribution.log_prob(rows))
        possible = probability > 0
        score = jnp.where(possible[:, None], score, 0.0)
        total += jnp.einsum("n,np,nq->pq", probability, score, score) / 7
    return total


@pytest.mark.parametrize("kind", ["categorical", "masked", "normal"])
def test_fisher_vector_product_equals_the_dense_fisher(kind):
    policy, params = tiny_policy(kind)
    dense = dense_fisher(policy, params, kind)
    product = jax.jit(jax.vmap(fisher_vector_product(policy, params)))(jnp.eye(params.size))
    np.testing.assert_allclose(product, dense, atol=1e-5)
    assert np.abs(dense).max() > 0.01
    assert np.linalg.eigvalsh(np.float64(product)).min() > -1e-6  # positive semidefinite
    hessian = jax.hessian(lambda p: jnp.mean(policy(params).kl(policy(p))))(params)
    np.testing.assert_allclose(product, hessian, atol=1e-5)


def spd(size, seed=0, condition=100.0):
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(size, size)))
    matrix = basis @ np.diag(np.geomspace(1.0, condition, size)) @ basis.T
    return matrix, rng.normal(size=size)


def solve(matrix, b, iterations=100, tolerance=1e-6):
    matrix, b = jnp.asarray(matrix, jnp.float32), jnp.asarray(b, jnp.float32)
    return conjugate_gradient(lambda vector: matrix @ vector, b, iterations, tolerance)


@pytest.mark.parametrize("size", [1, 2, 10, 30])
def test_conjugate_gradient_equals_solve(size):
    matrix, b = spd(size)
    x, residual = solve(matrix, b)
    np.testing.assert_allclose(x, np.linalg.solve(matrix, b), rtol=1e-3, atol=1e-5)
    assert residual <= 1e-5


def test_conjugate_gradient_by_pencil():
    """A = diag(1, 4), b = (1, 1): the first length is 2/5, then the residual (3/5, -3/5) leads to (1, 1/4)."""
    first, residual = solve(np.diag([1.0, 4.0]), [1.0, 1.0], iterations=1)
    np.testing.assert_allclose(first, [0.4, 0.4], rtol=1e-6)
    np.testing.assert_allclose(residual, 0.6, rtol=1e-6)
    np.testing.assert_allclose(solve(np.diag([1.0, 4.0]), [1.0, 1.0], iterations=2)[0], [1.0, 0.25], rtol=1e-5)


def test_conjugate_gradient_stops_at_its_tolerance_and_its_iterations():
    matrix, b = spd(20)
    (_, loose), (_, tight), (_, short) = (solve(matrix, b, *how) for how in ((100, 0.3), (100, 1e-4), (3, 1e-4)))
    assert tight <= 1e-4 < 0.03 < loose <= 0.3
    assert short > tight
    flat = jax.jit(lambda: conjugate_gradient(lambda vector: vector, jnp.zeros(3), 10, 0.0))()
    np.testing.assert_array_equal(flat[0], 0)
    assert flat[1] == 0


@pytest.mark.parametrize("matrix", [np.zeros((2, 2)), -np.eye(2), np.diag([1.0, 0.0])], ids=["0", "-1", "singular"])
def test_conjugate_gradient_of_a_matrix_that_is_not_positive_stays_finite(matrix):
    x, residual = solve(matrix, [1.0, 1.0])
    assert np.all(np.isfinite([*x, residual]))
    if matrix[0, 0] <= 0:
        np.testing.assert_array_equal(x, 0)


def test_natural_step_has_the_kl_it_was_given():
    matrix, gradient = spd(8)
    product = lambda vector: jnp.asarray(matrix, jnp.float32) @ vector  # noqa: E731
    step, residual = natural_step(product, jnp.asarray(gradient, jnp.float32), 0.02, 50, 1e-6)
    np.testing.assert_allclose(0.5 * step @ matrix @ step, 0.02, rtol=1e-4)
    along = np.linalg.solve(matrix, gradient)
    np.testing.assert_allclose(step / np.linalg.norm(step), along / np.linalg.norm(along), atol=1e-4)
    assert residual < 1e-5


def nowhere(vector):
    return jnp.full_like(vector, jnp.nan)


@pytest.mark.parametrize(
    ("product", "gradient"),
    [
        (lambda vector: vector, [0.0, 0.0]),  # nothing to gain
        (lambda vector: 0 * vector, [1.0, 2.0]),  # no curvature
        (lambda vector: -vector, [1.0, 2.0]),
        (nowhere, [1.0, 2.0]),
        (lambda vector: vector, [1.0, np.nan]),
        (lambda vector: vector, [np.inf, 1.0]),
    ],
    ids=["zero", "flat", "concave", "nan-product", "nan-gradient", "infinite-gradient"],
)
@pytest.mark.usefixtures("nans")
def test_without_a_step_to_take_it_is_exactly_zero(product, gradient):
    step, _ = jax.jit(lambda g: natural_step(product, g, 0.01, 10, 1e-6))(jnp.array(gradient))
    np.testing.assert_array_equal(step, 0)


def peak(x):
    """Surrogate -(x - 1)^2, KL x^2: both by pencil."""
    return -jnp.sum(jnp.square(x - 1)), jnp.sum(jnp.square(x))


@pytest.mark.parametrize(
    ("step", "max_kl", "found"),
    [
        (0.5, 1.0, 0.5),  # as it is
        (1.6, 0.7, 0.8),  # 1.6 has a KL of 2.56, 0.8 one of 0.64
        (1.6, 0.2, 0.4),
        (3.0, 9.0, 1.5),  # 3 is within the region, but worse than 0
        (2.0, 9.0, 1.0),  # 2 is as good as 0, which is not better
        (-1.0, 9.0, None),  # the wrong way
        (8.0, 0.04, None),  # 8, 4, 2, 1: not one is near enough
        (np.nan, 9.0, None),
        (np.inf, 9.0, None),
    ],
)
@pytest.mark.usefixtures("nans")
def test_line_search_by_pencil(step, max_kl, found):
    start = jnp.array([0.0, -0.0])
    outcome = jax.jit(lambda step: line_search(lambda x: peak(x[0]), start, step, max_kl, 0.5, 4))(
        jnp.array([step, 0.0])
    )
    assert outcome.accepted == (found is not None)
    if found is None:
        assert outcome.params.tobytes() == start.tobytes()  # bit for bit: the sign of a zero too
        assert outcome.kl == outcome.improvement == 0
    else:
        np.testing.assert_allclose(outcome.params, [found, 0], rtol=1e-6)
        np.testing.assert_allclose(outcome.kl, found**2, rtol=1e-6)
        np.testing.assert_allclose(outcome.improvement, 1 - (found - 1) ** 2, rtol=1e-6)
        assert outcome.kl <= max_kl


def test_line_search_of_several_at_once_equals_one_by_one():
    steps = jnp.array([[0.5], [1.6], [-1.0], [3.0]])
    search = lambda step: line_search(peak, jnp.zeros(1), step, 0.7, 0.5, 6)  # noqa: E731
    together = jax.jit(jax.vmap(search))(steps)
    for index, step in enumerate(steps):
        jax.tree.map(lambda x, y, i=index: np.testing.assert_allclose(x[i], y), together, search(step))
