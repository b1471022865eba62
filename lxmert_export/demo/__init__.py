"""The built-in checkpoint, and the world that it was trained on.

scenes.py          a seed → a scene: its shapes and where they lie
drawing.py         a scene → a picture (needs Pillow)
questions.py       a scene → questions with their answers, and captions
words.py           every word and every answer of the world: its vocabulary
pictures.py        a user's picture file → an RGB picture (needs Pillow)
features.py        a picture → boxes and features (needs Pillow and scipy)
answer_picture.py  a picture with its boxes, shaded by attention (needs Pillow)

lxmert_export/training/ trained the checkpoint; the tool never imports it.
"""
