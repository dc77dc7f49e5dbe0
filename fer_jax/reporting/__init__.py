"""Reports: documents, tables, plots, and TensorBoard events."""
