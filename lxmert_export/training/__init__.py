"""Trains the built-in checkpoint: `make train-demo`. The tool never imports this package.

data.py      thousands of scenes and the objects in their pictures, as arrays; batches of sentences about them
train.py     pre-training with all five objectives, then answering; the language-only baseline; resumable
evaluate.py  accuracy by question family
record.py    the files of lxmert_export/demo/: weights, tokenizer, labels, held-out questions, training curve
report.py    the page beside these files
"""
