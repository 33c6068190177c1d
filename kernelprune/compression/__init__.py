"""``kernelprune.compress``: from a trained network and images to a fast file, in one call."""
