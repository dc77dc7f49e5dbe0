"""The limits of a prediction, for every place that shows one to a person."""

LIMITS = (
    "The emotions are the names that people would give the expression, not what the person feels.",
    "The network's model card says how often it is wrong and what it must not be used for.",
)
