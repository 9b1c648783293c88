"""From raw expert outputs per region to named consistency features. Pure numpy/scipy: no torch, no images."""
