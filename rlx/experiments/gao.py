"""What Gao, Schulman and Hilton 2022 (arXiv 2210.10760) found, to be set beside what is found here. Axes: Z sizes."""

from typing import NamedTuple

import numpy as np


class Coefficients(NamedTuple):
    """What Gao et al. found for Z reward models of other sizes.

    Attributes:
        parameters: `[Z]` of the reward model.
        alpha_bon: `[Z]`, to 0.003.
        beta_bon: `[Z]`, to 0.001.
        beta_rl: `[Z]`, to 0.002. Their alpha_RL, the same for all sizes, is not printed: 0.34 to 0.35 by figure 1, with
            which the betas would have to be some 12 percent lower.
    """

    parameters: np.ndarray
    alpha_bon: np.ndarray
    beta_bon: np.ndarray
    beta_rl: np.ndarray


# Digitised from figure 3, as the paper prints no table.
GAO = Coefficients(
    parameters=np.array([3e6, 12e6, 25e6, 42e6, 85e6, 300e6, 680e6, 1.2e9, 3e9]),
    alpha_bon=np.array([0.490, 0.513, 0.558, 0.548, 0.599, 0.633, 0.649, 0.653, 0.662]),
    beta_bon=np.array([0.120, 0.120, 0.115, 0.111, 0.106, 0.0995, 0.098, 0.0965, 0.090]),
    beta_rl=np.array([0.175, 0.167, 0.152, 0.146, 0.137, 0.124, 0.119, 0.122, 0.118]),
)
