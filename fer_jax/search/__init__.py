"""Many runs: sweeps over seeds and variants, and searches for better values."""
