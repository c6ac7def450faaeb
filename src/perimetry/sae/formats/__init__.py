"""SAEs on disk, and the formats of other tools."""

from perimetry.sae.formats.disk import load_sae, save_sae
from perimetry.sae.formats.info import LoadedSAE, SAEInfo

__all__ = ["LoadedSAE", "SAEInfo", "load_sae", "save_sae"]
