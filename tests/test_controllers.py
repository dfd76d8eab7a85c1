"""Scores of controllers written by hand, which the scores of learned policies are read against."""

import controllers
import jax
import numpy as np
import pytest
from jax import random

from jaxrl import envs, rollout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "controller", "wrap", "expected"),
    [
        ("Reacher-misc", controllers.reacher, lambda env: env, 73.1),
        ("PointRobot-misc", controllers.point_robot, lambda env: env, 5.4),
        ("PointRobot-misc", controllers.to_the_goal, controllers.showing_the_goal, 12.7),
    ],
)
def test_the_score_of_a_controller(name, controller, wrap, expected):
    env, env_params = envs.make(name)
    evaluate = jax.jit(lambda key: rollout.evaluate(wrap(env), controller, env_params, key, 1000))
    np.testing.assert_allclose(evaluate(random.key(0))["eval/return"], expected, rtol=0.05)
