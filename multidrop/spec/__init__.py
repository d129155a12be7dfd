"""The specification in plain NumPy: the oracle that every backend is compared with."""
