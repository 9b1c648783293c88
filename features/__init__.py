"""From raw outputs per region to consistency features: numpy and scipy, no torch."""
