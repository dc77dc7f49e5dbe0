"""Train, judge and use networks that read emotion from a face, on FER+, with JAX."""
