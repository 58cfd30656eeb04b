"""Frames become clips of key frames, and clips become results."""
