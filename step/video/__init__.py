"""The parts of reading video: which stream, when each frame is shown, which side is up, which files (torch-free)."""
