"""From a converted data set to an experiment: what fits it, its configs, what it costs, and running it."""
