"""Questions → token ids, as BERT's WordPiece does it: in Rust where the package ``tokenizers`` is there, else in pure Python.

opening.py         the tokenizer of a name or path, of the faster kind that can be had
fast.py            LxmertTokenizerFast (imports tokenizers)
pure.py            LxmertTokenizer (standard library only)
pretrained.py      what both share: the calls that Hugging Face users know
batching.py        texts → rows: what a call may be given; truncation, padding, the special tokens around a text
batch_encoding.py  what a call returns
word_pieces.py     the pure algorithm: text → tokens
files.py           the files of a tokenizer, read strictly and written safely
tokenizer_json.py  the one of them that holds everything
settings.py        vocabulary and options, checked
"""
