"""Accuracies of the pruning methods: one row, one command, one json file."""
