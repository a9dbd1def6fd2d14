"""Speed and learning benchmarks: rlx beside its peers, in fresh processes on one core."""
