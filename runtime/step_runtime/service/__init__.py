"""A service of many clients: requests with videos in, people out, whose clips share calls of the model."""
