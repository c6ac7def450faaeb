import json
import shutil
from dataclasses import replace

import pytest
import torch

from perimetry.activations.shards import ActivationStore
from perimetry.activations.store import HarvestConfig, harvest
from perimetry.errors import CorruptArtifact, Incompatible, MissingFile, ModelMismatch, TooFewSamples, UsageError
from perimetry.storage import hash_file, hash_json


@pytest.fixture(scope="module")
def path(tmp_path_factory, tiny_lm, documents):
    path = tmp_path_factory.mktemp("store") / "s"
    harvest(tiny_lm, 1, documents, path, HarvestConfig(tokens=700, context=24, batch_rows=3, shard_tokens=200))
    return path


@pytest.fixture
def copy(path, tmp_path):
    return shutil.copytree(path, tmp_path / "copy")


def test_rows_come_in_the_order_asked_for(path):
    store = ActivationStore.open(path)
    everything = store.rows(torch.arange(700))
    assert everything.dtype == torch.float32
    ids = torch.randint(0, 700, (900,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(store.rows(ids), everything[ids])
    assert torch.equal(store.tokens(ids), store.tokens(torch.arange(700))[ids])
    assert store.rows(torch.zeros(0, dtype=torch.long)).shape == (0, 32)


@pytest.mark.parametrize("bad", [-1, 700])
def test_a_row_that_is_not_there(path, bad):
    with pytest.raises(UsageError, match="of a store of 700 rows"):
        ActivationStore.open(path).rows(torch.tensor([0, bad]))


def test_every_epoch_visits_every_row_once(path):
    store = ActivationStore.open(path)
    stream = store.batches(64, seed=1)
    seen = torch.cat([next(stream) for _ in range(22)])
    everything = store.rows(torch.arange(700))
    for epoch in range(2):
        order = store.permutation(1, epoch)(torch.arange(700))
        assert torch.equal(seen[700 * epoch : 700 * (epoch + 1)], everything[order])
    assert not torch.equal(seen[:700], seen[700:1400])


def test_batches_start_at_any_step(path):
    store = ActivationStore.open(path)
    stream = store.batches(64, seed=9)
    wanted = [next(stream) for _ in range(30)]
    for start in (0, 1, 10, 11, 29):
        assert torch.equal(next(ActivationStore.open(path, verify=False).batches(64, 9, start)), wanted[start])
    assert not torch.equal(next(store.batches(64, 8)), wanted[0])


def test_batches_larger_than_the_store(path):
    assert next(ActivationStore.open(path).batches(1500)).shape == (1500, 32)


def test_every_pair_is_two_adjacent_tokens_of_a_document(path):
    store = ActivationStore.open(path)
    ids = torch.arange(700)
    position, document, everything = store.positions(ids).tolist(), store.documents(ids), store.rows(ids)
    wanted = {
        i for i in range(699) if position[i + 1] == position[i] + 1 and document[i + 1] == document[i] and (i + 1) % 200
    }
    assert set(store.followed().tolist()) == wanted
    assert 300 < len(wanted) < 690
    stream = store.pairs(2 * len(wanted), seed=3)
    batch = next(stream)
    firsts = torch.tensor(sorted(wanted))
    side_by_side = torch.cat([everything[firsts], everything[firsts + 1]], 1)
    assert sorted(batch.reshape(-1, 64).tolist()) == sorted(side_by_side.tolist())
    assert not torch.equal(batch.reshape(-1, 64), side_by_side)
    assert not torch.equal(next(stream), batch)


def test_pairs_start_at_any_step(path):
    store = ActivationStore.open(path)
    stream = store.pairs(64, seed=9)
    wanted = [next(stream) for _ in range(30)]
    for start in (0, 1, 10, 29):
        assert torch.equal(next(ActivationStore.open(path, verify=False).pairs(64, 9, start)), wanted[start])
    with pytest.raises(UsageError, match="a batch of 7 rows cannot be pairs; give an even number"):
        next(store.pairs(7))


def test_a_store_without_neighbours_has_no_pairs(path, monkeypatch):
    store = ActivationStore.open(path)
    monkeypatch.setattr(store, "_followed", torch.zeros(0, dtype=torch.long))
    with pytest.raises(TooFewSamples, match=r"no token in .* follows another; harvest with a policy"):
        next(store.pairs(8))


def test_a_batch_can_be_changed_without_harm(path):
    store = ActivationStore.open(path)
    before = store.rows(torch.arange(5))
    store.rows(torch.arange(5)).zero_()
    assert torch.equal(store.rows(torch.arange(5)), before)


def test_no_store_and_an_unfinished_one(tmp_path, copy):
    with pytest.raises(MissingFile, match="no activation store at"):
        ActivationStore.open(tmp_path / "nothing")
    (copy / "manifest.json").unlink()
    with pytest.raises(CorruptArtifact, match="did not reach its end; run the same harvest again"):
        ActivationStore.open(copy)


def test_a_torn_shard_is_seen_even_without_hashing(copy):
    shard = copy / "shard-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(
        CorruptArtifact, match=r"shard-00002\.safetensors has \d+ bytes, the manifest says \d+: it is torn"
    ):
        ActivationStore.open(copy, verify=False)


def test_a_changed_byte_is_seen_by_hashing(copy):
    shard = copy / "shard-00001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CorruptArtifact, match="does not hash as its manifest says"):
        ActivationStore.open(copy)


def test_a_missing_shard_and_a_changed_plan(copy):
    (copy / "shard-00001.safetensors").rename(copy / "elsewhere")
    with pytest.raises(CorruptArtifact, match="in the manifest and not on the disk"):
        ActivationStore.open(copy)
    (copy / "elsewhere").rename(copy / "shard-00001.safetensors")
    (copy / "plan.json").write_text((copy / "plan.json").read_text().replace('"layer": 1', '"layer": 2'))
    with pytest.raises(CorruptArtifact, match=r"plan\.json does not hash"):
        ActivationStore.open(copy)


def rewrite(folder, change):
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    manifest["digest"] = hash_json(manifest["files"])
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_file_that_is_no_shard(copy):
    shard = copy / "shard-00001.safetensors"
    shard.write_bytes(b"\x00" * 64)

    def change(manifest):
        manifest["files"][shard.name] = manifest["shards"][1]["sha256"] = hash_file(shard)
        manifest["shards"][1]["bytes"] = 64

    rewrite(copy, change)
    with pytest.raises(CorruptArtifact, match="is not safetensors"):
        ActivationStore.open(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["shards"][1].update(rows=100), r"holds \(200, 32\) numbers, the manifest says \(100, 32\)"),
        (lambda m: m["shards"][1].update(file="../x"), "contradicts itself on '../x'"),
        (lambda m: m["shards"].clear(), "has no shards"),
        (lambda m: m["shards"].insert(0, m["shards"].pop()), "unequal length"),
        (lambda m: m.pop("shards"), "cannot be read"),
        (lambda m: m["shards"][0].pop("rows"), "cannot be read"),
    ],
)
def test_a_manifest_that_lies(copy, change, message):
    rewrite(copy, change)
    with pytest.raises(CorruptArtifact, match=message):
        ActivationStore.open(copy)


def test_a_manifest_of_something_else(copy):
    rewrite(copy, lambda m: m.update(kind="sae"))
    with pytest.raises(Incompatible, match="is no manifest of an activation store"):
        ActivationStore.open(copy)
    (copy / "manifest.json").write_text((copy / "manifest.json").read_text().replace('"sae"', '"activations"')[:-9])
    with pytest.raises(CorruptArtifact, match="not strict JSON"):
        ActivationStore.open(copy)


def test_a_digest_that_its_files_do_not_give(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"digest": "0" * 64}))
    with pytest.raises(CorruptArtifact, match="has a digest that its files do not give"):
        ActivationStore.open(copy)


def test_another_model_is_refused(path, tiny_lm):
    store = ActivationStore.open(path)
    store.require_model(tiny_lm)
    with pytest.raises(ModelMismatch, match=r"are of 'tiny-llama' \(revision .*\), the model here is 'tiny-llama'"):
        store.require_model(replace(tiny_lm, revision="f" * 64))
