"""The generator of image folders for fer_jax, from the two FER+ CSV files or from drawn sample faces."""
