"""A trained network as a folder or a file to ship."""
