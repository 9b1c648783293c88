"""Images in, crops and dumps out: datasets, faces, degradations, pseudo-fakes, storage."""
