"""LxmertConfig: every published field and default, JSON both ways, each wrong value named."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import transformers

from lxmert_export.config import FIELD_TYPES, LxmertConfig
from lxmert_export.errors import ConfigError

COMMON = {
    "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 768,
    "initializer_range": 0.02, "intermediate_size": 3072, "l_layers": 9, "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512, "model_type": "lxmert", "num_attention_heads": 12, "num_attr_labels": 400,
    "num_object_labels": 1600, "r_layers": 5, "task_mask_lm": True, "task_matched": True, "task_obj_predict": True,
    "task_qa": True, "type_vocab_size": 2, "visual_attr_loss": True, "visual_feat_dim": 2048, "visual_feat_loss": True,
    "visual_loss_normalizer": 6.67, "visual_obj_loss": True, "visual_pos_dim": 4, "vocab_size": 30522, "x_layers": 5,
}  # fmt: skip
LAYERS = {"cross_encoder": 5, "language": 9, "vision": 5}
# What the config.json files on the hub say (Graphcore's are fp16 twins of the VQA and GQA ones).
PUBLISHED: dict[str, dict[str, Any]] = {
    "unc-nlp/lxmert-base-uncased": {**COMMON, "architectures": ["LxmertModel"], "num_qa_labels": 9500},
    "unc-nlp/lxmert-vqa-uncased": {
        **COMMON, "architectures": ["LxmertForQuestionAnswering"], "num_qa_labels": 3129, "num_hidden_layers": LAYERS,
    },
    "unc-nlp/lxmert-gqa-uncased": {
        **COMMON, "architectures": ["LxmertForQuestionAnswering"], "num_qa_labels": 1842, "num_hidden_layers": LAYERS,
    },
    "Graphcore/lxmert-vqa-uncased": {
        **COMMON, "architectures": ["PoptorchPipelinedLxmertForQuestionAnswering"], "num_qa_labels": 3129,
        "_name_or_path": "x", "torch_dtype": "float16", "num_hidden_layers": LAYERS,
    },
}  # fmt: skip


def test_defaults_are_transformers_defaults() -> None:
    theirs = transformers.LxmertConfig()
    for field in fields(LxmertConfig):
        if field.name not in ("extra", "layer_norm_eps"):  # 5.23 has dropped the latter, and hard-codes its value
            assert getattr(LxmertConfig(), field.name) == getattr(theirs, field.name), field.name
    assert LxmertConfig().layer_norm_eps == 1e-12


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_read_and_write_back(name: str) -> None:
    values = PUBLISHED[name]
    config = LxmertConfig.from_dict(values)
    assert config.num_qa_labels == values["num_qa_labels"]
    assert config.extra.get("architectures") == values["architectures"]
    written = config.to_dict()
    assert {**written, **values} == written  # nothing lost, nothing changed
    assert written["num_hidden_layers"] == LAYERS
    assert LxmertConfig.from_dict(written) == config


def test_json_both_ways(tmp_path: Path) -> None:
    config = LxmertConfig(l_layers=3, visual_pos_dim=6, return_dict=False, extra={"labels": {"0": "yes"}})
    config.save_pretrained(tmp_path / "made")
    assert LxmertConfig.from_pretrained(tmp_path / "made") == config
    assert LxmertConfig.from_json_file(tmp_path / "made" / "config.json") == config


def test_transformers_reads_what_we_write(tmp_path: Path) -> None:
    LxmertConfig(l_layers=3, num_qa_labels=17).save_pretrained(tmp_path)
    theirs = transformers.LxmertConfig.from_pretrained(tmp_path)
    assert (theirs.l_layers, theirs.num_qa_labels, theirs.layer_norm_eps) == (3, 17, 1e-12)


def test_the_old_revision_with_invalid_json_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"hidden_size": 768, output_attentions: true}')
    with pytest.raises(ConfigError, match="config.json: cannot be read as JSON"):
        LxmertConfig.from_json_file(file)


@pytest.mark.parametrize("text", ["[]", "3", '"lxmert"'])
def test_json_must_be_an_object(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match="object was expected"):
        LxmertConfig.from_json_file(tmp_path / "config.json")


@pytest.mark.parametrize("name", FIELD_TYPES)
def test_a_wrong_type_names_its_field(name: str) -> None:
    wrong: Any = 7 if FIELD_TYPES[name] is str else "seven"
    with pytest.raises(ConfigError, match=f"^{name} must be"):
        LxmertConfig.from_dict({name: wrong})


@pytest.mark.parametrize(
    ("name", "value"),
    [("hidden_size", 0), ("l_layers", -1), ("x_layers", 0), ("hidden_dropout_prob", 1.0), ("layer_norm_eps", 0.0),
     ("visual_feat_dim", True), ("initializer_range", float("nan")), ("visual_loss_normalizer", float("inf"))],
)  # fmt: skip
def test_a_wrong_range_names_its_field(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{name} must be"):
        LxmertConfig.from_dict({name: value})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": 30, "num_attention_heads": 4}, "not a multiple"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"model_type": "bert"}, "another model's config"),
        ({"l_layers": 2, "num_hidden_layers": {"language": 3}}, "num_hidden_layers says 3"),
    ],
)
def test_contradictions(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LxmertConfig.from_dict(values)


def test_an_integer_serves_as_a_float_and_as_a_plain_layer_count() -> None:
    config = LxmertConfig.from_dict({"hidden_dropout_prob": 0, "num_hidden_layers": 12})
    assert config.hidden_dropout_prob == 0
    assert json.dumps(config.to_dict())
