"""Mean and std of all pipelines: ImageNet's values averaged over the channels, in gray levels 0..255.

All arms of a comparison use the same values. An ImageNet backbone gets its familiar input range, and no arm
profits from statistics that another arm lacks.
"""

MEAN = 114.5
STD = 57.6
