"""From trained networks to terms, scores, p-values and verdicts."""
