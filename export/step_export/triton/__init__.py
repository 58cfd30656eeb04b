"""Model repositories for NVIDIA Triton, written from a bundle (`step-export --triton`)."""
