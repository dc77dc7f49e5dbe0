"""The networks by name (`registry`), one module for each family, and the layers that they share."""
