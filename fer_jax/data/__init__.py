"""From data folders to batches: labels, duplicates, augmentation."""
