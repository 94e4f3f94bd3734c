"""Curation of an archive: images thinned, balanced and sampled for pretraining, or ranked for labelling."""
