"""What a run leaves behind: detections.jsonl, detections.csv, overlay.mp4."""
