"""Faces in image files: reading and predicting them."""
