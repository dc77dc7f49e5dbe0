"""From the two FER+ CSV files, or from drawn faces, to the folders that fer_jax reads."""
