"""What a run leaves behind: tables of detections and of people, overlay.mp4, run.json."""
