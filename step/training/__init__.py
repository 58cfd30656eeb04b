"""Training STEP: selection of tubes, losses, augmentation, schedules, the loop."""
