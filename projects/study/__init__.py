"""Studies: arms, seeds and shares of the labels as one plan that can be resumed."""
