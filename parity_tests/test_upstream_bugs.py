"""The bugs of the implementations before us, one test each: they do not exist here."""

from __future__ import annotations

import torch

from lxmert_export.config import LxmertConfig
from lxmert_export.outputs import LxmertForPreTrainingOutput
from lxmert_export.signature import task_signature
from parity_tests.random_models import SMALL, lively_inputs, lively_model


def labels(config: LxmertConfig = SMALL, ignored: int = -100) -> dict[str, object]:
    confidence = torch.full((3, 5), 0.5)
    return {
        "labels": torch.full((3, 7), ignored).index_fill(1, torch.tensor([1, 2]), 5),
        "matched_label": torch.tensor([1, 0, 1]),
        "ans": torch.tensor([1, ignored, 3]),
        "obj_labels": {
            "obj": (torch.full((3, 5), ignored).index_fill(1, torch.tensor([0]), 2), confidence),
            "attr": (torch.zeros(3, 5, dtype=torch.long), confidence),
            "feat": (torch.zeros(3, 5, config.visual_feat_dim), confidence),
        },
    }


def test_1_a_call_can_switch_off_the_attentions_that_the_config_switches_on() -> None:
    model = lively_model("model", SMALL.replace(output_attentions=True))
    assert model(**lively_inputs()).language_attentions is not None
    output = model(**lively_inputs(), output_attentions=False)  # upstream: IndexError
    assert output.language_attentions is None


def test_2_inputs_embeds_go_with_obj_labels() -> None:
    model, inputs = lively_model("pretraining"), lively_inputs()
    embeds = model.get_input_embeddings()(inputs.pop("input_ids"))
    output = model(**inputs, inputs_embeds=embeds, **labels())  # upstream: AttributeError
    assert torch.isfinite(output.loss)


def test_3_embeddings_can_be_called_without_token_types() -> None:
    embeddings = lively_model("model").embeddings
    words = torch.randn(2, 3, SMALL.hidden_size)
    zeros = torch.zeros(2, 3, dtype=torch.long)
    assert torch.equal(embeddings(words, None), embeddings(words, zeros))  # upstream: missing position_ids


def test_4_feature_loss_is_switched_by_its_own_flag() -> None:
    features_only = SMALL.replace(visual_obj_loss=False, visual_attr_loss=False)
    assert features_only.visual_losses == ("feat",)  # upstream until 4.20: switched by visual_obj_loss
    assert SMALL.replace(visual_feat_loss=False).visual_losses == ("obj", "attr")
    assert torch.isfinite(lively_model("pretraining", features_only)(**lively_inputs(), **labels()).loss)


def test_5_visual_mask_has_the_objects_length() -> None:
    inputs = lively_inputs()
    assert inputs["input_ids"].shape[1] != inputs["visual_feats"].shape[1]
    shown = lively_model("model")(**inputs).pooled_output  # TFLxmert: reshaped with the text's length
    unmasked = lively_model("model")(**{**inputs, "visual_attention_mask": torch.ones(3, 5)}).pooled_output
    assert not torch.allclose(shown, unmasked)


def test_6_ignored_labels_and_confidences_count_one_by_one() -> None:
    """TFLxmert raises on -100, and multiplies the summed visual loss by the mean confidence."""
    model, confidence = lively_model("pretraining"), torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0]] * 3)
    inputs = lively_inputs()
    only_first = {"obj": (torch.ones(3, 5, dtype=torch.long), confidence)}
    model.config = model.config.replace(visual_attr_loss=False, visual_feat_loss=False)
    del model.object_head.targets["attr"], model.object_head.targets["feat"]
    output = model(**inputs, obj_labels=only_first, output_object_heads=True)
    per_object = torch.nn.functional.cross_entropy(output.object_logits[:, 0], torch.ones(3, dtype=torch.long), reduction="sum")
    torch.testing.assert_close(output.loss, per_object / 15 * 6.67)


def test_7_softmax_is_exact() -> None:
    attention = lively_model("model").double()(
        **{n: t.double() if t.is_floating_point() else t for n, t in lively_inputs().items()}, output_attentions=True
    ).language_attentions[0]  # fmt: skip
    torch.testing.assert_close(attention.sum(-1), torch.ones(3, 4, 7, dtype=torch.float64), rtol=0, atol=1e-14)


def test_8_visual_pos_dim_may_differ_from_4() -> None:
    config = SMALL.replace(visual_pos_dim=6)
    assert lively_model("model", config)(**lively_inputs(config)).vision_output.shape == (3, 5, 32)


def test_9_masks_and_types_are_optional_and_ids_64_bit() -> None:
    signature = task_signature(SMALL, "model")
    optional = {spec.name for spec in signature.inputs if spec.optional}
    assert optional == {"attention_mask", "token_type_ids", "visual_attention_mask"}
    assert signature.input("input_ids").dtype == "int64"


def test_10_a_head_that_is_off_is_none_not_a_zero_dimensional_tensor() -> None:
    output = lively_model("pretraining", SMALL.replace(task_qa=False))(**lively_inputs())
    assert isinstance(output, LxmertForPreTrainingOutput)
    assert output.question_answering_score is None


def test_11_num_hidden_layers_reads_as_a_dict() -> None:
    counts = {"language": 4, "cross_encoder": 3, "vision": 2}
    config = LxmertConfig.from_dict({"num_hidden_layers": counts})
    assert (config.l_layers, config.x_layers, config.r_layers) == (4, 3, 2)
    assert config.to_dict()["num_hidden_layers"] == counts
