"""A split model's two halves: the vision half computes the states of the objects, the question half all that follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from lxmert_export.errors import ConfigError
from lxmert_export.spec.signature import Signature, TensorSpec

if TYPE_CHECKING:
    from typing_extensions import Self

Half = Literal["vision", "question"]
HALVES: tuple[Half, Half] = get_args(Half)
STATES = "object_states"  # the name of the states, unless the model outputs them under another


@dataclass(frozen=True)
class Halves:
    """What the two halves of a split model take and give.

    | field | meaning |
    |---|---|
    | ``states`` | the value that the vision half hands to the question half: [images, objects, width] |
    | ``vision_inputs``, ``question_inputs`` | names of the model's inputs that each half takes; a mask can be in both |
    | ``vision_outputs`` | names of the model's outputs that the vision half gives; the question half gives the others |
    """

    states: TensorSpec
    vision_inputs: tuple[str, ...]
    question_inputs: tuple[str, ...]
    vision_outputs: tuple[str, ...] = ()

    def signature(self, half: Half, whole: Signature) -> Signature:
        """Returns a half's signature.

        | half | in | out |
        |---|---|---|
        | ``vision`` | the images' features and boxes | their objects' states |
        | ``question`` | the text and the states | the answers |
        """
        return self._of_vision(whole) if half == "vision" else self._of_question(whole)

    def _of_vision(self, whole: Signature) -> Signature:
        outputs = [spec for spec in whole.outputs if spec.name in self.vision_outputs and spec.name != self.states.name]
        return replace(whole, inputs=_chosen(whole.inputs, self.vision_inputs), outputs=(self.states, *outputs))

    def _of_question(self, whole: Signature) -> Signature:
        inputs = (*_chosen(whole.inputs, self.question_inputs), self.states)
        outputs = tuple(spec for spec in whole.outputs if spec.name not in self.vision_outputs)
        return replace(whole, inputs=inputs, outputs=outputs)

    def check_belongs_to(self, whole: Signature) -> None:
        """``ConfigError``: they are not halves of a model with this signature."""
        inputs, outputs = ({spec.name for spec in specs} for specs in (whole.inputs, whole.outputs))
        taken = {*self.vision_inputs, *self.question_inputs}
        if not self.vision_inputs or taken != taken & inputs or not set(self.vision_outputs) <= outputs:
            raise ConfigError("split: its halves take or give what the signature does not name")
        if self.states.name in inputs or self.states.name in outputs - set(self.vision_outputs):
            raise ConfigError(f"split: {self.states.name} is the name of the states and of something else")

    def to_dict(self) -> dict[str, Any]:
        """Its fields, as a manifest holds them."""
        return {
            "states": {"name": self.states.name, "dtype": self.states.dtype, "axes": list(self.states.axes)},
            "vision_inputs": list(self.vision_inputs),
            "question_inputs": list(self.question_inputs),
            "vision_outputs": list(self.vision_outputs),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Reads what ``to_dict`` returned."""
        states = values["states"]
        return cls(
            TensorSpec(states["name"], states["dtype"], tuple(states["axes"])),
            tuple(values["vision_inputs"]),
            tuple(values["question_inputs"]),
            tuple(values["vision_outputs"]),
        )


def _chosen(specs: tuple[TensorSpec, ...], names: tuple[str, ...]) -> tuple[TensorSpec, ...]:
    return tuple(spec for spec in specs if spec.name in names)
