"""What the flags of the optimiser make."""

import jax.numpy as jnp
import numpy as np
import pytest

from rlx.cli.options import OptimizerConfig


@pytest.mark.parametrize(("limit", "scale"), [(0.5, 0.5 / 13.0), (20.0, 1.0), (None, 1.0)])
def test_max_grad_norm_is_of_the_whole_gradient(limit, scale):
    """B6: the name is true. Clipped element by element, a gradient turns; scaled, it keeps its direction."""
    eps = 1e6  # so large that Adam's first step is the gradient, times the learning rate over eps
    optimizer = OptimizerConfig(learning_rate=1.0, anneal=False, max_grad_norm=limit, eps=eps).build(1)
    params = {"kernel": jnp.zeros(2), "bias": jnp.zeros(1)}
    slope = {"kernel": jnp.array([3.0, -4.0]), "bias": jnp.array([12.0])}
    updates, _ = optimizer.update(slope, optimizer.init(params), params)
    for name, expected in slope.items():
        np.testing.assert_allclose(-eps * updates[name], scale * expected, rtol=1e-4)
