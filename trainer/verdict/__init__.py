"""What a detector says without labels: one score, a verdict with its uncertainty, where in the image, an audit."""
