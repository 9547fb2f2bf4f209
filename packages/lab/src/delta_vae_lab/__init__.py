"""Data, training and honest evaluation of delta-VAEs."""
