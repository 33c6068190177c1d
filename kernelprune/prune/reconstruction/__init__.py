"""Pruning without training: layer by layer, the kept weights are fitted to the dense network's
outputs on a few hundred unlabelled images. ``reconstruct`` is the call."""
