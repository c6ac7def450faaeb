"""Synthetic worlds in which the truth is known, rebuilt from published studies: one lab, one folder."""

from perimetry.labs.base import AbstractLab
from perimetry.labs.concept_space.lab import ConceptSpace
from perimetry.labs.formal_languages.lab import FormalLanguages
from perimetry.labs.graph_tracing.lab import GraphTracing
from perimetry.labs.knowledge_editing.lab import KnowledgeEditing
from perimetry.labs.markov_mixture.lab import MarkovMixture
from perimetry.labs.matrix_completion.lab import MatrixCompletion
from perimetry.labs.sae_geometry.lab import SAEGeometry
from perimetry.labs.safety_finetuning.lab import SafetyFinetuning
from perimetry.labs.steering.lab import Steering
from perimetry.labs.swing_by.lab import SwingBy

__all__ = ["LABS"]

LABS: dict[str, AbstractLab] = {
    lab.name: lab
    for lab in (
        SwingBy(),
        MarkovMixture(),
        SAEGeometry(),
        Steering(),
        GraphTracing(),
        MatrixCompletion(),
        ConceptSpace(),
        FormalLanguages(),
        SafetyFinetuning(),
        KnowledgeEditing(),
    )
}
"""Every lab by its name."""
