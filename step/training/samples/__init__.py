"""Clips for training: reading, augmenting, batching."""
