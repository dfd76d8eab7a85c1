"""Learners of tables and linear values against planners, textbook figures and their own rules by hand."""

from functools import partial

import jax
import numpy as np
import probes
import pytest
from jax import numpy as jnp
from jax import random

from jaxrl import envs, envs_tabular, exploration, features, mdp, planning
from jaxrl.algorithms import dyna, td_control, td_prediction
from jaxrl.core import fit, loop
from jaxrl.core.schedule import Linear
from jaxrl.envs import Discrete, Spec

TARGETS = ["sarsa", "expected_sarsa", "q_learning", "double_q_learning"]


def train(learner, hparams, source, num_updates, seeds=1, eval_every=None):
    """Runs and metrics, leaves [seeds, ...]."""
    sizes = {"num_updates": num_updates, "eval_every": eval_every or num_updates}
    one = partial(loop.train, learner, hparams=hparams, source=source, **sizes)
    return jax.jit(jax.vmap(lambda key: one(key=key)))(random.split(random.key(0), seeds))


def reachable(name, made):
    """[S] bool: the states to act in, neither terminal nor within the cliff."""
    cells = np.array([*"".join(envs_tabular.get(name).layout)])
    return jnp.asarray((cells != "C") & ~np.asarray(made.terminal))


def from_everywhere(made, states=None):
    """The same task, begun in any of some states, or any but a terminal one."""
    free = (~made.terminal if states is None else states).astype(jnp.float32)
    return made._replace(start=free / free.sum())


# Control


ICE = Linear(0.5, 0.005), Linear(1.0, 0.0, 0.9)  # successors vary: the rate has to fall
CLIFF = Linear(0.5, 0.5), Linear(1.0, 0.0, 0.9)
# What is learned of the edge while exploring much is, greedily, never corrected.
CLIFF_ON_POLICY = Linear(0.1, 0.1), Linear(0.1, 0.0, 0.9)


@pytest.mark.learning
@pytest.mark.parametrize(
    ("name", "discount", "schedules", "targets", "tolerance"),
    [
        ("FrozenLake", 0.95, ICE, TARGETS, 0.05),
        ("CliffWalking", 0.9, CLIFF, TARGETS[2:], 0.001),
        ("CliffWalking", 0.9, CLIFF_ON_POLICY, TARGETS[:2], 0.1),
    ],
)
def test_control_finds_the_planners_values(name, discount, schedules, targets, tolerance):
    """Root mean square error over states, median over seeds, as a part of the range of the values."""
    env, made = envs.make(f"tabular/{name}")
    best = planning.value_iteration(made, discount).value
    states = reachable(name, made)
    rate, epsilon = schedules
    hparams = td_control.Hyperparams(rate, discount=discount, exploration=epsilon)
    for target in targets:
        agent = td_control.make(env, td_control.Config(target=target, eval_episodes=2))
        runs, metrics = train(agent, hparams, from_everywhere(made, states), 4000, seeds=3)
        value = runs.state.fit.params.mean(1).max(-1)
        error = jnp.sqrt(jnp.square(value - best)[:, states].mean(-1))
        assert jnp.median(error) < tolerance * jnp.ptp(best), (target, error)
        assert (metrics["diverged"] == 0).all()


@pytest.mark.learning
@pytest.mark.parametrize("planner", ["sampled", "sweeps"])
@pytest.mark.parametrize(("name", "tolerance"), [("FrozenLake", 0.1), ("CliffWalking", 0.01)])
def test_dyna_finds_the_planners_values(name, tolerance, planner):
    env, made = envs.make(f"tabular/{name}")
    discount = 0.95
    best = planning.value_iteration(made, discount).value
    agent = dyna.make(env, dyna.Config(planner, eval_episodes=2))
    hparams = dyna.Hyperparams(Linear(0.5, 0.01), discount, Linear(1.0, 0.3))
    runs, _ = train(agent, hparams, from_everywhere(made), 500, seeds=3)
    error = jnp.abs(runs.state.fit.params.max(-1) - best)[:, ~made.terminal].max(-1)
    assert jnp.median(error) < tolerance, error


@pytest.mark.learning
def test_planning_makes_more_of_the_same_steps():
    """Section 8.2: after 3000 steps in a maze, Dyna-Q with more planning is nearer to the best values."""
    env, made = mdp.as_env(envs_tabular.grid_world(envs_tabular.ROOMS, {"G": 1.0}), 500)
    best = planning.value_iteration(made, 0.95).value
    errors = []
    for planning_steps in (1, 30):
        agent = dyna.make(env, dyna.Config(planning_steps=planning_steps, eval_episodes=1))
        runs, _ = train(agent, dyna.Hyperparams(0.5, 0.95, 0.1), made, 30, seeds=8)
        errors.append(jnp.abs(runs.state.fit.params.max(-1) - best).mean())
    assert errors[1] < 0.6 * errors[0], errors


@pytest.mark.slow
def test_an_estimated_model_is_the_likeliest():
    model = dyna.Model(jnp.zeros((2, 1, 3)), jnp.zeros((2, 1)))
    seen = [(0, 0, 1.0, 1, False), (0, 0, 2.0, 0, False), (0, 0, 6.0, 1, True), (0, 0, 3.0, 1, False)]
    for transition in seen:
        model = dyna.observe(model, *map(jnp.asarray, transition))
    made = mdp.create(*dyna.estimate(model))
    np.testing.assert_allclose(made.transition[0], [[0.25, 0.5, 0.25], [0, 0, 1], [0, 0, 1]])
    np.testing.assert_allclose(made.reward, [[3.0], [0.0], [0.0]])
    np.testing.assert_array_equal(made.terminal, [False, False, True])
    drawn = jax.vmap(dyna.imagine, (0, None))(random.split(random.key(0), 2000), model)
    assert (drawn[0] == 0).all() and (drawn[2] == 3.0).all()  # the pair never tried is never imagined
    np.testing.assert_allclose(drawn[4].mean(), 0.25, atol=0.04)


def greedy_path(table):
    """States that the greedy policy walks through from cliff walking's start, and whether it arrives."""
    _, made = envs.make("tabular/CliffWalking")
    state, path = 36, []
    for _ in range(50):
        path.append(state)
        if made.terminal[state]:
            break
        state = int(made.transition[table[state].argmax(), state].argmax())
    return path


@pytest.mark.learning
def test_cliff_walking_shows_the_textbook_difference():
    """Example 6.6: exploring with epsilon 0.1, SARSA earns more; greedily, Q-learning walks along the cliff."""
    env, made = envs.make("tabular/CliffWalking")
    hparams = td_control.Hyperparams(learning_rate=0.5, discount=1.0, exploration=0.1)
    online, tables = {}, {}
    for target in ("sarsa", "q_learning"):
        runs, metrics = train(td_control.make(env, td_control.Config(target)), hparams, made, 400, 20, eval_every=200)
        online[target] = metrics["return"][:, 1].mean()  # of the second half
        tables[target] = runs.state.fit.params[:, 0]
    assert -45 < online["sarsa"] < -20 and -75 < online["q_learning"] < online["sarsa"] - 8, online
    shortest = [36, *range(24, 36), 47]
    walked = [greedy_path(table) for table in tables["q_learning"]]
    assert sum(path == shortest for path in walked) >= 18  # 13 steps, along the edge
    # SARSA's own walk: seldom beside the cliff.
    edge = [len(set(greedy_path(table)) & set(range(25, 35))) for table in tables["sarsa"]]
    assert np.median(edge) <= 2, edge


@pytest.mark.slow
def test_double_q_learning_is_biased_less():
    """Example 6.7: how often the wrong action, left, is preferred, and the value it is thought to have (true: -0.1)."""
    env, made = envs.make("tabular/MaximizationBias")
    wrong, value = {}, {}
    hparams = td_control.Hyperparams(learning_rate=0.1, discount=1.0, exploration=0.1)
    for target in ("q_learning", "double_q_learning"):
        agent = td_control.make(env, td_control.Config(target, num_steps=10))
        runs, _ = train(agent, hparams, made, 15, seeds=500)
        table = runs.state.fit.params.mean(1)
        tried = runs.state.visits[:, 0, 0].sum(-1) > 0
        left = jnp.delete(table[:, 0], 1, axis=1).max(-1)
        wrong[target] = (left > table[:, 0, 1])[tried].mean()
        value[target] = left.mean()
    assert value["q_learning"] > value["double_q_learning"] + 0.03, value
    assert wrong["q_learning"] > wrong["double_q_learning"] + 0.1, wrong


def test_what_each_successor_is_worth():
    tables = jnp.array([[1.0, 5.0, 3.0], [7.0, 2.0, 4.0]])
    chances = jnp.array([0.5, 0.25, 0.25])
    worth = lambda target, k: td_control.successor_value(target, tables, k, 2, chances)  # noqa: E731
    assert worth("sarsa", 0) == 3 and worth("expected_sarsa", 0) == 2.5 and worth("q_learning", 0) == 5
    assert worth("double_q_learning", 0) == 2 and worth("double_q_learning", 1) == 1


def step_by_step(target, lam, power, num_steps=60):
    """The rule by hand on a chain whose two actions do the same, so that exploration alone decides which."""
    env, made = chain()
    agent = td_control.make(env, td_control.Config(target, num_steps=1))
    hparams = td_control.Hyperparams(0.3, power, 0.9, lam, 0.5)
    update = jax.jit(agent.update)
    state = jax.jit(agent.init)(random.key(0), hparams, made)
    table, trace, visits = np.zeros((4, 2)), np.zeros((4, 2)), np.zeros((4, 2))
    for key in random.split(random.key(1), num_steps):
        obs, action = int(state.cursor.obs), int(state.action)
        state, _ = update(key, state, hparams, made)
        following, next_action, ended = obs + 1, int(state.action), obs == 2
        visits[obs, action] += 1
        trace[obs, action] += 1
        worth = 0.0 if ended else table[following].max() if target == "q_learning" else table[following, next_action]
        error = obs + 1.0 + 0.9 * worth - table[obs, action]
        exploring = table[following, next_action] < table[following].max()
        table += 0.3 * np.maximum(visits, 1) ** -power * error * trace  # each entry at its own rate
        trace *= 0.9 * lam * (not ended) * (target == "sarsa" or not exploring)
        np.testing.assert_allclose(state.fit.params[0], table, rtol=1e-4, atol=1e-5)
    assert len(set(visits.ravel())) > 2


def test_a_rare_visit_does_not_move_what_is_visited_often():
    """State 0 leads to one of 100, each with a reward of its own, then the end: at a rate of 1 over the visits, Monte
    Carlo's value of 0 is the mean of its returns.
    """
    size, episodes = 100, 400
    rewards = np.random.default_rng(0).normal(size=size)
    transition = np.zeros((1, size + 2, size + 2))
    transition[0, 0, 1:-1], transition[0, 1:-1, -1] = 1 / size, 1
    arrays = transition, np.array([0, *rewards, 0])[:, None], np.arange(size + 2) == size + 1, np.eye(size + 2)[0]
    env, made = mdp.as_env(mdp.create(*arrays), 10)
    agent = td_control.make(env, td_control.Config("sarsa", num_steps=2 * episodes))
    hparams = td_control.Hyperparams(1.0, 1.0, 1.0, 1.0, 0.0)
    state = agent.init(random.key(0), hparams, made)
    state, _ = agent.update(random.key(1), state, hparams, made)
    counts = np.asarray(state.visits[0, 1:-1, 0])
    np.testing.assert_allclose(state.fit.params[0, 0, 0], counts @ rewards / episodes, atol=1e-4)


def chain():
    """0 to 1 to 2 to the end, with rewards 1, 2, 3, by either of two actions."""
    transition = np.broadcast_to(np.eye(4, k=1), (2, 4, 4))
    made = mdp.create(transition, np.arange(1, 5)[:, None] * np.ones((1, 2)), np.arange(4) == 3, [1, 0, 0, 0])
    return mdp.as_env(made, 100)


def test_each_of_two_tables_averages_its_own_targets():
    """Reward 1 at every pull of one arm, at a rate of 1 over the visits: from the first pull on, a value is 1."""
    made = mdp.create([[[0.0, 1.0], [0.0, 1.0]]], [[1.0], [0.0]], [False, True], [1, 0])
    env, made = mdp.as_env(made, 100)
    agent = td_control.make(env, td_control.Config("double_q_learning", initial_value=5.0, num_steps=50))
    runs, _ = train(agent, td_control.Hyperparams(1.0, 1.0), made, 1)
    np.testing.assert_allclose(runs.state.fit.params[0, :, 0, 0], 1.0, rtol=1e-6)
    assert runs.state.visits[0, :, 0, 0].sum() == 50 and (runs.state.visits[0, :, 0, 0] > 10).all()


@pytest.mark.slow
@pytest.mark.parametrize(("target", "lam", "power"), [("sarsa", 0.8, 0.0), ("q_learning", 0.8, 0.5)])
def test_traces_and_rates_by_hand(target, lam, power):
    step_by_step(target, lam, power)


@pytest.mark.parametrize("make", ["sarsa", "expected_sarsa", "q_learning", "double_q_learning", "sampled", "sweeps"])
def test_a_time_limit_is_no_end(make):
    """Reward 1 for ever, cut after 2 steps: 1 / (1 - 0.9) = 10. And a start that costs 10 must not leak into it."""
    transition = [[[0.0, 1.0], [0.0, 1.0]]] * 2
    made = mdp.create(transition, [[-10.0, -10.0], [1.0, 1.0]], [False, False], [1, 0])
    env, made = mdp.as_env(made, 3)
    if make in TARGETS:
        agent = td_control.make(env, td_control.Config(make, eval_episodes=2))
        hparams = td_control.Hyperparams(Linear(0.5, 0.05), discount=0.9)
    else:
        agent = dyna.make(env, dyna.Config(make, eval_episodes=2))
        hparams = dyna.Hyperparams(Linear(0.5, 0.05), discount=0.9)
    runs, _ = train(agent, hparams, made, 40)
    table = runs.state.fit.params.reshape(-1, 2, 2)
    np.testing.assert_allclose(table, np.broadcast_to([[-1.0], [10.0]], table.shape), atol=0.05)


@pytest.mark.slow
def test_a_thousand_seeds_in_one_program():
    env, made = envs.make("tabular/FrozenLake")
    agent = td_control.make(env, td_control.Config(num_steps=50, eval_episodes=1))
    runs, metrics = train(agent, td_control.Hyperparams(), made, 10, seeds=1000)
    assert runs.state.visits.sum((1, 2, 3)).tolist() == [500.0] * 1000
    assert metrics["loss"].shape == (1000, 1) and len(np.unique(runs.state.visits, axis=0)) > 990


# Prediction


def walk(config, hparams, num_updates, seeds=4, limit=500):
    env, made = envs.make("tabular/RandomWalk", max_steps_in_episode=limit)
    learner = td_prediction.make(env, config)
    runs, metrics = train(learner, hparams, made, num_updates, seeds)
    return runs.state.fit.params[:, 1:6], metrics


PREDICTION = {
    "TD(0)": ({}, 0.0),
    "TD(lambda)": ({}, 0.8),
    "n-step": ({"n_step": 4}, 0.0),
    "Monte Carlo": ({"offline": True}, 1.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("limit", [500, 4])
@pytest.mark.parametrize("name", PREDICTION)
def test_prediction_finds_the_values_whatever_the_time_limit(name, limit):
    """Example 6.2: values i / 6. A cut taken for an end would make them all far smaller at a limit of 4."""
    options, trace_lambda = PREDICTION[name]
    hparams = td_prediction.Hyperparams(Linear(0.1, 0.001), 1.0, trace_lambda)
    value, metrics = walk(td_prediction.Config(**options), hparams, 600, limit=limit)
    np.testing.assert_allclose(value.mean(0), np.arange(1, 6) / 6, atol=0.04)
    assert (metrics["eval/error"] < 0.6).all()


@pytest.mark.slow
def test_lambda_zero_is_td_zero_and_one_step():
    hparams = td_prediction.Hyperparams(0.1, 0.9, 0.0)
    traces, _ = walk(td_prediction.Config(), hparams, 5)
    one_step, _ = walk(td_prediction.Config(n_step=1), hparams, 5)
    np.testing.assert_allclose(traces, one_step, rtol=1e-5, atol=1e-6)
    assert jnp.abs(traces).max() > 0.05


def record(config, hparams, num_steps):
    """The path of one run step by step, and its weights after each: obs, next_obs, reward, terminated, weights."""
    env, made = envs.make("tabular/RandomWalk")
    learner = td_prediction.make(env, config.__class__(**{**vars(config), "num_steps": 1}))
    update, state = jax.jit(learner.update), jax.jit(learner.init)(random.key(0), hparams, made)
    path = []
    for key in random.split(random.key(1), num_steps):
        obs = int(state.cursor.obs)
        before = float(state.cursor.episode_return)
        state, _ = update(key, state, hparams, made)
        done = int(state.cursor.state.time) == 0
        reward = float(state.cursor.last_return) - before if done else float(state.cursor.episode_return) - before
        following = int(state.cursor.obs) if not done else {1: 0, 5: 6}.get(obs, obs)
        path.append((obs, following, reward, done, np.asarray(state.fit.params)))
    return path


def episodes(path):
    found, current = [], []
    for moment in path:
        current.append(moment)
        if moment[3]:
            found.append(current)
            current = []
    return found


def test_offline_lambda_one_is_monte_carlo():
    rate, discount = 0.2, 0.9
    path = record(td_prediction.Config(offline=True), td_prediction.Hyperparams(rate, discount, 1.0), 120)
    weights = np.zeros(7)
    assert len(episodes(path)) > 5
    for episode in episodes(path):
        change, total = np.zeros(7), 0.0
        for obs, _, reward, _, _ in reversed(episode):
            total = reward + discount * total
            change[obs] += rate * (total - weights[obs])
        for *_, during in episode[:-1]:
            np.testing.assert_allclose(during, weights, rtol=1e-4, atol=1e-6)  # nothing changes before the end
        weights = weights + change
        np.testing.assert_allclose(episode[-1][4], weights, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("n", [2, 200])
def test_the_loss_of_n_steps_is_of_the_changes_they_make(n):
    """One episode of rewards 1, 2, 3 without discount: the values, all 0, are 6, 5 and 3 away from their returns."""
    env, made = chain()
    learner = td_prediction.make(env, td_prediction.Config(n_step=n, num_steps=3))
    hparams = td_prediction.Hyperparams(0.0, 1.0)
    state = learner.init(random.key(0), hparams, made)
    _, metrics = learner.update(random.key(1), state, hparams, made)
    targets = [1 + 2, 2 + 3, 3] if n == 2 else [6, 5, 3]
    np.testing.assert_allclose(metrics["loss"], np.square(targets).mean(), rtol=1e-6)


def test_many_visits_in_one_episode_do_not_make_values_grow():
    """The sequential updates of section 7.1 keep values between returns; added up, they would multiply them by -4."""
    transition = np.array([[[0.9, 0.1], [0, 1]]])
    env, made = mdp.as_env(mdp.create(transition, [[0.0], [0.0]], [False, True], [1, 0]), 1000)
    agent = td_prediction.make(env, td_prediction.Config(n_step=100, num_steps=1000))
    hparams = td_prediction.Hyperparams(0.5, 1.0)
    state = agent.init(random.key(0), hparams, made)
    state = state._replace(fit=state.fit._replace(params=jnp.ones(2)))
    state, _ = agent.update(random.key(1), state, hparams, made)
    assert abs(state.fit.params[0]) < 0.01


@pytest.mark.parametrize("n", [2, 5])
def test_n_step_targets_by_hand(n):
    rate, discount = 0.2, 0.9
    path = record(td_prediction.Config(n_step=n), td_prediction.Hyperparams(rate, discount), 120)
    weights = np.zeros(7)
    for episode in episodes(path):
        length = len(episode)
        for now in range(length):
            due = [now - n + 1] if now < length - 1 else range(max(0, now - n + 1), length)
            for start in due:
                if start < 0:
                    continue
                rewards = [moment[2] for moment in episode[start : now + 1]]
                target = sum(discount**k * reward for k, reward in enumerate(rewards))
                if now < length - 1:
                    target += discount**n * weights[episode[now][1]]
                weights[episode[start][0]] += rate * (target - weights[episode[start][0]])
            np.testing.assert_allclose(episode[now][4], weights, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [{"n_step": 5}, {"n_step": 1}, {}, {"offline": True}], ids=str)
@pytest.mark.parametrize("trace_lambda", [0.0, 1.0])
def test_endless_tasks_are_worth_what_they_are(options, trace_lambda):
    """The discount to the right power, and cuts that are no ends: 1 / (1 - 0.9)."""
    env, env_params = probes.endless()
    basis = features.Radial((0.0,), (1.0,), 2)
    learner = td_prediction.make(env, td_prediction.Config(basis, **options))
    runs, _ = train(learner, td_prediction.Hyperparams(0.1, 0.9, trace_lambda), env_params, 20)
    phi = features.build(basis, env.spec).apply(jnp.ones(1))
    np.testing.assert_allclose(runs.state.fit.params @ phi, 10.0, rtol=1e-3)


@pytest.mark.slow
def test_a_given_policy_is_the_one_predicted():
    env, made = envs.make("tabular/FrozenLake")
    policy = planning.greedy(planning.value_iteration(made, 0.9).action_value)
    expected = planning.evaluate_policy(made, policy, 0.9).value
    learner = td_prediction.make(env, td_prediction.Config(), lambda key, obs: policy[obs].argmax(-1))
    runs, _ = train(learner, td_prediction.Hyperparams(Linear(0.3, 0.0), 0.9), from_everywhere(made), 1000)
    np.testing.assert_allclose(runs.state.fit.params[0], expected, atol=0.05)


# Exploration


def test_chances_of_each_rule():
    values = jnp.array([1.0, 3.0, 3.0, 0.0])
    np.testing.assert_allclose(exploration.greedy(values), [0, 0.5, 0.5, 0])
    np.testing.assert_allclose(exploration.epsilon_greedy(values, 0.2), [0.05, 0.45, 0.45, 0.05], rtol=1e-6)
    np.testing.assert_allclose(exploration.softmax(values, 2.0), jax.nn.softmax(values / 2), rtol=1e-6)
    np.testing.assert_allclose(exploration.softmax(values, 0.0), [0, 0.5, 0.5, 0])
    np.testing.assert_allclose(exploration.softmax(values - 14.0, 0.0), [0, 0.5, 0.5, 0])
    visits = jnp.array([1.0, 50.0, 49.0, 0.0])
    np.testing.assert_array_equal(exploration.ucb(values, visits, 1.0), [0, 0, 0, 1])
    np.testing.assert_array_equal(exploration.ucb(values, visits.at[3].set(50.0), 2.0), [1, 0, 0, 0])
    np.testing.assert_array_equal(exploration.ucb(values, visits.at[3].set(50.0), 0.1), [0, 0, 1, 0])


@pytest.mark.slow
def test_ucbs_regret_grows_slower_than_that_of_constant_exploration():
    """Over 2000 pulls of 10 arms, averaged over 50 seeds: UCB's last half costs little."""
    env, made = envs.make("tabular/Bandit")
    means = made.reward[0]
    lost = {}
    for policy, amount in (("ucb", 1.0), ("epsilon_greedy", 0.1)):
        agent = td_control.make(env, td_control.Config(policy=policy, num_steps=1000, eval_episodes=1))
        hparams = td_control.Hyperparams(1.0, 1.0, exploration=amount)
        first, _ = train(agent, hparams, made, 1, seeds=50)
        both, _ = train(agent, hparams, made, 2, seeds=50)
        regret = [(runs.state.visits[:, 0, 0] @ (means.max() - means)).mean() for runs in (first, both)]
        lost[policy] = regret[0], regret[1] - regret[0]
        np.testing.assert_allclose(both.state.fit.params[:, 0, 0].max(-1).mean(), means.max(), atol=0.1)
    assert lost["ucb"][1] < 0.4 * lost["ucb"][0] and lost["ucb"][1] < 0.4 * lost["epsilon_greedy"][1], lost


# Features


def test_fourier_features_by_hand():
    spec = Spec("two", (2,), "float32", None, Discrete(2), 10)
    found = features.build(features.Fourier((0.0, -1.0), (2.0, 1.0), 2), spec)
    x, y = 0.25, 0.9
    expected = [np.cos(np.pi * (a * x + b * y)) / max(1, np.hypot(a, b)) ** 0.5 for a in range(3) for b in range(3)]
    assert found.size == 9
    np.testing.assert_allclose(found.apply(jnp.array([2 * x, 2 * y - 1])), expected, rtol=1e-4, atol=1e-5)
    beyond = found.apply(jnp.array([[3.0, 5.0], [2.0, 1.0]]))
    np.testing.assert_array_equal(beyond[0], beyond[1])


def test_radial_features_are_largest_at_their_centre_and_sum_to_one():
    spec = Spec("one", (1,), "float32", None, Discrete(2), 10)
    found = features.build(features.Radial((-1.0,), (1.0,), 5, 0.5), spec)
    values = found.apply(jnp.array([[-1.0], [0.0], [0.1]]))
    np.testing.assert_array_equal(values.argmax(-1), [0, 2, 2])
    np.testing.assert_allclose(values.sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(values[1, 3] / values[1, 2], np.exp(-1 / (2 * 0.25)), rtol=1e-5)


@pytest.mark.slow
def test_a_table_is_one_hot_features():
    """The same run on discrete observations and on radial features so narrow that each state has one of its own."""
    env, made = envs.make("tabular/CliffWalking")
    seen = env._replace(
        reset=lambda key, source: (lambda obs, state: (obs[None].astype(jnp.float32), state))(*env.reset(key, source)),
        step=lambda *args: (
            lambda step: step._replace(
                obs=step.obs[None].astype(jnp.float32), next_obs=step.next_obs[None].astype(jnp.float32)
            )
        )(env.step(*args)),
        spec=Spec("seen", (1,), "float32", None, env.spec.action, env.spec.max_steps),
    )
    hparams = td_control.Hyperparams(0.5, discount=0.9, trace_lambda=0.5)
    table, _ = train(td_control.make(env, td_control.Config("sarsa")), hparams, made, 5)
    basis = features.Radial((0.0,), (47.0,), 48, 0.05)
    radial, _ = train(td_control.make(seen, td_control.Config("sarsa", basis=basis)), hparams, made, 5)
    np.testing.assert_allclose(table.state.fit.params, radial.state.fit.params, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("basis", [features.Fourier((-1.0,), (1.0,), 3), features.Radial((-1.0,), (1.0,), 4)], ids=str)
def test_linear_values_solve_a_small_task(basis):
    env, env_params = probes.copy()
    _, metrics = train(td_control.make(env, td_control.Config(basis=basis)), td_control.Hyperparams(), env_params, 10)
    assert (metrics["eval/return"] == 1).all()


@pytest.mark.slow
def test_semi_gradient_sarsa_drives_up_the_hill():
    """MountainCar with a Fourier basis, 60k steps (Konidaris et al. 2011, figure 3: about -150 after 20 episodes)."""
    env, env_params = envs.make("MountainCar-v0")
    basis = features.Fourier((-1.2, -0.07), (0.6, 0.07), 5)
    agent = td_control.make(env, td_control.Config("sarsa", basis=basis))
    hparams = td_control.Hyperparams(0.005, discount=1.0, trace_lambda=0.9, exploration=0.0)
    _, metrics = train(agent, hparams, env_params, 600, seeds=4)
    assert np.median(metrics["eval/return"]) > -150


# Refusals


@pytest.mark.parametrize(
    ("name", "module", "options", "message"),
    [
        ("CartPole-v1", td_control, {}, "no table can be made"),
        ("CartPole-v1", td_prediction, {}, "no table can be made"),
        ("CartPole-v1", dyna, {}, "counts discrete ones"),
        ("Pendulum-v1", td_control, {}, "continuous actions"),
        ("Pendulum-v1", dyna, {}, "continuous actions"),
        ("CartPole-v1", td_control, {"basis": features.Fourier((0.0,), (1.0,))}, "each of the 4 numbers"),
        ("tabular/Bandit", td_control, {"basis": features.Fourier((0.0,), (1.0,))}, "go into a Table"),
        ("MountainCar-v0", td_control, {"basis": features.Radial((0.0, 0.0), (1.0, 0.0))}, "low below high"),
        ("MountainCar-v0", td_control, {"basis": features.Radial((0.0, 0.0), (1.0, 1.0), 1)}, "num=2"),
        (
            "MountainCar-v0",
            td_control,
            {"basis": features.Radial((0.0, 0.0), (1.0, 1.0)), "policy": "ucb"},
            "UCB counts visits",
        ),
        ("tabular/FrozenLake", td_control, {"num_steps": 0}, "num_steps=0"),
        ("tabular/FrozenLake", td_prediction, {"n_step": 0}, "n_step=0"),
        ("tabular/FrozenLake", td_prediction, {"n_step": 2, "offline": True}, "offline=False"),
        ("tabular/FrozenLake", dyna, {"planning_steps": 0}, "planning_steps=0"),
    ],
)
def test_what_cannot_work_is_refused(name, module, options, message):
    env, _ = envs.make(name)
    with pytest.raises(ValueError, match=message):
        module.make(env, module.Config(**options))


# Pictures


@pytest.mark.parametrize("shape", [(48,), (48, 4), (2, 48, 4)])
def test_a_grid_world_is_drawn_from_any_table(shape, tmp_path):
    from experiments import experiment, plots, sources
    from experiments.evaluation import Restored

    on_cliff = experiment.Experiment("td_control", sources.Environment("tabular/CliffWalking"), None, None)
    table = random.normal(random.key(0), (3, *shape))
    runs = loop.Run(None, None, None, td_prediction.State(fit.Fit(table, ()), None, None))
    assert plots.grid_world(Restored(tmp_path, on_cliff, None, runs)) == [tmp_path / "grid.png"]
    assert (tmp_path / "grid.png").stat().st_size > 5000
    elsewhere = experiment.Experiment("td_control", sources.Environment("tabular/RandomWalk"), None, None)
    assert plots.grid_world(Restored(tmp_path, elsewhere, None, runs)) == []
    lake = sources.Environment("FrozenLake-misc", ("map_name=8x8",))
    assert len(plots.layout_of(experiment.Experiment("td_control", lake, None, None))) == 8
