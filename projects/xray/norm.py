"""The one normalisation of every chain: ImageNet's channel averages, in gray levels of 0..255.

The same in every arm: an ImageNet backbone meets the input range that it knows, and no arm gains by
statistics that another does not have.
"""

MEAN = 114.5
STD = 57.6
