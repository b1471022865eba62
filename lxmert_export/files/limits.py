"""How much files of others may claim, with the reasons. Each is checked before anything of that size is allocated."""

from __future__ import annotations

# A full-size artifact's manifest has 10 kB, the report of a large matrix 5 MB, the index of a sharded checkpoint 100 kB.
LARGEST_JSON = 64_000_000  # bytes
# A value may be `[]` or a pair of short texts: 3 bytes of a file, and up to 300 of memory. The report of a large matrix has
# 330,000 values, a tokenizer's file of 30,000 words has 60,000.
MOST_JSON_VALUES = 1_000_000
# GQA's file of all validation questions, which its consistency needs, has two million, with some 45 values each; VQA's
# annotations for training have 443,757, each with ten answers of three values.
LARGEST_DATA_FILE = 4_000_000_000  # bytes of questions, answers or annotations
MOST_DATA_VALUES = 150_000_000
LARGEST_MANIFEST = 16_000_000  # bytes
MOST_VALUES_A_CALL = 1 << 28  # of one input with fixed sizes: 20 times a batch of 64 with 100 objects
# A full-size checkpoint's header has 60 kB. Of 10^6 empty tensors it would have 60 MB, and take half a minute.
LARGEST_SAFETENSORS_HEADER = 8_000_000  # bytes; the library's own limit is 100 MB
MOST_NESTED_DICTIONARIES = 50  # in a `.pth`; trainers nest three or four
LONGEST_INTEGER = 100  # digits in JSON; tokenizer files hold a length limit of 31
# BERT's vocabulary has 230 kB, and the largest of any language model a few MB.
LARGEST_COMPANION = 64_000_000  # bytes of a vocabulary, another tokenizer file, or the answers' names
MOST_WORDS = 1_000_000  # of a vocabulary: BERT's has 30,000, multilingual models have 250,000
# A checkpoint of 470 tensors has 90 kB, one with its optimizer's state three times as much. One byte can stand for a dictionary,
# and takes a microsecond.
LARGEST_PICKLE = 2_000_000  # bytes of what names the tensors in a `.pth`
# Every tensor of such a layer that is missing is named; a real checkpoint lacks a few.
MOST_MISSING_LAYERS = 100
# A member of 80 bytes there; the `.pth` of a training with its optimizer has 1,500 members.
LARGEST_ZIP_DIRECTORY = 2_000_000  # bytes
MOST_HDF5_OBJECTS = 20_000  # groups and datasets: a checkpoint has 1,000
# Fields of a protocol buffer: the ONNX graph of the built-in checkpoint, of six layers, has 8,000, and the SavedModel of a
# network of three 30,000. A field takes two microseconds, and a runtime 400 bytes.
MOST_FIELDS = 1_000_000
MOST_TABLES = 10_000  # of the operators that a TFLite file lists: exports have 26 kinds
# PyTorch and HDF5 files of weights are not compressed, and compressed weights hardly shrink. Small files of zeros do.
LARGEST_INFLATION = 2  # times the file's size
ALWAYS_ALLOWED = 256_000_000  # bytes


def inflates_too_far(claimed: int, stored: int) -> bool:
    """Whether a file of ``stored`` bytes claims to hold more than such files do."""
    return claimed > LARGEST_INFLATION * stored + ALWAYS_ALLOWED
