"""What every model class shares: loading and saving checkpoints, initial weights, resizing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import torch
from torch import nn

from lxmert_export.checkpoint.dialects import Dialect
from lxmert_export.checkpoint.read import Checkpoint, read_checkpoint
from lxmert_export.checkpoint.write import write_checkpoint
from lxmert_export.errors import CheckpointError
from lxmert_export.files.beside_weights import Companions
from lxmert_export.model.outputs import ModelOutput
from lxmert_export.model.plain_modules import why_not_plain
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import Task
from lxmert_export.spec.weight_names import BACKBONE

if TYPE_CHECKING:
    from typing_extensions import Self

OutputT = TypeVar("OutputT", bound=ModelOutput)


class PreTrainedLxmert(nn.Module):
    """The base of the model classes; ``config`` is an ``LxmertConfig``, ``task`` the task that the class serves."""

    task: ClassVar[Task]

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.config = config
        self.companions = Companions()

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        dtype: torch.dtype | None = None,
        revision: str | None = None,
        num_attention_heads: int | None = None,
        fresh_heads: bool = False,
        ignore_other_parts: bool = False,
    ) -> Self:
        """Loads a checkpoint of any dialect, in eval mode; in the stored dtype unless ``dtype`` is given.

        - ``num_attention_heads``: for files without a config, because it cannot be read from the weights.
        - ``fresh_heads``: initialise a head that the checkpoint lacks.
        - ``ignore_other_parts``: leave out other parts of a larger model.

        ``CheckpointError``: something does not fit; the message names all of it at once.
        """
        checkpoint = read_checkpoint(
            name_or_path,
            task=cls.task,
            revision=revision,
            num_attention_heads=num_attention_heads,
            fresh_heads=fresh_heads,
            ignore_other_parts=ignore_other_parts,
        )
        return cls.from_checkpoint(checkpoint, dtype=dtype)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, *, dtype: torch.dtype | None = None) -> Self:
        """Returns the model of a checkpoint that is already read; uses its memory-mapped tensors without a copy."""
        prefix = BACKBONE if cls.task == "model" else ""
        state = {name.removeprefix(prefix): tensor for name, tensor in checkpoint.tensors.items()}
        with torch.device("cpu" if checkpoint.fresh else "meta"):
            model = cls(checkpoint.config)
        # read_checkpoint has matched every name and shape; only heads that are to be initialised may be missing.
        model.load_state_dict(state, assign=True, strict=not checkpoint.fresh)
        model.tie_weights()
        model.companions = checkpoint.companions
        return (model if dtype is None else model.to(dtype)).eval()

    def save_pretrained(self, directory: str | Path, *, dialect: Dialect = "hf", overwrite: bool = False) -> None:
        """Writes a checkpoint in Hugging Face's, the original or TensorFlow's dialect: weights, config, tokenizer and labels.

        Tokenizer and label files are those that lay beside the weights which the model was loaded from.

        ``ArtifactError``: the directory exists (``overwrite`` replaces a checkpoint that was written so), or cannot be written.
        """
        if reason := why_not_plain(self, by_name=True):
            raise CheckpointError(f"{type(self).__name__} cannot be written: {reason}")
        prefix = BACKBONE if self.task == "model" else ""
        tensors = {prefix + name: tensor.detach() for name, tensor in self.state_dict().items()}
        write_checkpoint(
            tensors, self.config, self.task, directory, dialect=dialect, companions=self.companions, overwrite=overwrite
        )

    def tie_weights(self) -> None:
        """Shares the parameters that the config ties; only the pre-training model has any."""

    def initialize(self, module: nn.Module) -> None:
        """Initialises as upstream does: normal weights of std ``initializer_range``, zero biases and padding rows."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            nn.init.zeros_(module.weight.detach()[module.padding_idx])

    def get_input_embeddings(self) -> nn.Embedding:
        """Returns the word embedding."""
        return cast(nn.Embedding, self._backbone.embeddings.word)

    def set_input_embeddings(self, embedding: nn.Embedding) -> None:
        """Replaces the word embedding, also in what is tied to it."""
        self._backbone.embeddings.word = embedding
        self._change_config(vocab_size=embedding.num_embeddings)
        self.tie_weights()

    def resize_token_embeddings(self, new_num_tokens: int) -> nn.Embedding:
        """Cuts the vocabulary from the end, or adds newly initialised words; returns the new word embedding."""
        old = self.get_input_embeddings()
        new = nn.Embedding(new_num_tokens, old.embedding_dim, padding_idx=old.padding_idx)
        self.initialize(new)
        new.weight = resized_rows(old.weight, new.weight)
        self.set_input_embeddings(new)
        return new

    @property
    def _backbone(self) -> Any:
        return getattr(self, "lxmert", self)

    def _change_config(self, **changes: Any) -> None:
        """Changes the config that the model and its backbone share."""
        self.config = self._backbone.config = self.config.replace(**changes)

    def _resized_linear(self, old: nn.Linear, outputs: int) -> nn.Linear:
        new = nn.Linear(old.in_features, outputs, bias=old.bias is not None)
        self.initialize(new)
        new.weight = resized_rows(old.weight, new.weight)
        if old.bias is not None:
            new.bias = resized_rows(old.bias, new.bias)
        return new

    def _returned(self, output: OutputT, return_dict: bool | None) -> OutputT | tuple[Any, ...]:
        wanted = self.config.return_dict if return_dict is None else return_dict
        return output if wanted else output.to_tuple()


def resized_rows(old: torch.Tensor, new: torch.Tensor) -> nn.Parameter:
    """Returns ``new`` with its first rows replaced by those of ``old``, in the dtype and on the device of ``old``."""
    resized = new.detach().to(old.detach())
    rows = min(len(old), len(resized))
    resized[:rows] = old.detach()[:rows]
    return nn.Parameter(resized, requires_grad=old.requires_grad)
