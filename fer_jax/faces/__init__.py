"""Emotions of faces in images: the Python interface, and predictions for files."""
