"""Review: a run's training images in a browser, the worst first, and what a person decided about them."""
