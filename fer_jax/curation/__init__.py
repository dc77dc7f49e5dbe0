"""Data of one's own: images with emotions become a data folder, and images with doubtful labels are listed."""
