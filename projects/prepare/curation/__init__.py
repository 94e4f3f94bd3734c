"""What of an archive is worth learning from: thinned, balanced, sampled; and what is worth labelling next."""
