"""Measures artifacts and other programs' models side by side: latency, throughput, start-up, memory, and equal answers."""
