"""Computes AVA's frame-mAP of results, as the challenge and as the STEP release do (torch-free)."""
