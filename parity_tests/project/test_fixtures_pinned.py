"""The golden files are what the original programs wrote: never regenerated, never touched."""

from __future__ import annotations

import pytest

from lxmert_export.files.hashing import sha256
from parity_tests.fixtures.golden_files import GOLDEN

pytestmark = pytest.mark.quick

PINNED = {
    "original/nlvr2/BEST.pth": "382219afb87eabb78270a8cb3132ed1cf8e8003be15186c14c569170dd293764",
    "original/nlvr2/config.json": "703bcfe9799d12a06a1fa8cae362d6632709941424c86ed7aa32a56d1b45d5ef",
    "original/nlvr2/inputs.safetensors": "b22478f4a530c21ca133e9981690f89da92ca035cf5c44f30f20e5b3b9709fe0",
    "original/nlvr2/outputs.safetensors": "b27f7419ec9781b9d43c1f687844d6caf9390b7642d25b3d89da8c3ac732e79d",
    "original/pretraining/config.json": "662fa6803ab119a42ddf827b294304d3b1545061c73869386cb9d80dbbda84e8",
    "original/pretraining/inputs.safetensors": "4814e6c0540df0da0d0ad96aed8d25145706dec5335e7d444f46b25ff84a9061",
    "original/pretraining/model_LXRT.pth": "1b2e58c63ed31b80088ad7f1fbe43808ea74a9ca612e8731846009a3ae131cfe",
    "original/pretraining/outputs.safetensors": "9ece5f127fb97b29ca347856d0013456c6ceaafd33cd0699d14b72f9c92f2530",
    "original/pretraining_dataparallel/config.json": "aeef0e6b6600059b964d53cef607eff8a856537d677a2bb679b259a743d8319e",
    "original/pretraining_dataparallel/inputs.safetensors": "aa92a45f9202dbbbfec61a460313b1bda1772bda44bc5dfe6d5dc5f32a05543d",
    "original/pretraining_dataparallel/model_LXRT.pth": "8a57c27373d680726bb8edb4b632997cee97c2b699e0b70895a643b53db9313d",
    "original/pretraining_dataparallel/outputs.safetensors": "5fbb71af053fef84c8719e8491bcd36770bed8522e5895e3b3a8801da5887bbd",
    "original/vqa/BEST.pth": "085b769797c6c508f58f9bc8388c1a3687bd1e7c8ba8d1858b0a99cb4d948862",
    "original/vqa/config.json": "2ae18617b33ce9100b9763bbaa5eb6c8b1e7b00f0bf1575c88b476a8fca3a0ff",
    "original/vqa/inputs.safetensors": "ce8a64fc716c064b3c38729a2a8fbcecb7fe578a0fe48db60d04315e63c71584",
    "original/vqa/outputs.safetensors": "4daa7e1aae799e7084536fe24f09e19f2a3820205348f3bb419eb6c63373f8a9",
    "scores/gqa/choices.json": "8620e274be2d3306e2c43dda6f85eebd25163223ba9bf40a89f8ae66d001824a",
    "scores/gqa/official.json": "f7592f9f87dbfab089e45fa76dc384e40f7f29b2f6f164c40247a8fa7d431263",
    "scores/gqa/predictions.json": "f3240684e752ac854b351805f79598d8c59eba1b35f642cb09a1da7c8c5038db",
    "scores/gqa/questions.json": "81885dbc47b516a4896605b2d872f7360e53cd149f71a65805f2ea4f7e884d07",
    "scores/nlvr2/labels.jsonl": "b74383a6bf74b07d41ee2023796a2a2343d71f39e406e2ee1b7604d7adf348af",
    "scores/nlvr2/official.json": "7617a8eaa57c0e34fb26e482e10588ca85a0e13ef01de358092497c2a7d2513c",
    "scores/nlvr2/predictions.csv": "757c223a9772151ebf6c89c0e539e66bf30ea84f794eb77149d889f7a9646485",
    "scores/vqa/annotations.json": "4a42938788ab4beacd0731e7d357f2693d0361c252f216d604b1d942c836542f",
    "scores/vqa/official.json": "f6a7efebaf8d717f47d76aa1918be60a952fba1d0d29cb88a778623f936b9801",
    "scores/vqa/questions.json": "dda48c81c6cfcffb21b29ffbde9769313c0becfdbd613c11108dc92563582a34",
    "scores/vqa/results.json": "7b6187febcbe7c134b2ee5a09385565feab62a86110a4cd57d0b3c48bb3a0dc2",
    "scores/vqa/words.json": "7e1e675c2abab912e3ccc42fd78de7e9d29be07bb71bc6cafc13bd5668a991a5",
    "transformers_4.57.6/config.json": "c4c8dd4da1d3bd472b3e5f8a2deeb89bdec687bd5f4b760e5574e45c468f20dc",
    "transformers_4.57.6/inputs.safetensors": "31f4c1fd80733c03277e2df60b41b74a91076942e7672814874970e53e022bbd",
    "transformers_4.57.6/outputs.safetensors": "b9cdd64566d8c9d3a188041ca14ffd47cd143ce6c6f91e9f08cee91d862590b9",
    "transformers_4.57.6/pytorch_model.bin": "6b2adba3d1052215a3c3c8763db57a038dfa3d5d797529c759cd3e63a4f40fd5",
    "transformers_4.57.6/tf_model.h5": "666e10bd48038bf5c9463b4b1a97b214cba01e8041c1ae3f120b7d63d8bab88d",
}


def test_golden_files_are_untouched() -> None:
    found = {path.relative_to(GOLDEN).as_posix(): sha256(path) for path in GOLDEN.rglob("*") if path.is_file()}
    assert found == PINNED
