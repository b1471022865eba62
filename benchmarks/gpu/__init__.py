"""Engines on an NVIDIA GPU: do they compute what they should, and how fast beside PyTorch. Run: make gpu"""
