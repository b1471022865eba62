"""What the canonical model promises beside its numbers: states, attentions, training, resizing, invariances."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lxmert_export.errors import InputError
from lxmert_export.model.lxmert import MODELS, LxmertForPreTraining, LxmertModel, mask_bias
from lxmert_export.spec.signature import TASKS, Task
from parity_tests.fixtures.random_models import SMALL, inputs_for, lively_inputs, lively_labels, lively_model

pytestmark = pytest.mark.quick

F64 = torch.float64


@pytest.fixture
def backbone() -> LxmertModel:
    model = lively_model("model")
    assert isinstance(model, LxmertModel)
    return model.double()


def test_hidden_states_count_layers_without_embeddings(backbone: LxmertModel) -> None:
    output = backbone(**inputs_for("model", F64), output_hidden_states=True)
    assert len(output.language_hidden_states) == SMALL.l_layers + SMALL.x_layers
    assert len(output.vision_hidden_states) == SMALL.r_layers + SMALL.x_layers
    assert torch.equal(output.language_hidden_states[-1], output.language_output)
    assert torch.equal(output.vision_hidden_states[-1], output.vision_output)


@pytest.mark.parametrize("task", TASKS)
def test_config_asks_for_states_attentions_and_tuples(task: Task) -> None:
    """A call's own argument wins, in either direction."""
    asked = {"output_hidden_states": True, "output_attentions": True}
    by_config = lively_model(task, SMALL.replace(**asked, return_dict=False))
    by_call = lively_model(task)
    wanted = by_call(**inputs_for(task), **asked, return_dict=False)
    assert isinstance(by_config(**inputs_for(task)), tuple)
    assert len(by_config(**inputs_for(task))) == len(wanted)
    bare = by_config(**inputs_for(task), **dict.fromkeys(asked, False), return_dict=True)
    assert bare.keys() == by_call(**inputs_for(task)).keys()


@pytest.mark.parametrize("counts", [(0, 1, 0), (3, 1, 2), (1, 3, 1)], ids=str)
def test_any_number_of_layers(counts: tuple[int, int, int]) -> None:
    l_layers, x_layers, r_layers = counts
    config = SMALL.replace(l_layers=l_layers, x_layers=x_layers, r_layers=r_layers)
    output = lively_model("model", config)(**lively_inputs(), output_hidden_states=True, output_attentions=True)
    lengths = [len(value) for value in output[3:]]
    assert lengths == [l_layers + x_layers, r_layers + x_layers, l_layers, r_layers, x_layers]


def test_lower_layers_see_their_own_modality_only(backbone: LxmertModel) -> None:
    inputs = inputs_for("model", F64)
    other_picture = {**inputs, "visual_feats": inputs["visual_feats"] + 1}
    other_words = {**inputs, "input_ids": (inputs["input_ids"] + 1) % SMALL.vocab_size}
    plain, seen, read = (backbone(**i, output_hidden_states=True) for i in (inputs, other_picture, other_words))
    for n, (one, other) in enumerate(zip(plain.language_hidden_states, seen.language_hidden_states, strict=True)):
        assert torch.equal(one, other) == (n < SMALL.l_layers)
    for n, (one, other) in enumerate(zip(plain.vision_hidden_states, read.vision_hidden_states, strict=True)):
        assert torch.equal(one, other) == (n < SMALL.r_layers)


def test_attention_families(backbone: LxmertModel) -> None:
    inputs = inputs_for("model", F64)
    output = backbone(**inputs, output_attentions=True)
    heads = SMALL.num_attention_heads
    assert [a.shape for a in output.language_attentions] == [(3, heads, 7, 7)] * SMALL.l_layers
    assert [a.shape for a in output.vision_attentions] == [(3, heads, 5, 5)] * SMALL.r_layers
    assert [a.shape for a in output.cross_encoder_attentions] == [(3, heads, 7, 5)] * SMALL.x_layers
    unseen = inputs["visual_attention_mask"] == 0
    for attention in output.cross_encoder_attentions:  # language → vision: words share out the objects that are seen
        torch.testing.assert_close(attention.sum(-1), torch.ones_like(attention.sum(-1)))
        assert attention.transpose(1, 3)[unseen].max() < 1e-12


@pytest.mark.parametrize("task", TASKS)
def test_fused_attention_equals_explicit(task: Task) -> None:
    model, inputs = lively_model(task).double(), inputs_for(task, F64)
    fused, explicit = model(**inputs), model(**inputs, output_attentions=True)
    for name, value in fused.items():
        torch.testing.assert_close(value, explicit[name], rtol=1e-12, atol=1e-12)


def test_attention_is_fused_unless_its_probabilities_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Tensor] = []
    fused = nn.functional.scaled_dot_product_attention

    def counting(query: Tensor, *others: Tensor, **options: object) -> Tensor:
        calls.append(query)
        return fused(query, *others, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", counting)
    model, inputs = lively_model("model"), inputs_for("model")
    model(**inputs)
    assert len(calls) == SMALL.l_layers + SMALL.r_layers + 4 * SMALL.x_layers
    model(**inputs, output_attentions=True)
    assert len(calls) == SMALL.l_layers + SMALL.r_layers + 4 * SMALL.x_layers


def test_train_mode_drops_out_and_eval_does_not() -> None:
    model, inputs = lively_model("pretraining"), inputs_for("pretraining")
    for attentions in (False, True):
        once, again = (model.eval()(**inputs, output_attentions=attentions).prediction_logits for _ in range(2))
        assert torch.equal(once, again)
        once, again = (model.train()(**inputs, output_attentions=attentions).prediction_logits for _ in range(2))
        assert not torch.equal(once, again)


@pytest.mark.parametrize("attentions", [False, True], ids=["fused", "explicit"])
@pytest.mark.parametrize("probability", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_each_dropout_has_its_own_probability(probability: str, attentions: bool) -> None:
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    for config, same in ((SMALL.replace(**none), True), (SMALL.replace(**{**none, probability: 0.5}), False)):
        model, inputs = lively_model("model", config).double(), inputs_for("model", F64)
        sound, trained = (model.train(mode)(**inputs, output_attentions=attentions) for mode in (False, True))
        assert torch.equal(sound.language_output, trained.language_output) == same
        assert torch.equal(sound.vision_output, trained.vision_output) == same


@pytest.mark.parametrize("probability", [0.2, 0.6])
def test_attention_dropout_drops_that_share_and_scales_the_rest(probability: float) -> None:
    config = SMALL.replace(hidden_dropout_prob=0.0, attention_probs_dropout_prob=probability)
    model, inputs = lively_model("model", config).train(), inputs_for("model")
    torch.manual_seed(0)
    unmasked = {name: value for name, value in inputs.items() if not name.endswith("mask")}
    drawn = torch.stack([model(**unmasked, output_attentions=True).language_attentions[0] for _ in range(40)])
    sound = model.eval()(**unmasked, output_attentions=True).language_attentions[0].expand_as(drawn)
    dropped = drawn == 0
    assert dropped.float().mean().item() == pytest.approx(probability, abs=0.02)
    torch.testing.assert_close(drawn[~dropped], (sound / (1 - probability))[~dropped])


@pytest.mark.parametrize("task", TASKS)
def test_gradients_reach_every_parameter_in_train_mode(task: Task) -> None:
    torch.manual_seed(0)
    model = lively_model(task).train()
    output = model(**inputs_for(task), **lively_labels(task))
    loss = torch.stack([value.square().mean() for value in output[:3]]).sum() if task == "model" else output.loss
    loss.backward()
    last = f"lxmert.cross_modality_layers.{SMALL.x_layers - 1}.vision_"
    for name, parameter in model.named_parameters():
        if task in ("question-answering", "nlvr2") and name.startswith(last):
            assert parameter.grad is None, name  # the loss reads [CLS] alone: the last vision side leads nowhere
        else:
            assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_training_lowers_the_loss() -> None:
    torch.manual_seed(0)
    model = MODELS["question-answering"](
        SMALL.replace(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    ).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(15):
        loss = model(**inputs_for("question-answering"), labels=torch.tensor([0, 3, 6])).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize(("features", "boxes"), [(8, 4), (16, 6), (3, 1)])
def test_any_visual_width(features: int, boxes: int) -> None:
    config = SMALL.replace(visual_feat_dim=features, visual_pos_dim=boxes)
    output = lively_model("model", config)(**lively_inputs(config))
    assert output.vision_output.shape == (3, 5, SMALL.hidden_size)


@pytest.mark.parametrize("task", TASKS)
def test_layer_norm_eps_is_honoured_in_every_norm(task: Task) -> None:
    model = lively_model(task, SMALL.replace(layer_norm_eps=0.25))
    norms = [part for part in model.modules() if isinstance(part, nn.LayerNorm)]
    assert len(norms) > 10
    for norm in norms:
        hidden = torch.randn(3, *norm.normalized_shape)
        centred = hidden - hidden.mean(-1, keepdim=True)
        by_hand = centred / (centred.square().mean(-1, keepdim=True) + 0.25).sqrt() * norm.weight + norm.bias
        torch.testing.assert_close(norm(hidden), by_hand)


def test_there_are_no_buffers_and_all_parameters_learn() -> None:
    for task in TASKS:
        model = MODELS[task](SMALL)
        assert list(model.buffers()) == []
        assert all(parameter.requires_grad for parameter in model.parameters())


def test_pairs_of_nlvr2_are_two_passes_side_by_side() -> None:
    model, inputs = lively_model("nlvr2").double(), inputs_for("nlvr2", F64)
    pooled = [
        model.lxmert(**{name: value[:, n] if name.startswith("visual") else value for name, value in inputs.items()})
        .pooled_output for n in (0, 1)
    ]  # fmt: skip
    logits = model(**inputs).logits
    torch.testing.assert_close(logits, model.pair_head(torch.cat(pooled, dim=1)), rtol=1e-12, atol=1e-12)
    swapped = {name: value.flip(1) if name.startswith("visual") else value for name, value in inputs.items()}
    assert (model(**swapped).logits - logits).abs().min() > 1e-3


@pytest.mark.parametrize("task", TASKS)
def test_words_may_be_given_as_embeddings(task: Task) -> None:
    model, inputs = lively_model(task).double(), inputs_for(task, F64)
    wanted = model(**inputs)
    embedded = model.get_input_embeddings()(inputs.pop("input_ids"))
    got = model(**inputs, inputs_embeds=embedded)
    assert all(torch.equal(got[name], value) for name, value in wanted.items())


def test_resizing_answers_keeps_the_first_rows() -> None:
    model = lively_model("question-answering")
    before = model.get_qa_logit_layer()
    assert model.resize_num_qa_labels(None) is before
    grown = model.resize_num_qa_labels(12)
    assert torch.equal(grown.weight[:7], before.weight) and torch.equal(grown.bias[:7], before.bias)
    assert grown.weight[7:].std() < 0.05  # N(0, 0.02), not lively
    assert model.config.num_qa_labels == model.lxmert.config.num_qa_labels == 12
    assert model(**inputs_for("question-answering")).question_answering_score.shape == (3, 12)
    assert model.resize_num_qa_labels(2).weight.shape == (2, 64)


def test_resizing_words_moves_embedding_decoder_and_bias() -> None:
    model = lively_model("pretraining")
    assert isinstance(model, LxmertForPreTraining)
    bias = model.masked_language_head.bias.clone()
    embedding = model.resize_token_embeddings(160)
    assert embedding is model.get_input_embeddings() and embedding.num_embeddings == 160
    assert model.masked_language_head.decoder.weight is embedding.weight
    assert torch.equal(model.masked_language_head.bias[:150], bias)
    assert model.masked_language_head.bias[150:].abs().sum() == 0
    assert model(**inputs_for("pretraining")).prediction_logits.shape == (3, 7, 160)


@pytest.mark.parametrize("task", TASKS)
def test_resizing_keeps_dtype_and_rows(task: Task) -> None:
    model = lively_model(task).bfloat16()
    before = model.get_input_embeddings().weight.detach().clone()
    model.resize_token_embeddings(170)
    grown = model.get_input_embeddings()
    assert grown.weight.dtype == torch.bfloat16 and grown.padding_idx == 0 and grown.weight.requires_grad
    assert torch.equal(grown.weight[:150], before)
    assert 0.01 < grown.weight[150:].float().std() < 0.03  # N(0, 0.02), not lively
    assert model.config.vocab_size == 170 and model.config == getattr(model, "lxmert", model).config
    if hasattr(model, "answer_head"):
        layer = model.resize_num_qa_labels(9)
        assert layer is model.get_qa_logit_layer() and layer.weight.dtype == layer.bias.dtype == torch.bfloat16
        assert layer.bias[7:].abs().sum() == 0
    assert all(value.isfinite().all() for value in model(**inputs_for(task, torch.bfloat16)).values())


def test_another_word_embedding_is_tied_to_the_decoder() -> None:
    model, other = lively_model("pretraining"), nn.Embedding(150, 32)
    model.set_input_embeddings(other)
    assert model.get_input_embeddings() is other
    assert model.masked_language_head.decoder.weight is other.weight


def test_untied_decoder_is_its_own_weight() -> None:
    model = lively_model("pretraining", SMALL.replace(tie_word_embeddings=False))
    assert isinstance(model, LxmertForPreTraining)
    assert model.masked_language_head.decoder.weight is not model.lxmert.embeddings.word.weight
    before = model.masked_language_head.decoder.weight.detach().clone()
    model.resize_token_embeddings(140)
    assert torch.equal(model.masked_language_head.decoder.weight, before[:140])
    assert not torch.equal(model.masked_language_head.decoder.weight, model.lxmert.embeddings.word.weight)


def test_disabled_heads_are_absent() -> None:
    model = lively_model("pretraining", SMALL.replace(task_qa=False, task_obj_predict=False))
    output = model(**inputs_for("pretraining"), output_object_heads=True)
    assert output.question_answering_score is None and output.object_logits is None
    assert model.get_qa_logit_layer() is None and model.resize_num_qa_labels(3) is None


@pytest.mark.parametrize("given", [(), ("input_ids", "inputs_embeds")])
def test_words_are_given_exactly_once(given: tuple[str, ...]) -> None:
    inputs = inputs_for("model")
    ids = inputs.pop("input_ids")
    values = {"input_ids": ids, "inputs_embeds": torch.zeros(3, 7, 32)}
    with pytest.raises(InputError, match="one of the two"):
        lively_model("model")(**inputs, **{name: values[name] for name in given})


def test_picture_is_needed() -> None:
    with pytest.raises(InputError, match="visual_pos"):
        lively_model("model")(torch.ones(1, 3, dtype=torch.long), torch.zeros(1, 2, 16))


def test_padding_changes_nothing(backbone: LxmertModel) -> None:
    inputs = inputs_for("model", F64)
    padded = {name: nn.functional.pad(t, (0, 2) if t.dim() == 2 else (0, 0, 0, 2)) for name, t in inputs.items()}
    short, long = backbone(**inputs), backbone(**padded)
    torch.testing.assert_close(long.pooled_output, short.pooled_output, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(long.language_output[:, :7], short.language_output, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(long.vision_output[:, :5], short.vision_output, rtol=1e-12, atol=1e-12)


def test_boxes_come_in_any_order(backbone: LxmertModel) -> None:
    inputs, order = inputs_for("model", F64), torch.tensor([3, 0, 4, 2, 1])
    shuffled = {name: t[:, order] if name.startswith("visual") else t for name, t in inputs.items()}
    plain, moved = backbone(**inputs), backbone(**shuffled)
    torch.testing.assert_close(moved.pooled_output, plain.pooled_output, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(moved.vision_output, plain.vision_output[:, order], rtol=1e-12, atol=1e-12)


def test_rows_of_a_batch_do_not_meet(backbone: LxmertModel) -> None:
    inputs = inputs_for("model", F64)
    together = backbone(**inputs).pooled_output
    alone = torch.cat([backbone(**{n: t[i : i + 1] for n, t in inputs.items()}).pooled_output for i in range(3)])
    torch.testing.assert_close(alone, together, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("attentions", [False, True], ids=["fused", "explicit"])
@pytest.mark.parametrize("mask", ["attention_mask", "visual_attention_mask"])
def test_fully_masked_row_attends_by_its_scores(backbone: LxmertModel, mask: str, attentions: bool) -> None:
    """−10000 on every key shifts all scores alike: the softmax is that of no mask, not a uniform average."""
    inputs = inputs_for("model", F64)
    masked, unmasked = ({**inputs, mask: inputs[mask].clone()} for _ in range(2))
    masked[mask][0], unmasked[mask][0] = 0, 1
    got, wanted = (backbone(**given, output_attentions=attentions).to_tuple()[:3] for given in (masked, unmasked))
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)  # adding 10⁴ in float64 costs four digits


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_masked_keys_get_the_original_codes_bias(dtype: torch.dtype) -> None:
    bias = mask_bias(torch.tensor([[1.0, 0.0, 0.75]]), dtype)
    assert bias is not None and bias.tolist() == [[[[0.0, -10000.0, -2500.0]]]]  # soft masks count in proportion
    assert bias.dtype == torch.promote_types(dtype, torch.float32)
    assert mask_bias(None, dtype) is None


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.float16, torch.float64], ids=str)
def test_masks_may_have_any_dtype(backbone: LxmertModel, dtype: torch.dtype) -> None:
    inputs = inputs_for("model", F64)
    cast = {name: value.to(dtype) if name.endswith("mask") else value for name, value in inputs.items()}
    for one, other in zip(backbone(**cast).to_tuple(), backbone(**inputs).to_tuple(), strict=True):
        assert torch.equal(one, other)


def test_masks_left_out_are_ones_and_types_zeros(backbone: LxmertModel) -> None:
    inputs = inputs_for("model", F64)
    few = {name: inputs[name] for name in ("input_ids", "visual_feats", "visual_pos")}
    spelled = {
        **few,
        "attention_mask": torch.ones(3, 7, dtype=torch.bool),
        "visual_attention_mask": torch.ones(3, 5),
        "token_type_ids": torch.zeros(3, 7, dtype=torch.long),
    }
    for one, other in zip(backbone(**few).to_tuple(), backbone(**spelled).to_tuple(), strict=True):
        assert torch.equal(one, other)
