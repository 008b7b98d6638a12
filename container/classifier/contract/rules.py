"""The names of AWS's built-in debugger rules that this image has, which a hyperparameter may name."""

DEBUGGER_RULES = (
    "LossNotDecreasing",
    "Overfit",
    "Overtraining",
    "VanishingGradient",
    "ExplodingTensor",
    "PoorWeightInitialization",
    "WeightUpdateRatio",
    "AllZero",
    "UnchangedTensor",
    "TensorVariance",
    "DeadRelu",
    "SaturatedActivation",
    "ClassImbalance",
    "Confusion",
    "SimilarAcrossRuns",
    "StalledTrainingRule",
)
