"""Trials of trust: kills, faults, flips, fuzz, hostile files, threads, shapes. Run: make trust"""
