"""Reinforcement learning as pure functions: environments, rollouts, returns and one file per algorithm."""
