from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from perimetry.errors import CorruptArtifact
from perimetry.sae.formats.families.common import Parts, in_path, latent_major, per_latent, tensor_names, unweighted


def test_the_part_nearest_to_the_end_counts() -> None:
    path = Path("/store/gemma-scope-9b-pt-mlp/copies/gemma-scope-2b-pt-res/layer_3")
    found = in_path(path, r"gemma-scope-(\w+)-pt-(\w+)")
    assert found is not None
    assert found.groups() == ("2b", "res")
    assert in_path(path, r"^width_") is None


def test_who_said_what() -> None:
    fields = Parts({"k": 3}, {"layer": 4}, "cfg.json")
    fields.take("path", k=5, layer=6, site="res")
    assert (fields.need("k", int), fields.need("layer", int), fields.need("site", str)) == (3, 4, "res")
    assert fields.sources() == {"k": "file", "layer": "user", "site": "path"}
    assert fields.finish() == {"layer": 4}
    assert fields.rest() == {}


def test_names_of_tensors(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "x.safetensors")
    (tmp_path / "y.safetensors").write_bytes(b"no")
    assert tensor_names(tmp_path / "x.safetensors") == {"a", "b"}
    assert tensor_names(tmp_path / "y.safetensors") == set()
    assert tensor_names(tmp_path / "z.safetensors") == set()


def test_matrices_and_thresholds() -> None:
    with pytest.raises(CorruptArtifact, match=r"W has shape \(3,\), a matrix is wanted"):
        latent_major("file", {"W": torch.zeros(3)}, "W")
    assert per_latent("file", 0.5, 3).tolist() == [0.5, 0.5, 0.5]
    with pytest.raises(CorruptArtifact, match=r"a threshold of shape \(2,\) for 3 latents"):
        per_latent("file", torch.zeros(2), 3)
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert unweighted(torch.tensor([1.0, 0.0]), rows).tolist() == pytest.approx([0.2, torch.finfo(torch.float32).max])
