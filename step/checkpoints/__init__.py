"""Reading and writing model weights: our format, the release's, and Kinetics I3D weights."""
