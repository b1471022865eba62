"""The built-in checkpoint, and the world that it was trained on.

scenes.py      what is in a scene, drawn by a seed
drawing.py     a scene → a picture (needs Pillow)
questions.py   a scene → questions and captions that are true of it, and their answers
words.py       every word and every answer of the world: its vocabulary
features.py    a picture → boxes and features, from the picture alone (needs Pillow and scipy)
training/      how the checkpoint came about; the tool never imports it
"""
