"""The overoptimisation laboratory: what becomes of what is wanted when a policy is pushed against a learnt reward."""
