"""LxmertConfig: every published field and default, JSON both ways, each wrong value named."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import transformers

from lxmert_export.errors import ConfigError
from lxmert_export.spec.config import FIELD_TYPES, LxmertConfig

pytestmark = pytest.mark.quick

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


def test_every_published_field_is_known_and_has_its_published_default() -> None:
    for name, value in COMMON.items():
        assert name == "model_type" or (name in FIELD_TYPES and getattr(LxmertConfig(), name) == value), name


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


def test_what_transformers_writes(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {
        "l_layers": 3,
        "num_qa_labels": 17,
        "hidden_size": 48,
        "num_attention_heads": 6,
        "task_matched": False,
    }
    others: dict[str, Any] = {"output_attentions": True, "id2label": {0: "yes", 1: "no"}}
    theirs = transformers.LxmertConfig(**sizes, **others)
    theirs.save_pretrained(tmp_path)
    for config in (LxmertConfig.from_pretrained(tmp_path), LxmertConfig.from_dict(theirs.to_dict())):
        assert {name: getattr(config, name) for name in sizes} == sizes
        assert config.output_attentions
        assert config.extra["transformers_version"] == transformers.__version__
        known = {name: getattr(theirs, name) for name in FIELD_TYPES if name != "layer_norm_eps"}
        assert {name: getattr(config, name) for name in known} == known
    assert LxmertConfig.from_pretrained(tmp_path).extra["id2label"] == {"0": "yes", "1": "no"}


def test_unknown_fields_come_back_as_they_came(tmp_path: Path) -> None:
    unknown = {"labels": ["no", "yes"], "nested": {"deep": [1, {"er": None}]}, "pad_token_id": None}
    config = LxmertConfig.from_dict(unknown)
    assert config.extra == unknown
    config.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert {name: written[name] for name in unknown} == unknown
    assert LxmertConfig.from_pretrained(tmp_path) == config


def test_the_layer_dict_alone_gives_the_counts() -> None:
    config = LxmertConfig.from_dict({"num_hidden_layers": {"language": 4, "cross_encoder": 3, "vision": 2}})
    assert (config.l_layers, config.x_layers, config.r_layers) == (4, 3, 2)
    assert LxmertConfig.from_dict({"num_hidden_layers": {"vision": 2}}).to_dict()["num_hidden_layers"] == {
        "language": 9, "cross_encoder": 5, "vision": 2,
    }  # fmt: skip


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.json: cannot be read"):
        LxmertConfig.from_json_file(tmp_path / "absent.json")


def test_a_wrong_field_of_a_file_names_file_and_field(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"hidden_size": "768"}')
    with pytest.raises(ConfigError, match=r"config\.json: hidden_size must be int, not '768'"):
        LxmertConfig.from_json_file(tmp_path / "config.json")


def test_a_copy_is_checked_like_a_new_one() -> None:
    assert LxmertConfig().replace(num_qa_labels=3).num_qa_labels == 3
    with pytest.raises(ConfigError, match=r"^num_qa_labels must be positive"):
        LxmertConfig().replace(num_qa_labels=0)


def test_sizes_that_follow_from_others() -> None:
    config = LxmertConfig(hidden_size=60, num_attention_heads=5)
    assert config.head_size == 12
    assert config.visual_losses == ("obj", "attr", "feat")
    assert [config.visual_target_size(target) for target in config.visual_losses] == [1600, 400, 2048]
    assert config.replace(task_obj_predict=False).visual_losses == ()


def test_the_old_revision_with_invalid_json_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"hidden_size": 768, output_attentions: true}')
    with pytest.raises(ConfigError, match=re.escape(f"{file}: cannot be read as JSON")):
        LxmertConfig.from_json_file(file)


@pytest.mark.parametrize("text", ["[]", "3", '"lxmert"'])
def test_json_must_be_an_object(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match="must be a JSON object"):
        LxmertConfig.from_json_file(tmp_path / "config.json")


@pytest.mark.parametrize("name", FIELD_TYPES)
def test_a_wrong_type_names_its_field(name: str) -> None:
    wrong: Any = 7 if FIELD_TYPES[name] is str else "seven"
    with pytest.raises(ConfigError, match=f"^{name} must be"):
        LxmertConfig.from_dict({name: wrong})


NUMBERS = [name for name, kind in FIELD_TYPES.items() if kind in (int, float)]
MAY_BE_ZERO = {"l_layers", "r_layers", "hidden_dropout_prob", "attention_probs_dropout_prob"}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_wrong_range_names_its_field(name: str) -> None:
    wrong: list[object] = [-1, True, None, float("nan"), float("inf"), [1]]
    wrong += [] if name in MAY_BE_ZERO else [0]
    wrong += [1.0, 1, 1.5] if name.endswith("_prob") else []
    wrong += [2.0] if FIELD_TYPES[name] is int else []
    for value in wrong:
        with pytest.raises(ConfigError, match=f"^{name} must be"):
            LxmertConfig.from_dict({name: value})
    if name in MAY_BE_ZERO:
        assert getattr(LxmertConfig.from_dict({name: 0}), name) == 0


@pytest.mark.parametrize("value", [0, 1, None, "true"])
@pytest.mark.parametrize("name", [name for name, kind in FIELD_TYPES.items() if kind is bool])
def test_a_switch_is_true_or_false_and_nothing_else(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{name} must be bool"):
        LxmertConfig.from_dict({name: value})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": 30, "num_attention_heads": 4}, "not a multiple"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"model_type": "bert"}, "another model's config"),
        ({"l_layers": 2, "num_hidden_layers": {"language": 3}}, "num_hidden_layers says 3"),
        ({"num_hidden_layers": {"vision": "five"}}, "^r_layers must be int, not 'five'"),
    ],
)
def test_contradictions(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LxmertConfig.from_dict(values)


def test_an_integer_serves_as_a_float_and_as_a_plain_layer_count() -> None:
    config = LxmertConfig.from_dict({"hidden_dropout_prob": 0, "num_hidden_layers": 12})
    assert config.hidden_dropout_prob == 0
    assert json.dumps(config.to_dict())
