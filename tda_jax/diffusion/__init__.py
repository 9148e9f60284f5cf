"""Noise schedules, training targets, per-example losses and samplers, as pure functions."""
