"""AWS's built-in rules on saved tensors, with AWS's names, parameters and defaults, as rules of smdebug."""

from classifier.debugging.rules.activations import DeadRelu, SaturatedActivation
from classifier.debugging.rules.base import PlainRule
from classifier.debugging.rules.gradients import VanishingGradient, WeightUpdateRatio
from classifier.debugging.rules.initialization import PoorWeightInitialization
from classifier.debugging.rules.losses import LossNotDecreasing, Overfit, Overtraining
from classifier.debugging.rules.predictions import ClassImbalance, Confusion
from classifier.debugging.rules.runs import SimilarAcrossRuns, StalledTrainingRule
from classifier.debugging.rules.values import AllZero, ExplodingTensor, TensorVariance, UnchangedTensor

RULES: dict[str, type[PlainRule]] = {
    rule.__name__: rule
    for rule in (
        LossNotDecreasing,
        Overfit,
        Overtraining,
        VanishingGradient,
        ExplodingTensor,
        PoorWeightInitialization,
        WeightUpdateRatio,
        AllZero,
        UnchangedTensor,
        TensorVariance,
        DeadRelu,
        SaturatedActivation,
        ClassImbalance,
        Confusion,
        SimilarAcrossRuns,
        StalledTrainingRule,
    )
}
