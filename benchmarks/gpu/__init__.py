"""Checks our files on an NVIDIA GPU: whether their outputs are right, and how fast they are. Run: make gpu"""
