"""People at a key frame: found among the detections, and written as records and rows."""
