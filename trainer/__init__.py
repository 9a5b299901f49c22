"""One training run: networks, growth, losses, the loop, the detector and its evaluation."""
