import os
import signal

import pytest
import torch
from tests.activations.test_store import CONFIG, files_of
from tests.worlds import in_a_child

from perimetry.activations import store as store_module
from perimetry.activations.aligned import AlignedStores
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.shards import ActivationStore
from perimetry.activations.site import Site
from perimetry.activations.store import harvest
from perimetry.errors import Incompatible, TooFewSamples

SITES = [Site(1), Site(0, "mlp_out")]
# A low ratio makes other tokens sinks at each place, so that alignment has something to do.
TIGHT = CONFIG.model_copy(update={"policy": TokenPolicy(sink_ratio=1.2)})


@pytest.fixture(scope="module")
def stores(tiny_lm, documents, tmp_path_factory):
    return harvest(tiny_lm, SITES, documents, tmp_path_factory.mktemp("a"), TIGHT, aligned=True)


def test_row_i_is_the_same_token_everywhere(stores, tiny_lm, documents, tmp_path):
    assert list(stores) == sorted(SITES, key=lambda site: site.depth)
    one, other = (stores[site] for site in SITES)
    ids = torch.arange(len(one))
    assert len(one) == len(other)
    assert torch.equal(one.tokens(ids), other.tokens(ids))
    assert torch.equal(one.positions(ids), other.positions(ids))
    assert one.documents(ids) == other.documents(ids)
    apart = harvest(tiny_lm, SITES, documents, tmp_path, TIGHT)
    assert any(not torch.equal(apart[site].tokens(ids[:500]), stores[site].tokens(ids[:500])) for site in SITES), (
        "without alignment the rows are others"
    )


def test_rows_batches_and_pairs_stand_side_by_side(stores):
    both = AlignedStores([stores[site] for site in SITES])
    assert len(both) == len(stores[SITES[0]])
    batch = next(both.batches(64, seed=3, start_step=2))
    for n, site in enumerate(SITES):
        part = slice(32 * n, 32 * n + 32)
        assert torch.equal(batch[:, part], next(stores[site].batches(64, seed=3, start_step=2)))
        assert torch.equal(next(both.pairs(10, 1))[:, part], next(stores[site].pairs(10, 1)))


def test_stores_of_other_rows_are_refused(stores, tiny_lm, documents, tmp_path):
    apart = harvest(tiny_lm, SITES, documents, tmp_path, TIGHT)
    with pytest.raises(Incompatible, match=r"is not the token of row i of .* \(they were harvested apart\)"):
        AlignedStores([apart[site] for site in SITES])
    with pytest.raises(Incompatible, match=r"\(aligned\); harvest both in one call, aligned"):
        AlignedStores([stores[SITES[0]], apart[SITES[1]]])
    with pytest.raises(TooFewSamples, match="no stores"):
        AlignedStores([])
    with pytest.raises(Incompatible, match="holds another harvest: aligned differ"):
        harvest(tiny_lm, SITES, documents, stores[SITES[0]].path.parent, TIGHT)


def test_killed_between_the_stores_it_ends_with_the_same_bytes(stores, tiny_lm, documents, tmp_path):
    def work() -> None:
        real, left = store_module.StoreWriter.write, [3]

        def write(self, piece):
            real(self, piece)
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

        store_module.StoreWriter.write = write
        harvest(tiny_lm, SITES, documents, tmp_path, TIGHT, aligned=True)

    assert in_a_child(work) == -signal.SIGKILL
    again = harvest(tiny_lm, SITES, documents, tmp_path, TIGHT, aligned=True)
    for site, store in again.items():
        assert isinstance(store, ActivationStore)
        assert files_of(tmp_path / str(site)) == files_of(stores[site].path)
