"""How the built-in checkpoint came about: `make train-demo`. The tool never imports it.

data.py      thousands of scenes, drawn and looked at, kept as arrays; batches of sentences about them
train.py     pre-training with all five objectives, then answering; the language-only baseline; resumable
evaluate.py  accuracy by question family
record.py    the files of lxmert_export/demo/: weights, tokenizer, labels, held-out questions, training curve
"""
