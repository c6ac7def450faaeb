"""Golden vectors: tiny dictionaries saved by the peer libraries in their own formats, with the codes that those libraries give.

Run inside a peer's environment, once per library; the tests then hold our readers to the files that are committed:

    PEER_PYTHON benchmarks/peers/golden.py sparsify tests/sae/formats/golden
    PEER_PYTHON benchmarks/peers/golden.py dictionary_learning tests/sae/formats/golden
    PEER_PYTHON benchmarks/peers/golden.py llamascopium tests/sae/formats/golden
    PEER_PYTHON benchmarks/peers/golden.py saelens tests/sae/formats/golden

Each case is a folder `FAMILY/CASE` that holds the family's own layout and `vectors.safetensors`: `x` (64 rows), `codes` and
`reconstruction` as the reference library computed them in float32, and `scale` where the caller of that library must scale the input.
No file holds anything but random numbers.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from golden_data import ROWS, D, K, N, fill, generator, inputs, weights, write
from golden_saelens import saelens


@torch.no_grad()
def sparsify(out: Path) -> None:
    """eai-sparsify: SAEs, the group maximum, transcoders with and without a skip."""
    from sparsify import SparseCoder  # pyright: ignore[reportMissingImports]
    from sparsify.config import SparseCoderConfig  # pyright: ignore[reportMissingImports]

    def case(name: str, seed: int, hookpoint: str, **options: Any) -> None:
        cfg = SparseCoderConfig(num_latents=0 if name == "expansion" else N, expansion_factor=N // D, k=K, **options)
        coder = SparseCoder(D, cfg)
        w = weights(seed, unit=True)
        names = {"encoder.weight": "W_enc", "encoder.bias": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec"}
        names |= {"W_skip": "W_skip"} if cfg.skip_connection else {}
        fill(coder, {theirs: w[ours] for theirs, ours in names.items()})
        coder.save_to_disk(out / name / hookpoint)
        (out / name / "config.json").write_text(json.dumps(RUN | {"sae": cfg.to_dict(), "hookpoints": [hookpoint]}))
        x = inputs(seed, w["b_dec"])
        loaded = SparseCoder.load_from_disk(out / name / hookpoint)
        values, indices, _ = loaded.encode(x)
        write(out / name, x, torch.zeros(ROWS, N).scatter(1, indices, values), loaded(x).sae_out)

    case("topk", 1, "layers.3")
    case("expansion", 2, "layers.3.mlp")
    case("transcoder", 3, "h.5.mlp", transcode=True)
    case("skip_transcoder", 4, "layers.7.mlp", transcode=True, skip_connection=True)
    case("groupmax", 5, "layers.3", activation="groupmax")


RUN = {"model": "EleutherAI/pythia-160m", "dataset": "EleutherAI/fineweb-edu-dedup-10b", "ctx_len": 2048}


def _write_trainer(folder: Path, trainer: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    buffer = {"d_submodule": D, "io": "out", "n_ctxs": 100, "ctx_len": 128, "refresh_batch_size": 8, "device": "cpu"}
    (folder / "config.json").write_text(json.dumps({"trainer": trainer.config, "buffer": buffer}, indent=1))
    torch.save({k: v.cpu() for k, v in trainer.ae.state_dict().items()}, folder / "ae.pt")


@torch.no_grad()
def dictionary_learning(out: Path) -> None:
    """dictionary_learning: every class with its trainer's own configuration, saved as the training loop saves it."""
    from dictionary_learning.dictionary import AutoEncoderNew  # pyright: ignore[reportMissingImports]
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer  # pyright: ignore[reportMissingImports]
    from dictionary_learning.trainers.gdm import GatedSAETrainer  # pyright: ignore[reportMissingImports]
    from dictionary_learning.trainers.jumprelu import JumpReluTrainer  # pyright: ignore[reportMissingImports]
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer  # pyright: ignore[reportMissingImports]
    from dictionary_learning.trainers.standard import StandardTrainer  # pyright: ignore[reportMissingImports]
    from dictionary_learning.trainers.top_k import TopKTrainer  # pyright: ignore[reportMissingImports]
    from dictionary_learning.utils import load_dictionary  # pyright: ignore[reportMissingImports]

    common = {
        "steps": 10,
        "activation_dim": D,
        "dict_size": N,
        "layer": 3,
        "lm_name": "EleutherAI/pythia-70m-deduped",
        "device": "cpu",
        "submodule_name": "resid_post_layer_3",
        "warmup_steps": 1,
    }
    linear = {"encoder.weight": "W_enc", "encoder.bias": "b_enc", "decoder.weight": "W_dec.T"}
    matrices = {"W_enc": "W_enc.T", "b_enc": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec"}
    gated = {"encoder.weight": "W_enc", "decoder.weight": "W_dec.T", "decoder_bias": "b_dec", "gate_bias": "b_enc"}
    topk = {**linear, "b_dec": "b_dec", "threshold": "one"}
    less = {"sparsity_warmup_steps": 1}
    trainers: dict[str, tuple[Callable[[], Any], dict[str, str], bool]] = {
        "AutoEncoder": (lambda: StandardTrainer(**common, **less), {**linear, "bias": "b_dec"}, False),
        "GatedAutoEncoder": (
            lambda: GatedSAETrainer(**common, **less),
            {**gated, "mag_bias": "mag", "r_mag": "r"},
            False,
        ),
        "AutoEncoderTopK": (lambda: TopKTrainer(**common, k=K), topk, True),
        "BatchTopKSAE": (lambda: BatchTopKTrainer(**common, k=K), topk, True),
        "MatryoshkaBatchTopKSAE": (
            lambda: MatryoshkaBatchTopKTrainer(**common, k=K, group_fractions=[0.25, 0.25, 0.5]),
            {**matrices, "threshold": "one"},
            True,
        ),
        "JumpReluAutoEncoder": (
            lambda: JumpReluTrainer(**common, **less),
            {**matrices, "threshold": "threshold"},
            False,
        ),
    }
    for seed, (name, (make, names, unit)) in enumerate(trainers.items(), start=11):
        trainer = make()
        w = weights(seed, unit=unit)
        source = generator(seed + 500)
        w |= {"one": torch.tensor(0.9), "mag": 0.3 * torch.randn(N, generator=source)}
        w |= {"r": 0.5 * torch.randn(N, generator=source)}
        fill(trainer.ae, {k: w[v.removesuffix(".T")].T if v.endswith(".T") else w[v] for k, v in names.items()})
        folder = out / name / "trainer_0"
        _write_trainer(folder, trainer)
        loaded, _ = load_dictionary(str(folder), "cpu")
        x = inputs(seed, w["b_dec"])
        codes = loaded.encode(x)
        write(out / name, x, codes, loaded.decode(codes))
    w = weights(30)
    new = AutoEncoderNew(D, N)
    fill(
        new,
        {**{k: w[v.removesuffix(".T")] for k, v in linear.items() if "decoder" not in k}, "decoder.bias": w["b_dec"]},
    )
    fill(new, {"decoder.weight": w["W_dec"].T})
    folder = out / "AutoEncoderNew" / "trainer_0"
    trainer = trainers["AutoEncoder"][0]()
    trainer.ae = new
    _write_trainer(folder, trainer)
    config = json.loads((folder / "config.json").read_text())
    config["trainer"]["dict_class"] = "AutoEncoderNew"  # as the trainers of that class wrote it
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    loaded, _ = load_dictionary(str(folder), "cpu")
    x = inputs(30, w["b_dec"])
    write(out / "AutoEncoderNew", x, loaded.encode(x), loaded.decode(loaded.encode(x)))


@torch.no_grad()
def llamascopium(out: Path) -> None:
    """Llamascopium: gates compared by decoder norm, scales by dataset and by token, a transcoder, an export for inference."""
    from llamascopium.models.sae import SAEConfig, SparseAutoEncoder  # pyright: ignore[reportMissingImports]

    def case(
        name: str, seed: int, *, fold: bool = False, hook_out: str = "blocks.15.hook_resid_post", **options: Any
    ) -> None:
        hook = "blocks.15.hook_resid_post"
        common = {
            "d_model": D,
            "expansion_factor": N / D,
            "hook_point_in": hook,
            "hook_point_out": hook_out,
            "top_k": K,
        }
        cfg = SAEConfig(**common, **options, device="cpu", dtype=torch.float32)
        sae = SparseAutoEncoder(cfg)
        w = weights(seed)
        names = {"W_E": w["W_enc"].T, "b_E": w["b_enc"], "W_D": w["W_dec"]}
        names |= {"b_D": w["b_dec"]} if cfg.use_decoder_bias else {}
        if cfg.act_fn == "jumprelu":
            names["activation_function.log_jumprelu_threshold"] = w["threshold"].log()
        fill(sae, names)
        sae.set_dataset_average_activation_norm({hook: 6.3125} | ({hook_out: 3.390625} if hook_out != hook else {}))
        if fold:
            sae.standardize_parameters_of_dataset_norm()
        (out / name / "L15R").mkdir(parents=True, exist_ok=True)
        sae.save_pretrained(out / name / "L15R")
        sae.cfg.save_hyperparameters(out / name / "L15R")
        x = inputs(seed, w["b_dec"])
        x[0] = x[6]  # the library divides a row of zeros by its norm
        scaled, factors = sae.normalize_activations({hook: x, hook_out: x}, return_scale_factor=True)
        codes = sae.encode(scaled[hook])
        write(out / name, x, codes, sae.decode(codes) / factors[hook_out])

    case("jumprelu", 91, act_fn="jumprelu", norm_activation="dataset-wise", sparsity_include_decoder_norm=True)
    case("topk", 92, act_fn="topk", norm_activation="dataset-wise", sparsity_include_decoder_norm=True)
    case("relu_by_token", 93, act_fn="relu", norm_activation="token-wise", use_decoder_bias=False)
    mlp = "blocks.15.hook_mlp_out"
    case(
        "transcoder",
        94,
        hook_out=mlp,
        act_fn="jumprelu",
        norm_activation="dataset-wise",
        sparsity_include_decoder_norm=False,
    )
    case(
        "inference",
        95,
        fold=True,
        act_fn="jumprelu",
        norm_activation="dataset-wise",
        sparsity_include_decoder_norm=True,
    )


LIBRARIES: dict[str, Callable[[Path], None]] = {
    "dictionary_learning": dictionary_learning,
    "llamascopium": llamascopium,
    "saelens": saelens,
    "sparsify": sparsify,
}


def main() -> None:
    if len(sys.argv) != 3 or sys.argv[1] not in LIBRARIES:
        raise SystemExit(f"usage: golden.py {'|'.join(LIBRARIES)} FOLDER; run it in the environment of that library")
    name, out = sys.argv[1], Path(sys.argv[2])
    torch.manual_seed(0)
    LIBRARIES[name](out if name == "saelens" else out / name)


if __name__ == "__main__":
    main()
