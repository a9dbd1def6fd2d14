"""What every algorithm shares: rollouts, learning, normalisation, drivers, evaluation, checkpoints."""
