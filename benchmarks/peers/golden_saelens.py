"""What SAELens' loaders make of the published families, from tiny files in their layouts; run by `golden.py`."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from golden_data import ROWS, D, K, N, generator, inputs, weights, write
from safetensors.torch import save_file

__all__ = ["saelens"]


class Hub:
    """Stands in for the hub: what SAELens' loaders ask for is taken from a local folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def download(self, repo_id: str, filename: str, subfolder: str | None = None, **_: Any) -> str:
        from huggingface_hub.utils import EntryNotFoundError

        path = self.root / repo_id.split("/")[-1] / (subfolder or "") / filename
        if not path.exists():
            raise EntryNotFoundError(str(path))
        return str(path)

    def shapes(self, repo_id: str, filename: str) -> dict[str, list[int]]:
        from safetensors import safe_open

        with safe_open(self.download(repo_id, filename), "pt") as file:
            return {key: list(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118


@torch.no_grad()
def through_saelens(loader: str, case: Path, repo: str, folder: str, x: torch.Tensor, **overrides: Any) -> None:
    """Load with SAELens' own function, as `SAE.from_pretrained` goes on from there, and write what it computes."""
    import sae_lens.loading.pretrained_sae_loaders as loaders  # pyright: ignore[reportMissingImports]
    from sae_lens import SAE  # pyright: ignore[reportMissingImports]

    scale = overrides.pop("scale", None)
    hub = Hub(case)
    loaders.hf_hub_download = hub.download
    loaders.get_safetensors_tensor_shapes = hub.shapes
    options = {"dtype": "float32", "device": "cpu", **overrides}
    cfg, state, _ = loaders.NAMED_PRETRAINED_SAE_LOADERS[loader](repo, folder, cfg_overrides=options)
    cfg = loaders.handle_config_defaulting(cfg)
    config = SAE.get_sae_config_class_for_architecture(cfg["architecture"]).from_dict(cfg)
    sae = SAE.get_sae_class_for_architecture(config.architecture())(config)
    sae.process_state_dict_for_loading(state)
    sae.load_state_dict(state, assign=True)
    if scale is not None:
        sae.fold_activation_norm_scaling_factor(scale)
    sae.turn_off_forward_pass_hook_z_reshaping()
    sae.eval()
    codes = sae.encode(x)
    write(case, x, codes, sae(x))


def _npz(path: Path, w: dict[str, torch.Tensor], *, lower: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = {"W_enc": w["W_enc"].T, "W_dec": w["W_dec"], "b_enc": w["b_enc"], "b_dec": w["b_dec"]}
    named = {(k.lower() if lower else k): v for k, v in names.items()}
    arrays = {k: np.ascontiguousarray(v.numpy()) for k, v in (named | {"threshold": w["threshold"]}).items()}
    np.savez(path, **arrays)  # pyright: ignore[reportArgumentType]


def _safetensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, path)


def gemma_scope(out: Path) -> None:
    """Gemma Scope 1: residual, attention (hook_z), MLP, embedding, transcoder."""
    sizes = {"d_in": D, "d_sae": N}
    cases = {
        "res": ("gemma-scope-2b-pt-res", "layer_12/width_16k/average_l0_82", "gemma_2", sizes),
        "mlp": ("gemma-scope-9b-pt-mlp", "layer_5/width_16k/average_l0_20", "gemma_2", sizes),
        "att": ("gemma-scope-2b-pt-att", "layer_7/width_16k/average_l0_80", "gemma_2", sizes),
        "embedding": ("gemma-scope-2b-pt-res", "embedding/width_4k/average_l0_6", "gemma_2", sizes),
        "transcoder": (
            "gemma-scope-2b-pt-transcoders",
            "layer_3/width_16k/average_l0_54",
            "gemma_2_transcoder",
            sizes | {"d_out": D},
        ),
    }
    for seed, (name, (repo, folder, loader, options)) in enumerate(cases.items(), start=41):
        w = weights(seed)
        if name == "embedding":
            w["b_dec"] = torch.zeros(D)  # SAELens leaves b_dec as it is there; only 0 is beyond dispute
        _npz(out / name / repo / folder / "params.npz", w, lower=name == "mlp")
        through_saelens(loader, out / name, f"google/{repo}", folder, inputs(seed, w["b_dec"]), **options)


def gemma_scope_2(out: Path) -> None:
    """Gemma Scope 2: residual, attention, MLP, transcoders with and without the affine skip."""
    cases = {
        "resid_post": ("resid_post/layer_12_width_16k_l0_small", D, False),
        "attn_out": ("attn_out_all/layer_4_width_16k_l0_medium_seed_1", D, False),
        "mlp_out": ("mlp_out/layer_9_width_16k_l0_big", D, False),
        "transcoder": ("transcoder_all/layer_8_width_16k_l0_small", 12, False),
        "transcoder_affine": ("transcoder/layer_8_width_16k_l0_small_affine", 12, True),
    }
    repo = "gemma-scope-2-1b-pt"
    for seed, (name, (folder, d_out, affine)) in enumerate(cases.items(), start=51):
        w = weights(seed, d_out=d_out)
        names = {"w_enc": w["W_enc"].T, "w_dec": w["W_dec"], "b_enc": w["b_enc"], "b_dec": w["b_dec"]}
        skip = {"affine_skip_connection": w["W_skip"].T} if affine else {}
        _safetensors(out / name / repo / folder / "params.safetensors", {**names, "threshold": w["threshold"], **skip})
        if name in ("resid_post", "transcoder_affine"):
            layer = folder.split("layer_")[1].split("_")[0]
            config = {"architecture": "jump_relu", "model_name": "gemma-v3-1b-pt", "l0": 20, "width": N}
            config |= {"hf_hook_point_in": f"model.layers.{layer}.output"}
            if affine:
                config |= {
                    "affine_connection": True,
                    "hf_hook_point_in": f"model.layers.{layer}.pre_feedforward_layernorm.output",
                    "hf_hook_point_out": f"model.layers.{layer}.post_feedforward_layernorm.output",
                }
            (out / name / repo / folder / "config.json").write_text(json.dumps(config))
        through_saelens("gemma_3", out / name, f"google/{repo}", folder, inputs(seed, w["b_dec"]))


def llama_scope(out: Path) -> None:
    """Llama Scope: the published residual kind, and the R1-distill kind (whose scale the caller gives)."""
    repo, folder = "Llama3_1-8B-Base-LXR-8x", "Llama3_1-8B-Base-L15R-8x"
    w = weights(61, unit=True)
    parameters = {
        "d_model": D,
        "d_sae": N,
        "hook_point_in": "blocks.15.hook_resid_post",
        "hook_point_out": "blocks.15.hook_resid_post",
        "act_fn": "jumprelu",
        "jump_relu_threshold": 0.2021484375,
        "dataset_average_activation_norm": {"in": 6.3125, "out": 6.3125},
        "norm_activation": "dataset-wise",
        "use_decoder_bias": True,
        "apply_decoder_bias_to_pre_encoder": False,
        "sparsity_include_decoder_norm": True,
        "use_glu_encoder": False,
        "top_k": 50,
    }
    case = out / "residual"
    names = {"encoder.weight": w["W_enc"], "encoder.bias": w["b_enc"]}
    names |= {"decoder.weight": w["W_dec"].T, "decoder.bias": w["b_dec"]}
    _safetensors(case / repo / folder / "checkpoints" / "final.safetensors", names)
    (case / repo / folder / "hyperparams.json").write_text(json.dumps(parameters))
    scale = math.sqrt(D) / 6.3125
    through_saelens("llama_scope", case, f"fnlp/{repo}", folder, inputs(61, w["b_dec"]), scale=scale)
    case, repo, folder = out / "r1_distill", "Llama-Scope-R1-Distill", "400M-Slimpajama-400M-OpenR1-Math-220k/L15R"
    w = weights(62, unit=True)
    names = {"encoder.weight": w["W_enc"], "encoder.bias": w["b_enc"], "log_jumprelu_threshold": w["threshold"].log()}
    names |= {"decoder.weight": w["W_dec"].T, "decoder.bias": w["b_dec"]}
    _safetensors(case / repo / folder / "sae_weights.safetensors", names)
    distilled = {
        k: v for k, v in parameters.items() if k not in ("jump_relu_threshold", "dataset_average_activation_norm")
    }
    (case / repo / folder / "config.json").write_text(json.dumps({**distilled, "expansion_factor": N // D}))
    x = inputs(62, w["b_dec"])
    through_saelens("llama_scope_r1_distill", case, f"fnlp/{repo}", folder, x, scale=0.7)


def pickled(out: Path) -> None:
    """The families of one pickle: Goodfire, DeepSeek R1, Qwen Scope; beside them mwhanna's transcoders in safetensors."""
    sizes = {"d_in": D, "d_sae": N}
    w = weights(71)
    names = {"encoder_linear.weight": w["W_enc"], "encoder_linear.bias": w["b_enc"]}
    names |= {"decoder_linear.weight": w["W_dec"].T, "decoder_linear.bias": w["b_dec"]}
    repo, file = "Llama-3.1-8B-Instruct-SAE-l19", "Llama-3.1-8B-Instruct-SAE-l19.pth"
    case = out / "goodfire" / "llama"
    (case / repo).mkdir(parents=True, exist_ok=True)
    torch.save({k: v.contiguous() for k, v in names.items()}, case / repo / file)
    through_saelens("goodfire", case, f"Goodfire/{repo}", file, inputs(71, w["b_dec"]), **sizes)
    w = weights(72)
    names = {"encoder.weight": w["W_enc"], "encoder.bias": w["b_enc"]}
    names |= {"decoder.weight": w["W_dec"].T, "decoder.bias": w["b_dec"]}
    repo, file = "DeepSeek-R1-Distill-Llama-8B-SAE-l19", "DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt"
    case = out / "deepseek" / "llama"
    (case / repo).mkdir(parents=True, exist_ok=True)
    torch.save({k: v.contiguous() for k, v in names.items()}, case / repo / file)
    through_saelens("deepseek_r1", case, f"qresearch/{repo}", file, inputs(72, w["b_dec"]), **sizes)
    w = weights(73, unit=True)
    repo, file = "SAE-Res-Qwen3-1.7B-Base-W32K-L0_4", "layer7.sae.pt"
    names = {"W_enc": w["W_enc"], "W_dec": w["W_dec"].T, "b_enc": w["b_enc"], "b_dec": w["b_dec"]}
    case = out / "qwen_scope" / "base"
    (case / repo).mkdir(parents=True, exist_ok=True)
    torch.save({k: v.contiguous() for k, v in names.items()}, case / repo / file)
    through_saelens("qwen_scope", case, f"Qwen/{repo}", file, inputs(73, w["b_dec"]), **sizes)
    w = weights(74)
    repo, file = "qwen3-0.6b-transcoders-lowl0", "layer_6.safetensors"
    case = out / "mwhanna" / "transcoder"
    _safetensors(case / repo / file, {k: w[k] for k in ("W_enc", "W_dec", "b_enc", "b_dec")})
    (case / repo / "config.yaml").write_text(
        "model_name: Qwen/Qwen3-0.6B\nmodel_kind: transcoder_set\nfeature_input_hook: mlp.hook_in\n"
        "feature_output_hook: hook_mlp_out\n"
    )
    (case / repo / "wandb-config.yaml").write_text(
        f"d_model:\n    desc: null\n    value: {D}\nd_feature:\n    desc: null\n    value: {N}\n"
        "batch_size:\n    desc: null\n    value: 4096\n"
    )
    through_saelens("mwhanna_transcoder", case, f"mwhanna/{repo}", file, inputs(74, w["b_dec"]))


@torch.no_grad()
def temporal(out: Path) -> None:
    """Temporal feature analysis, tied, one layer of attention: four sequences of 16 tokens."""
    import sae_lens.loading.pretrained_sae_loaders as loaders  # pyright: ignore[reportMissingImports]
    from sae_lens import SAE  # pyright: ignore[reportMissingImports]

    case, repo, seed, bottleneck = out / "tied", "temporalSAEs", 81, 4
    folder = case / repo / "layer_12" / "temporal"
    folder.mkdir(parents=True, exist_ok=True)
    w, source = weights(seed), generator(seed)
    names = {"D": w["W_dec"] * 3, "b": w["b_dec"]}
    for part, rows in {"k_ctx": N // bottleneck, "q_target": N // bottleneck, "v_ctx": N, "c_proj": N}.items():
        names[f"attn_layers.0.{part}.weight"] = 0.5 * torch.randn(rows, N, generator=source)
        names[f"attn_layers.0.{part}.bias"] = 0.2 * torch.randn(rows, generator=source)
    _safetensors(folder / "latest_ckpt.safetensors", names)
    (folder / "conf.yaml").write_text(
        f"llm:\n  name: google/gemma-2-2b\n  dimin: {D}\nsae:\n  exp_factor: {N // D}\n  n_heads: 2\n  n_attn_layers: 1\n"
        f"  bottleneck_factor: {bottleneck}\n  sae_diff_type: topk\n  kval_topk: {K}\n  tied_weights: true\n"
        "  scaling_factor: 0.35\ndata:\n  dtype: float32\n"
    )
    loaders.hf_hub_download = Hub(case).download
    loader = loaders.NAMED_PRETRAINED_SAE_LOADERS["temporal"]
    cfg, state, _ = loader(f"canrager/{repo}", "layer_12/temporal", cfg_overrides={"dtype": "float32", "device": "cpu"})
    cfg = loaders.handle_config_defaulting(cfg)
    config = SAE.get_sae_config_class_for_architecture(cfg["architecture"]).from_dict(cfg)
    sae = SAE.get_sae_class_for_architecture("temporal")(config)
    sae.load_state_dict(state, assign=True)
    x = inputs(seed, w["b_dec"]).reshape(4, 16, D)
    novel, _ = sae.encode_with_predictions(x)
    write(case, x.reshape(ROWS, D), novel.reshape(ROWS, N), sae(x).reshape(ROWS, D))


def saelens(out: Path) -> None:
    """What SAELens' loaders make of the published families."""
    gemma_scope(out / "gemma_scope")
    gemma_scope_2(out / "gemma_scope_2")
    llama_scope(out / "llama_scope")
    pickled(out)
    temporal(out / "temporal")
