"""Images in, crops and dumps out: datasets, faces, degradations, forgeries, storage."""
