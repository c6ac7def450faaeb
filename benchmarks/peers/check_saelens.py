"""SAELens' own answers, for the tests of the interchange: run by the Python of an environment that has sae-lens.

python check_saelens.py encode FOLDER...   reads `x.safetensors` of each folder, loads the SAE there with SAE.load_from_disk, and writes
                                           its dense codes, output and d_in to `saelens.safetensors`
python check_saelens.py make FOLDER        makes SAEs of each kind with random weights, saves them by SAELens' own means into
                                           sub-folders (finished ones and training checkpoints), and encodes as above
"""

import contextlib
import io
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

with contextlib.redirect_stdout(io.StringIO()):
    from sae_lens import SAE, TrainingSAE  # pyright: ignore[reportMissingImports]
    from sae_lens.registry import get_sae_class, get_sae_training_class  # pyright: ignore[reportMissingImports]
    from sae_lens.training.activation_scaler import ActivationScaler  # pyright: ignore[reportMissingImports]

D_IN, D_SAE, D_OUT, ROWS = 8, 32, 6, 24
SPECIAL = {"sae_lens_version"}


def encode(folder: Path) -> None:
    """Codes and output of the SAE in a folder, for the rows beside it."""
    x = load_file(folder / "x.safetensors")["x"]
    sae = SAE.load_from_disk(folder, device="cpu")
    with torch.no_grad():
        codes = sae.encode(x)
        output = sae(x)
    save_file({"codes": codes.contiguous(), "output": output.contiguous()}, folder / "saelens.safetensors")


def shake(sae: torch.nn.Module, seed: int) -> None:
    """Random numbers in every parameter, so that no term hides behind a zero."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(sae.named_parameters()):
            noise = torch.randn(parameter.shape, generator=source)
            parameter.copy_(0.3 * noise.abs() if name == "threshold" else 0.5 * noise)


KINDS = {
    "standard": {},
    "jumprelu": {},
    "topk": {"k": 5},
    "topk_rescaled": {"k": 5, "rescale_acts_by_decoder_norm": True},
    "gated": {},
    "no_subtraction": {"apply_b_dec_to_input": False},
    "layer_norm": {"normalize_activations": "layer_norm"},
    "constant_norm": {"normalize_activations": "constant_norm_rescale"},
    "transcoder": {"d_out": D_OUT, "apply_b_dec_to_input": False},
    "skip_transcoder": {"d_out": D_OUT, "apply_b_dec_to_input": False},
    "jumprelu_transcoder": {"d_out": D_OUT, "apply_b_dec_to_input": False},
    "jumprelu_skip_transcoder": {"d_out": D_OUT, "apply_b_dec_to_input": False},
    "matching_pursuit": {"max_iterations": 4},
    "matching_pursuit_threshold": {"residual_threshold": 0.7},
}
ARCHITECTURES = {
    "constant_norm": "standard",
    "layer_norm": "standard",
    "matching_pursuit_threshold": "matching_pursuit",
    "no_subtraction": "standard",
    "topk_rescaled": "topk",
}
TRAININGS = {
    "train_batchtopk": ("batchtopk", {"k": 4.0}),
    "train_batchtopk_plain": ("batchtopk", {"k": 4.0, "rescale_acts_by_decoder_norm": False}),
    "train_matryoshka": ("matryoshka_batchtopk", {"k": 4.0, "matryoshka_widths": [8, 32]}),
    "train_scaled": ("batchtopk", {"k": 4.0, "normalize_activations": "expected_average_only_in"}),
    "train_scaled_standard": ("standard", {"normalize_activations": "expected_average_only_in"}),
    "train_jumprelu": ("jumprelu", {}),
    "train_topk": ("topk", {"k": 5}),
}
SCALE = 0.37


def rows(seed: int) -> torch.Tensor:
    """Inputs, a row of zeros left out: constant_norm_rescale divides by its norm."""
    return 1.5 * torch.randn(ROWS, D_IN, generator=torch.Generator().manual_seed(seed)) + 0.3


def finished(root: Path) -> None:
    """SAEs of each kind at inference, saved by `save_model`."""
    for seed, (name, more) in enumerate(KINDS.items()):
        folder = root / name
        folder.mkdir(parents=True)
        cls, config = get_sae_class(ARCHITECTURES.get(name, name))
        sae = cls(config(d_in=D_IN, d_sae=D_SAE, **more))
        shake(sae, seed)
        sae.save_model(folder)
        save_file({"x": rows(seed)}, folder / "x.safetensors")
        encode(folder)


def checkpoints(root: Path) -> None:
    """Training SAEs saved as checkpoints; what they are compared with is what SAELens itself saves at the end."""
    for seed, (name, (architecture, more)) in enumerate(TRAININGS.items(), 100):
        folder, end = root / name, root / f"{name}-end"
        folder.mkdir(parents=True)
        cls, config = get_sae_training_class(architecture)
        sae = cls(config(d_in=D_IN, d_sae=D_SAE, **more))
        shake(sae, seed)
        if hasattr(sae, "topk_threshold"):
            sae.topk_threshold = torch.tensor(0.4, dtype=torch.double)
        assert isinstance(sae, TrainingSAE)
        sae.save_model(folder)
        if "normalize_activations" in more:
            ActivationScaler(SCALE).save(str(folder / "activation_scaler.json"))
            sae.fold_activation_norm_scaling_factor(SCALE)
        if more.get("rescale_acts_by_decoder_norm", "topk" in architecture):
            sae.fold_W_dec_norm()
        sae.save_inference_model(end)
        for place in (folder, end):
            save_file({"x": rows(seed)}, place / "x.safetensors")
        encode(end)
        (folder / "saelens.safetensors").write_bytes((end / "saelens.safetensors").read_bytes())


def main() -> int:
    """Do what the first argument says."""
    job, *folders = sys.argv[1:]
    if job == "encode":
        for folder in folders:
            encode(Path(folder))
        return 0
    if job == "make" and len(folders) == 1:
        finished(Path(folders[0]))
        checkpoints(Path(folders[0]))
        return 0
    sys.stderr.write(__doc__ or "")
    return 2


if __name__ == "__main__":
    sys.exit(main())
