"""Many runs: sweeps over seeds and variants, and tuning."""
