"""The bugs of the implementations before us, one test each: they do not exist here."""

from __future__ import annotations

import pytest
import torch

from lxmert_export.model.lxmert import attention_probabilities
from lxmert_export.model.outputs import LxmertForPreTrainingOutput
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import task_signature
from parity_tests.fixtures.random_models import SMALL, lively_inputs, lively_labels, lively_model

F64 = torch.float64


def test_1_a_call_can_switch_off_the_attentions_that_the_config_switches_on() -> None:
    model = lively_model("model", SMALL.replace(output_attentions=True))
    assert model(**lively_inputs()).language_attentions is not None
    output = model(**lively_inputs(), output_attentions=False)  # upstream: IndexError
    assert output.language_attentions is None


def test_2_inputs_embeds_go_with_obj_labels() -> None:
    model, inputs = lively_model("pretraining"), lively_inputs()
    embeds = model.get_input_embeddings()(inputs.pop("input_ids"))
    output = model(**inputs, inputs_embeds=embeds, **lively_labels())  # upstream: AttributeError
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
    objects = {"obj_labels": lively_labels()["obj_labels"]}
    assert lively_model("pretraining", features_only)(**lively_inputs(), **objects).loss > 0


def test_5_visual_mask_has_the_objects_length() -> None:
    inputs = lively_inputs()
    assert inputs["input_ids"].shape[1] != inputs["visual_feats"].shape[1]
    shown = lively_model("model")(**inputs).pooled_output  # TFLxmert: reshaped with the text's length
    unmasked = lively_model("model")(**{**inputs, "visual_attention_mask": torch.ones(3, 5)}).pooled_output
    assert not torch.allclose(shown, unmasked)


def test_6_ignored_labels_and_confidences_count_one_by_one() -> None:
    """TFLxmert raises on -100, and multiplies the summed visual loss by the mean confidence."""
    model = lively_model("pretraining", SMALL.replace(visual_attr_loss=False, visual_feat_loss=False))
    classes, confidence = torch.full((3, 5), -100), torch.tensor([[1.0, 0.0, 0.0, 1.0, 0.0]] * 3)
    classes[:, :3] = 1  # objects 0 to 2 have a class, objects 0 and 3 are sure: object 0 alone counts
    output = model(**lively_inputs(), obj_labels={"obj": (classes, confidence)}, output_object_heads=True)
    first = -output.object_logits[:, 0].log_softmax(-1)[:, 1]
    torch.testing.assert_close(output.loss, first.sum() / 15 * 6.67)


def test_7_softmax_is_exact() -> None:
    """TFLxmert's adds 1e-9 to every score, to please XLA."""
    query, key = torch.zeros(1, 1, 1, 4, dtype=F64), torch.zeros(1, 1, 3, 4, dtype=F64)
    query[..., 0], key[..., 0] = 2.0, torch.tensor([1e-12, 0.0, 0.0])
    found = attention_probabilities(query, key, None, 0.0)
    assert (found[0, 0, 0, 0] - found[0, 0, 0, 1]).item() == pytest.approx(1e-12 / 3, rel=1e-3)
    assert found.sum().item() == pytest.approx(1.0, rel=1e-15)


def test_8_visual_pos_dim_may_differ_from_4() -> None:
    config = SMALL.replace(visual_pos_dim=6)
    assert lively_model("model", config)(**lively_inputs(config)).vision_output.shape == (3, 5, 32)
    assert task_signature(config, "model").input("visual_pos").axes == ("batch", "objects", 6)


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


def test_12_a_misspelled_or_old_argument_is_refused() -> None:
    model, words = lively_model("pretraining"), lively_labels()["labels"]
    with pytest.raises(TypeError, match="masked_lm_labels"):  # transformers 5 swallows it: no loss, no word
        model(**lively_inputs(), masked_lm_labels=words)


def test_13_layer_norm_eps_of_a_config_made_in_python_is_obeyed() -> None:
    """transformers' PyTorch model has 1e-12 written in, its TensorFlow model reads the config."""
    outputs = [lively_model("model", SMALL.replace(layer_norm_eps=eps))(**lively_inputs()) for eps in (1e-12, 1e-2)]
    assert (outputs[0].pooled_output - outputs[1].pooled_output).abs().max() > 1e-3


def test_14_resizing_the_words_resizes_the_bias_of_their_scores() -> None:
    model = lively_model("pretraining")  # transformers until 4.30: the next forward fails
    model.resize_token_embeddings(160)
    assert model(**lively_inputs()).prediction_logits.shape == (3, 7, 160)


def test_15_resized_answers_keep_the_dtype() -> None:
    model = lively_model("question-answering").double()
    model.resize_num_qa_labels(4)  # transformers: a float32 layer in a float64 model
    assert model(**lively_inputs(dtype=F64)).question_answering_score.shape == (3, 4)


@pytest.mark.parametrize("attentions", [False, True], ids=["fused", "explicit"])
def test_16_masks_do_not_overflow_in_half_precision(attentions: bool) -> None:
    """finfo.min plus a score below −16 is −inf in fp16, and a row of −inf is NaN; −10000 is neither."""
    model, inputs = lively_model("model").half(), lively_inputs(dtype=torch.float16)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("query.weight", "key.weight")):
                weight *= 4
    inputs["attention_mask"][1], inputs["visual_attention_mask"][2] = 0, 0
    assert all(part.isfinite().all() for part in model(**inputs, output_attentions=attentions)[:3])


def test_17_losses_are_added_up_in_their_own_precision() -> None:
    """transformers adds them to a float32 zero in place."""
    model = lively_model("pretraining").double()
    loss = model(**lively_inputs(dtype=F64), **lively_labels(dtype=F64)).loss
    assert loss.dtype == F64 and loss != loss.float()


def test_18_no_layer_count_hides_in_a_plain_integer() -> None:
    """Generic tools write ``num_hidden_layers`` as one number, which says nothing of three encoders."""
    config = LxmertConfig.from_dict({"num_hidden_layers": 12, "l_layers": 3})
    assert (config.l_layers, config.x_layers, config.r_layers) == (3, 5, 5)
