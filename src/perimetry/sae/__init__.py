"""Sparse autoencoders: one architecture, one file; `ARCHITECTURES` is the table.

An architecture is added by one file that derives from `AffineSAE` (or from `AbstractSAE`) and one line here.
"""

from perimetry.sae.affine import AffineSAE, Weights, initial_weights
from perimetry.sae.archetypal import ArchetypalSAE
from perimetry.sae.base import AbstractSAE, Codes, CountMode, SAEOutput
from perimetry.sae.batchtopk import BatchTopKSAE
from perimetry.sae.crosscoder import CrosscoderSAE
from perimetry.sae.gated import GatedSAE
from perimetry.sae.hierarchical import HierarchicalTopKSAE
from perimetry.sae.jumprelu import JumpReLUSAE
from perimetry.sae.matching_pursuit import MatchingPursuitSAE
from perimetry.sae.matryoshka import MatryoshkaSAE
from perimetry.sae.spade import SpaDESAE
from perimetry.sae.sparsemax import SparsemaxSAE
from perimetry.sae.standard import StandardSAE
from perimetry.sae.temporal import TemporalSAE
from perimetry.sae.topk import TopKSAE
from perimetry.sae.transcoder import TranscoderSAE

__all__ = [
    "ARCHITECTURES",
    "AbstractSAE",
    "AffineSAE",
    "ArchetypalSAE",
    "BatchTopKSAE",
    "Codes",
    "CountMode",
    "CrosscoderSAE",
    "GatedSAE",
    "HierarchicalTopKSAE",
    "JumpReLUSAE",
    "MatchingPursuitSAE",
    "MatryoshkaSAE",
    "SAEOutput",
    "SpaDESAE",
    "SparsemaxSAE",
    "StandardSAE",
    "TemporalSAE",
    "TopKSAE",
    "TranscoderSAE",
    "Weights",
    "initial_weights",
]

ARCHITECTURES: dict[str, type[AbstractSAE]] = {
    "archetypal": ArchetypalSAE,
    "batchtopk": BatchTopKSAE,
    "crosscoder": CrosscoderSAE,
    "gated": GatedSAE,
    "hierarchical": HierarchicalTopKSAE,
    "jumprelu": JumpReLUSAE,
    "matching_pursuit": MatchingPursuitSAE,
    "matryoshka": MatryoshkaSAE,
    "spade": SpaDESAE,
    "sparsemax": SparsemaxSAE,
    "standard": StandardSAE,
    "temporal": TemporalSAE,
    "topk": TopKSAE,
    "transcoder": TranscoderSAE,
}
"""Name -> class."""
