"""The denoising variant of masking: a dictionary that reads the masked activation learns to give the clean one.

Trained as a transcoder from masked to clean activations of the same tokens, whose gate (encoder, rule and decoder) is then a
dictionary of one place like any other.
"""

from perimetry.artifact import MANIFEST
from perimetry.config import build
from perimetry.errors import ConfigError
from perimetry.sae.formats import load_sae, save_sae
from perimetry.sae.transcoder import GATES, TranscoderSAE
from perimetry.train import Job, TrainConfig, TrainResult

__all__ = ["as_dictionary", "denoising_job"]

PAIRS = "denoising"
"""Folder of the training of the transcoder, within that of the dictionary."""


def denoising_job(job: Job) -> Job:
    """The training of the transcoder of a dictionary. Errors: `ConfigError` for an architecture that is no gate, or has options."""
    config = job.config
    if config.architecture not in GATES or config.options:
        raise ConfigError(
            f"masking with variant = 'denoising' trains {', '.join(GATES)} without options, and came with {config.architecture} and "
            f"{config.options or 'no options'}; choose one of these, or variant = 'masked' or 'consistency'"
        )
    values = config.model_dump() | {
        "architecture": TranscoderSAE.architecture,
        "options": {"gate": config.architecture},
    }
    return job._replace(config=build(TrainConfig, values, "denoising"), out=job.out / PAIRS)


def as_dictionary(result: TrainResult, job: Job) -> TrainResult:
    """The gate of a finished transcoder, as the dictionary that `job` asked for; kept in `job.out / "sae"`."""
    path = job.out / "sae"
    if not (path / MANIFEST).is_file():
        assert isinstance(result.sae, TranscoderSAE), "denoising_job made it"
        gate = result.sae.gate
        gate.requires_grad_(False).eval()  # noqa: FBT003
        update = {"architecture": gate.architecture, "train": job.config.model_dump(mode="json"), "digest": None}
        save_sae(gate, path, result.info.model_copy(update=update))
    found = load_sae(path)
    return result._replace(path=path, sae=found.sae, info=found.info, digest=str(found.info.digest))
