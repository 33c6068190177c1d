"""Measurements. Not part of the package; README.md says how to run them."""
