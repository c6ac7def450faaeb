import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tests.worlds import in_a_child

from perimetry import storage
from perimetry.activations.feed import fit_policies
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.prompts import collate
from perimetry.activations.store import ActivationStore, HarvestConfig, estimate, harvest
from perimetry.activations.tap import Tap
from perimetry.activations.text import pack, shuffled
from perimetry.errors import (
    ConfigError,
    Incompatible,
    Locked,
    NonFinite,
    StorageFull,
    TooFewSamples,
)
from perimetry.storage import hash_file

from .documents import Doc, make_documents

CONFIG = HarvestConfig(tokens=1000, context=24, batch_rows=3, shard_tokens=300, seed=4)


def files_of(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hash_file(p) for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock"
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_lm, documents):
    path = tmp_path_factory.mktemp("finished") / "store"
    harvest(tiny_lm, 1, documents, path, CONFIG)
    return path


def test_the_store_holds_exactly_what_the_tap_reads(tiny_lm, documents, finished):
    store = ActivationStore.open(finished)
    assert list(files_of(finished)) == [
        "manifest.json",
        "plan.json",
        *[f"shard-{i:05d}.safetensors" for i in range(4)],
    ]
    assert len(store) == 1000
    assert store.policy.max_norm is not None
    ordered = shuffled(documents, 4)
    acts, tokens, positions, names = [], [], [], []
    for row in pack(ordered, tiny_lm, TokenPolicy(), 24):
        batch = collate([row], 0)
        residual = Tap(tiny_lm, 1).read(batch.ids, batch.attention)[0]
        for i in range(len(row.ids)):
            if row.countable[i] and residual[i].norm() <= store.policy.max_norm:
                acts.append(residual[i])
                tokens.append(row.ids[i])
                positions.append(i)
                names.append(ordered[row.source[i]].id)
    everything = torch.arange(1000)
    torch.testing.assert_close(store.rows(everything), torch.stack(acts[:1000]), rtol=2**-7, atol=1e-3)
    assert store.tokens(everything).tolist() == tokens[:1000]
    assert store.positions(everything).tolist() == positions[:1000]
    assert store.documents(everything) == names[:1000]


def test_the_plan_says_what_the_store_is_of(tiny_lm, documents, finished):
    store = ActivationStore.open(finished)
    plan = store.plan
    assert (plan["revision"], plan["tokenizer"]) == (tiny_lm.revision, tiny_lm.tokenizer_hash)
    assert plan["hook"] == {"transformer_lens": "blocks.1.hook_resid_post", "hugging_face": "model.layers.1"}
    assert (plan["dtype"], plan["compute_dtype"], store.layer, store.d_model) == ("bfloat16", "float32", 1, 32)
    fitted = fit_policies(tiny_lm, [1], shuffled(documents, 4), TokenPolicy(), 24, 3)[1]
    assert store.policy == fitted


def test_float32_is_exact_and_a_finished_harvest_is_only_opened(tiny_lm, documents, tmp_path, monkeypatch):
    config = CONFIG.model_copy(update={"dtype": "float32", "policy": TokenPolicy(max_norm=1e9), "seed": 0})
    store = harvest(tiny_lm, 0, documents, tmp_path / "s", config)
    rows = list(pack(shuffled(documents, 0), tiny_lm, TokenPolicy(), 24))[:3]
    batch = collate(rows, 0)
    wanted = Tap(tiny_lm, 0).read(batch.ids, batch.attention)[batch.countable]
    assert torch.equal(store.rows(torch.arange(len(wanted))), wanted)
    monkeypatch.setattr("perimetry.activations.store.read_kept", None)
    assert harvest(tiny_lm, 0, documents, tmp_path / "s", config).digest == store.digest


def test_documents_that_end_early_give_a_smaller_store(tiny_lm, documents, tmp_path):
    store = harvest(tiny_lm, 1, documents[:5], tmp_path / "s", CONFIG)
    wanted = sum(sum(row.countable) for row in pack(documents[:5], tiny_lm, TokenPolicy(), 24))
    assert len(store) == wanted < 1000
    with pytest.raises(TooFewSamples, match="counts"):
        harvest(tiny_lm, 1, [Doc("a", "")], tmp_path / "t", CONFIG)


def test_several_layers_equal_each_alone(tiny_lm, documents, finished, tmp_path):
    stores = harvest(tiny_lm, [2, 1], documents, tmp_path / "s", CONFIG)
    assert sorted(stores) == [1, 2]
    assert files_of(tmp_path / "s" / "layer-01") == files_of(finished)
    assert stores[2].layer == 2


class Crash(BaseException):
    pass


def count_writes(monkeypatch, fail_at: int | None, error: BaseException | None = None) -> list[str]:
    """Count durable writes; at the given one kill this process, or raise `error`."""
    seen: list[str] = []

    def wrap(name):
        real = getattr(storage.os, name)

        def call(*args, **kwargs):
            seen.append(name)
            if len(seen) - 1 == fail_at:
                if error is not None:
                    raise error
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        monkeypatch.setattr(storage.os, name, call)

    wrap("fsync")
    wrap("replace")
    return seen


@pytest.mark.slow
def test_killed_at_every_write_it_ends_with_the_same_bytes(tiny_lm, documents, finished, tmp_path, monkeypatch):
    wanted = files_of(finished)
    with monkeypatch.context() as patch:
        seen = count_writes(patch, None)
        harvest(tiny_lm, 1, documents, tmp_path / "count", CONFIG)
    assert len(seen) > 15
    for at in range(len(seen)):
        path = tmp_path / f"at-{at}"

        def work(path=path, at=at):
            count_writes(monkeypatch, at)
            harvest(tiny_lm, 1, documents, path, CONFIG)

        assert in_a_child(work) == -signal.SIGKILL
        harvest(tiny_lm, 1, documents, path, CONFIG)
        assert files_of(path) == wanted, f"killed at write {at}"


def test_a_resumed_run_repeats_at_most_one_shard(tiny_lm, documents, tmp_path, monkeypatch):
    from perimetry.activations import store as store_module

    def work():
        count_writes(monkeypatch, 12)
        harvest(tiny_lm, 1, documents, tmp_path / "s", CONFIG)

    assert in_a_child(work) == -signal.SIGKILL
    lines = (tmp_path / "s" / "shards.jsonl").read_text().count("\n")
    assert lines >= 2
    rows, real = [0], store_module.read_kept

    def counting(lm, batch, *rest, **more):
        out = real(lm, batch, *rest, **more)
        rows[0] += out[1].tokens.shape[0]
        return out

    monkeypatch.setattr(store_module, "read_kept", counting)
    harvest(tiny_lm, 1, documents, tmp_path / "s", CONFIG)
    one_batch = 3 * 24
    assert rows[0] <= 1000 - 300 * lines + 2 * one_batch


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from activations.documents import make_documents
from perimetry.activations.model import tiny_language_model
from perimetry.activations.store import HarvestConfig, harvest
config = HarvestConfig(tokens=8000, context=24, batch_rows=3, shard_tokens=300, seed=4)
harvest(tiny_language_model(), [0, 2], make_documents(300), Path(sys.argv[1]), config)
"""


@pytest.mark.slow
def test_killed_at_random_moments_in_another_process(tmp_path):
    rng = random.Random(0)

    def start(path: Path) -> subprocess.Popen:
        tests = str(Path(__file__).parents[1])
        return subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path), tests], env=os.environ | {"OMP_NUM_THREADS": "1"}
        )

    assert start(tmp_path / "whole").wait() == 0
    kills = 0
    for _ in range(2):
        child = start(tmp_path / "killed")
        before = len(list((tmp_path / "killed").rglob("shard-*")))
        wanted = before + rng.randint(3, 20)
        while child.poll() is None and len(list((tmp_path / "killed").rglob("shard-*"))) < wanted:
            time.sleep(0.001)
        child.kill()
        kills += child.wait() == -signal.SIGKILL
    assert kills >= 1
    assert start(tmp_path / "killed").wait() == 0
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


def test_a_full_disk_is_named_and_what_was_written_stays(tiny_lm, documents, finished, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        count_writes(patch, 9, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(StorageFull, match=r"no space left while writing .*run the same command again"):
            harvest(tiny_lm, 1, documents, tmp_path / "s", CONFIG)
    assert not [p for p in (tmp_path / "s").iterdir() if p.name.startswith(".tmp-")]
    assert (tmp_path / "s" / "shard-00000.safetensors").is_file()
    harvest(tiny_lm, 1, documents, tmp_path / "s", CONFIG)
    assert files_of(tmp_path / "s") == files_of(finished)


def test_space_is_asked_for_before_the_work_starts(tiny_lm, documents, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "free_bytes", lambda path: 1000)
    monkeypatch.setattr("perimetry.activations.store.fit_policies", None)
    with pytest.raises(StorageFull, match=r"the harvest needs .* MB under .*free some space"):
        harvest(tiny_lm, 1, documents, tmp_path / "s", CONFIG)


def test_a_torn_shard_and_a_torn_line_are_done_again(tiny_lm, documents, finished, tmp_path, monkeypatch):
    def work():
        count_writes(monkeypatch, 13)
        harvest(tiny_lm, 1, documents, tmp_path / "s", CONFIG)

    assert in_a_child(work) == -signal.SIGKILL
    path = tmp_path / "s"
    lines = (path / "shards.jsonl").read_text().splitlines(keepends=True)
    last = path / f"shard-{len(lines) - 1:05d}.safetensors"
    data = bytearray(last.read_bytes())
    data[-5] ^= 1
    last.write_bytes(data)
    (path / "shards.jsonl").write_text("".join(lines) + '{"file": "shard-000')
    harvest(tiny_lm, 1, documents, path, CONFIG)
    assert files_of(path) == files_of(finished)


def test_another_harvest_in_the_same_folder_is_refused(tiny_lm, documents, finished, tmp_path):
    with pytest.raises(Incompatible, match="holds another harvest: config differ"):
        harvest(tiny_lm, 1, documents, finished, CONFIG.model_copy(update={"tokens": 900}))
    with pytest.raises(Incompatible, match="holds another harvest: documents differ"):
        harvest(tiny_lm, 1, documents[1:], finished, CONFIG)
    with pytest.raises(Incompatible, match="hook, layer differ"):
        harvest(tiny_lm, 2, documents, finished, CONFIG)
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(Incompatible, match=r"holds 'letter\.txt' and is no activation store"):
        harvest(tiny_lm, 1, documents, tmp_path, CONFIG)


def test_two_harvests_into_one_folder(tiny_lm, documents, tmp_path):
    with storage.lock(tmp_path / "s"), pytest.raises(Locked, match=f"process {os.getpid()} is writing"):
        harvest(tiny_lm, 1, documents, tmp_path / "s", CONFIG)


def test_nan_activations_stop_the_harvest_with_their_place(tiny_lm, documents, tmp_path):
    hook = tiny_lm.blocks[0].register_forward_hook(lambda m, i, o: o * float("nan"))
    try:
        with pytest.raises(NonFinite, match=r"block 1 are NaN or infinite in document 'd\d+' at position 1;"):
            harvest(tiny_lm, 1, documents, tmp_path / "s", CONFIG)
    finally:
        hook.remove()
    assert not (tmp_path / "s" / "manifest.json").exists()


def test_a_wrong_layer_or_context_is_refused(tiny_lm, documents, tmp_path):
    with pytest.raises(ConfigError, match="layer 7"):
        harvest(tiny_lm, 7, documents, tmp_path / "s", CONFIG)
    with pytest.raises(ConfigError, match="rows of 4000 tokens"):
        harvest(tiny_lm, 1, documents, tmp_path / "t", CONFIG.model_copy(update={"context": 4000}))


def test_the_estimate_is_the_size_and_the_measured_time(tiny_lm, documents, finished):
    ticks = iter([10.0, 12.0])
    found = estimate(tiny_lm, 1, documents, CONFIG, clock=lambda: next(ticks))
    rows = list(pack(documents, tiny_lm, TokenPolicy(), 24))[:3]
    assert found.tokens_per_second == sum(sum(r.countable) for r in rows) / 2.0
    assert found.seconds == pytest.approx(1000 / found.tokens_per_second)
    real = sum(p.stat().st_size for p in finished.glob("shard-*"))
    assert found.bytes == 1000 * (2 * 32 + 12)
    assert found.bytes <= real <= found.bytes + 4 * 2000
    assert estimate(tiny_lm, [0, 1], documents, CONFIG, clock=iter([0.0, 1.0]).__next__).bytes == 2 * found.bytes
    with pytest.raises(TooFewSamples, match="hold no token"):
        estimate(tiny_lm, 1, [Doc("a", "")], CONFIG)


def test_progress_goes_to_stderr_on_demand_only(tiny_lm, tmp_path, capsys):
    config = CONFIG.model_copy(update={"tokens": 100})
    harvest(tiny_lm, 1, make_documents(10), tmp_path / "a", config)
    assert capsys.readouterr() == ("", "")
    harvest(tiny_lm, 1, make_documents(10), tmp_path / "b", config, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "harvest" in err
