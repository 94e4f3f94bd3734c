"""From a converted data set to an experiment: choosing a recipe, writing configs, costs, running it."""
