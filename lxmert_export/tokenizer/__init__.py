"""Questions → token ids by BERT's WordPiece: in Rust if the package ``tokenizers`` is installed, else in pure Python.

opening.py         loads the tokenizer of a name or path, the fast one if it is installed
fast.py            LxmertTokenizerFast (imports tokenizers)
pure.py            LxmertTokenizer (standard library only)
pretrained.py      what both share: the methods that Hugging Face users know
batching.py        texts → rows: checks of a call's arguments, truncation, padding, special tokens
batch_encoding.py  what a call returns
word_pieces.py     the algorithm in pure Python: text → tokens
files.py           reads and writes the files of a tokenizer
tokenizer_json.py  the content of tokenizer.json, the one file that holds everything
settings.py        vocabulary and options, checked
"""
