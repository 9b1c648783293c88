"""Fitting: the detector on dumps, and the two bundled networks on real faces."""
