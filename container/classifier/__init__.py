"""Fine-tunes and serves torchvision image classifiers under SageMaker's container contract."""

__version__ = "0.1.0"
