"""What a call returns, and what both tokenizers are as Python objects."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from lxmert_export.errors import InputError, MissingExtra
from lxmert_export.tokenizer.fast import LxmertTokenizerFast
from lxmert_export.tokenizer.pure import LxmertTokenizer
from lxmert_export.tokenizer.word_pieces import CACHED_WORDS, WordPieces
from parity_tests.fixtures.random_models import SMALL, lively_inputs, lively_model
from parity_tests.tokenizer import tokenizer_corpus as corpus
from parity_tests.tokenizer.tokenizer_recording import VOCABULARY

Ours = LxmertTokenizerFast | LxmertTokenizer


@pytest.fixture(params=[LxmertTokenizerFast, LxmertTokenizer])
def tokenizer(request: pytest.FixtureRequest) -> Ours:
    made: Ours = request.param(VOCABULARY)
    return made


def test_the_result_is_a_dict_with_attributes(tokenizer: Ours) -> None:
    batch = tokenizer("dog", "cat")
    assert isinstance(batch, dict) and list(batch) == ["input_ids", "token_type_ids", "attention_mask"]
    assert batch.input_ids is batch["input_ids"] and "input_ids" in batch
    assert batch.is_fast == tokenizer.is_fast
    assert batch.sequence_ids() == [None, 0, None, 1, None]
    with pytest.raises(AttributeError, match="BatchEncoding has no 'labels'; its fields are input_ids"):
        _ = batch.labels
    with pytest.raises(AttributeError):
        _ = batch.__no_such_name__
    few = tokenizer("dog", return_token_type_ids=False, return_attention_mask=False, return_length=True)
    assert few == {"input_ids": few.input_ids, "length": [3]}


def test_tensors_are_made_later_or_moved(tokenizer: Ours) -> None:
    batch = tokenizer(["dog", "cat"])
    assert batch.convert_to_tensors("np") is batch
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int64)}
    tensors = tokenizer(["dog", "cat"], return_tensors="pt").to(torch.device("meta"))
    assert {tensor.device.type for tensor in tensors.values()} == {"meta"}
    assert tokenizer(["dog"]).convert_to_tensors(None).to("cpu").input_ids == tokenizer(["dog"]).input_ids


def test_pytorch_is_an_extra(tokenizer: Ours, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lxmert_export.tokenizer.batch_encoding.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"return_tensors='pt' needs the extra 'torch': pip install"):
        tokenizer("dog", return_tensors="pt")
    assert tokenizer("dog", return_tensors="np").input_ids.shape == (1, 3)


def test_a_batch_goes_into_the_model(tokenizer: Ours) -> None:
    model = lively_model("question-answering", SMALL)
    inputs = {name: tensor[:2] for name, tensor in lively_inputs(SMALL).items() if name.startswith("visual")}
    texts = ["what color", "dog"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    batch.input_ids %= SMALL.vocab_size
    with torch.no_grad():
        assert model(**batch, **inputs).question_answering_score.shape == (2, SMALL.num_qa_labels)


def test_copies_and_pickles_work_alike(tokenizer: Ours) -> None:
    texts = corpus.strings(300)
    wanted = tokenizer(texts, padding=True)
    for other in (pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer), copy.copy(tokenizer)):
        assert other(texts, padding=True) == wanted and other.settings == tokenizer.settings
    again = pickle.loads(pickle.dumps(wanted))
    assert again == wanted and again.sequence_ids(7) == wanted.sequence_ids(7)


def test_calls_do_not_disturb_one_another(tokenizer: Ours) -> None:
    """Threads that pad and cut differently: no call leaves settings behind, in the Rust tokenizer either."""
    texts = corpus.strings(200)
    wanted = {
        length: tokenizer(texts, padding="max_length", truncation=True, max_length=length) for length in range(5, 25)
    }

    def call(number: int) -> bool:
        length = 5 + number % 20
        return bool(tokenizer(texts, padding="max_length", truncation=True, max_length=length) == wanted[length])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(call, range(60)))


def test_text_of_other_types(tokenizer: Ours) -> None:
    class Name(str):
        pass

    assert tokenizer(Name("dog")).input_ids == tokenizer("dog").input_ids
    assert tokenizer(("dog", "cat")).input_ids == tokenizer(["dog", "cat"]).input_ids
    assert tokenizer(["dog", ("dog", "cat")]).input_ids == [
        tokenizer("dog").input_ids,
        tokenizer("dog", "cat").input_ids,
    ]
    assert tokenizer([["dog", "cat"]], is_split_into_words=True).input_ids == [tokenizer("dog cat").input_ids]
    assert tokenizer([], is_split_into_words=True).input_ids == [101, 102]
    with pytest.raises(InputError, match="the text is ndarray, not str"):
        tokenizer(np.array(["dog"]))  # type: ignore[arg-type]


def test_ids_of_other_types(tokenizer: Ours) -> None:
    ids = tokenizer.encode("what color is the dog?")
    wanted = tokenizer.decode(ids)
    for other in (
        tuple(ids),
        np.array(ids),
        np.array(ids, np.int32),
        torch.tensor(ids),
        iter(ids),
        [np.int64(i) for i in ids],
    ):
        assert tokenizer.decode(other) == wanted
    assert tokenizer.decode(np.int64(103)) == tokenizer.decode(torch.tensor(103)) == "[MASK]"
    assert tokenizer.batch_decode(np.array([ids, ids]), True) == [tokenizer.decode(ids, True)] * 2
    assert tokenizer.decode([]) == ""


def test_it_says_what_it_is(tokenizer: Ours) -> None:
    assert repr(tokenizer).startswith(f"{type(tokenizer).__name__}(2478 tokens, TokenizerSettings(do_lower_case=True")
    assert bool(tokenizer) and len(tokenizer) == tokenizer.vocab_size == 2478
    tokenizer.get_vocab().clear()  # a copy
    assert len(tokenizer.get_vocab()) == 2478


def test_the_words_that_are_remembered_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CACHED_WORDS == 50_000
    monkeypatch.setattr("lxmert_export.tokenizer.word_pieces.CACHED_WORDS", 10)
    tokenizer: Any = LxmertTokenizer(VOCABULARY)
    pieces: WordPieces = tokenizer._word_pieces
    for i in range(100):
        pieces.tokenize(f"{i} a{i}")
        assert len(pieces._pieces) <= 10
