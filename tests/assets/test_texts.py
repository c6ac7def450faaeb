import zipfile
from pathlib import Path

import pytest
import zstandard

from perimetry.assets.documents import Document, read_path
from perimetry.assets.spec import Inputs
from perimetry.assets.texts import prepare_probe_texts, read_rows
from perimetry.errors import CorruptArtifact

CSV = 'prompt,prompt_len,target\r\n"two\nlines, ""quoted""",4,1\r\n   ,1,0\r\nplåin,1,a b\r\n'


def pack(text: str) -> bytes:
    return zstandard.ZstdCompressor().compress(text.encode())


def test_every_data_set_of_the_wheel(tmp_path: Path) -> None:
    raw = tmp_path / "w.whl"
    with zipfile.ZipFile(raw, "w") as wheel:
        wheel.writestr("sae_probes/data/cleaned_data/9_my set.csv.zst", pack(CSV))
        wheel.writestr("sae_probes/data/OOD data/9_my_OOD.csv.zst", pack("Language,Translation\nGerman,Wohnzimmer\n"))
        wheel.writestr("sae_probes/data/probing_datasets_MASTER.csv.zst", pack("a,b\n1,2\n"))
    out = tmp_path / "out"
    out.mkdir()
    prepare_probe_texts(Inputs(raw, {}, tmp_path), out)
    assert list(read_path(out)) == [
        Document("9_my_set/0", 'two\nlines, "quoted"', {"dataset": "9_my_set", "label": "1"}),
        Document("9_my_set/2", "plåin", {"dataset": "9_my_set", "label": "a b"}),
        Document("ood/9_my_OOD/0", "Wohnzimmer", {"dataset": "ood/9_my_OOD", "label": "German"}),
    ]


@pytest.mark.parametrize(
    ("data", "why"), [(b"no zstandard", "x is damaged"), (pack("a,b\n1,2\n"), r"columns \['a', 'b'\], prompt and target")]
)  # fmt: skip
def test_damage_is_told(data: bytes, why: str) -> None:
    with pytest.raises(CorruptArtifact, match=why):
        list(read_rows(data, "x"))
