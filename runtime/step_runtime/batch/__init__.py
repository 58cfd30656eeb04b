"""`step-batch`: an archive of videos, on this machine, in shards, or on a Ray cluster."""
