"""From trained networks to terms, scores, p-values and verdicts."""

PAPER_LAMBDA = 0.05
"""The paper's lambda in a = lambda L_n + (1 - lambda) L_o."""
