"""Many runs: sweeps, lambda curves, reports."""
