"""Frozen descriptions of hardware, models, training and data; one class a block of a scenario."""

from simulator.specs._meaning import meanings
from simulator.specs.calibration import Calibration, CollectiveConstants, Constant, KernelConstants
from simulator.specs.campaign import CampaignSpec, FailureSpec
from simulator.specs.distillation import DistillationSpec
from simulator.specs.figures import Basis, Figure
from simulator.specs.hardware import (
    AcceleratorSpec,
    ClusterSpec,
    FabricSpec,
    HostSpec,
    LinkSpec,
    NodeGroupSpec,
    Precision,
    StorageSpec,
)
from simulator.specs.model import (
    ActivationLayer,
    AttentionLayer,
    ConvolutionLayer,
    EmbeddingLayer,
    LatentAttentionSpec,
    Layer,
    LayerListSpec,
    LinearLayer,
    LossLayer,
    MixtureSpec,
    ModelSpec,
    NormLayer,
    PoolingLayer,
    TransformerSpec,
)
from simulator.specs.precision import CommunicationPrecisionSpec, OptimizerPrecisionSpec
from simulator.specs.software import SoftwareSpec
from simulator.specs.training import (
    CheckpointSpec,
    DataSpec,
    OffloadSpec,
    ParallelismSpec,
    SimulationSpec,
    TrainingSpec,
)
from simulator.specs.uncertainty import DistributionSpec, JitterSpec, SlowGpusSpec

__all__ = [
    "AcceleratorSpec",
    "ActivationLayer",
    "AttentionLayer",
    "Basis",
    "Calibration",
    "CampaignSpec",
    "CheckpointSpec",
    "ClusterSpec",
    "CollectiveConstants",
    "CommunicationPrecisionSpec",
    "Constant",
    "ConvolutionLayer",
    "DataSpec",
    "DistillationSpec",
    "DistributionSpec",
    "EmbeddingLayer",
    "FabricSpec",
    "FailureSpec",
    "Figure",
    "HostSpec",
    "JitterSpec",
    "KernelConstants",
    "LatentAttentionSpec",
    "Layer",
    "LayerListSpec",
    "LinearLayer",
    "LinkSpec",
    "LossLayer",
    "MixtureSpec",
    "ModelSpec",
    "NodeGroupSpec",
    "NormLayer",
    "OffloadSpec",
    "OptimizerPrecisionSpec",
    "ParallelismSpec",
    "PoolingLayer",
    "Precision",
    "SimulationSpec",
    "SlowGpusSpec",
    "SoftwareSpec",
    "StorageSpec",
    "TrainingSpec",
    "TransformerSpec",
    "meanings",
]
