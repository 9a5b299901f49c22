"""The training: one visible loop, its steps, and what workers agree on."""
