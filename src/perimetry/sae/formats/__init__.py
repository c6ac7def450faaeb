"""SAEs on disk; one file a foreign format."""

from perimetry.sae.formats.info import LoadedSAE, SAEInfo
from perimetry.sae.formats.saelens import load_sae, save_sae

__all__ = ["LoadedSAE", "SAEInfo", "load_sae", "save_sae"]
