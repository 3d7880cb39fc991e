"""GRPO: group relative policy optimisation for control, without a value network."""
