"""Trust region policy optimisation (Schulman et al. 2015, arXiv:1502.05477, equation 14 and appendix C).

Each update moves the policy once, along the natural gradient, as far as the mean KL divergence of the old policy from
the new one may go. The critic, with parameters of its own, then regresses on the lambda-returns of arXiv:1506.02438.
Axes: T steps, N environments, B = T * N transitions, D parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array, flatten_util, lax, random
from jax import numpy as jnp

from jaxrl import normalize, policies, returns, rollout
from jaxrl.core import checks, fit, networks
from jaxrl.envs import Env, Spec


@dataclass(frozen=True)
class Config:
    """What fixes shapes and program."""

    num_envs: int = 16  # environments acted in at once, N
    num_steps: int = 64  # steps in each of them per update, T
    num_epochs: int = 10  # the critic's passes over the collected transitions
    num_minibatches: int = 8  # the critic's gradient steps per pass
    num_conjugate_gradient_steps: int = 10  # products with the Fisher matrix per natural gradient
    num_line_search_steps: int = 10  # shorter and shorter steps tried before the policy is left as it is
    network: networks.MLP | networks.CNN = networks.MLP()  # of actor and critic
    distribution: policies.HeadName = "gaussian"  # of continuous actions
    normalize_observations: bool = False  # by running statistics, to mean 0 and variance 1
    normalize_rewards: bool = False  # by the running standard deviation of discounted returns
    optimizer: fit.OptimizerFactory = fit.Optimizer()  # of the critic
    eval_episodes: int = 16  # per evaluation
    eval_greedy: bool = False  # evaluate the likeliest actions instead of sampled ones

    @property
    def steps_per_update(self) -> int:
        return self.num_envs * self.num_steps


class Hyperparams(NamedTuple):
    """Traced numbers: any of them may carry a vmap axis or be a schedule."""

    learning_rate: Any = 1e-3  # of the critic
    discount: Any = 0.99  # weight of a reward one step later
    gae_lambda: Any = 0.95  # 0 one-step advantages, 1 Monte Carlo
    max_kl: Any = 0.01  # nats, bound on the mean divergence of the old policy from the new one
    damping: Any = 0.1  # added to the diagonal of the Fisher matrix
    backtrack: Any = 0.5  # a step that is refused is tried again shortened to this part


class State(NamedTuple):
    """Everything a run carries from update to update."""

    fit: fit.Fit  # policy and critic; the state of the optimiser is the critic's alone
    cursor: rollout.Cursor  # N unfinished episodes
    normalizer: normalize.Normalizer  # of observations and rewards


class Batch(NamedTuple):
    """What the losses need of each transition, leaves [B, ...]."""

    obs: Array
    action: Array  # as sampled
    log_prob: Array  # of the action under the policy that took it
    advantage: Array
    target: Array  # the value to regress on


def loss(params: Any, network: networks.Network, head: policies.Head, batch: Batch) -> tuple[Array, dict[str, Array]]:
    """Equation 14, negated: mean over B of the importance-weighted advantage. Returns (scalar, metrics)."""
    outputs, _ = network.apply(params, batch.obs)
    policy = head.distribution(*outputs)
    policy_loss = -(jnp.exp(policy.log_prob(batch.action) - batch.log_prob) * batch.advantage).mean()
    return policy_loss, {"policy_loss": policy_loss, "entropy": policy.entropy().mean()}


def value_loss(critic: Any, params: Any, network: networks.Network, batch: Batch) -> tuple[Array, dict[str, Array]]:
    """Half the mean squared error of `params` with the parameters `critic` in it. Returns (scalar, metrics)."""
    _, value = network.apply({**params, "critic": critic}, batch.obs)
    error = 0.5 * jnp.square(value - batch.target).mean()
    return error, {"value_loss": error}


def divergence(params: Any, network: networks.Network, head: policies.Head, old: Any, obs: Array) -> Array:
    """[] nats, mean over B of the divergence of the policy `old`, a distribution, from that of `params`."""
    outputs, _ = network.apply(params, obs)
    return old.kl_divergence(head.distribution(*outputs)).mean()


def fisher_product(params: Any, network: networks.Network, head: policies.Head, obs: Array) -> Callable[[Any], Any]:
    """The product of the Fisher matrix, the mean divergence's Hessian at `params`, with a vector shaped as `params`.

    At equal policies the divergence has no slope in the network's outputs, so its Hessian is J' H J with the Jacobian
    J of the outputs and the Hessian H in them (appendix C.1): J is linearised once, no matrix is ever formed.
    """

    def outputs_of(params: Any) -> Any:
        return network.apply(params, obs)[0]

    outputs, forward = jax.linearize(outputs_of, params)
    backward = jax.linear_transpose(forward, params)
    old = head.distribution(*outputs)
    slope = jax.grad(lambda outputs: old.kl_divergence(head.distribution(*outputs)).mean())

    def product(vector: Any) -> Any:
        _, curved = jax.jvp(slope, (outputs,), (forward(vector),))
        return backward(curved)[0]

    return product


def conjugate_gradients(product: Callable[[Array], Array], target: Array, num_steps: int) -> Array:
    """Approximate solution x [D] of product(x) = `target` [D], for a positive definite matrix, from x = 0.

    Hestenes and Stiefel 1952. Stands still once the residual is 1e-5 of the target, where float32 has no more to give.
    """
    initial = jnp.square(target).sum()

    def one(carry: Any, _: None) -> tuple[Any, None]:
        x, residual, direction, square = carry
        image = product(direction)
        curvature = (direction * image).sum()
        going = (square > 1e-10 * initial) & (curvature > 0)
        rate = jnp.where(going, square / jnp.where(going, curvature, 1.0), 0.0)
        residual = residual - rate * image
        new_square = jnp.square(residual).sum()
        turn = jnp.where(going, new_square / jnp.where(going, square, 1.0), 0.0)
        return (x + rate * direction, residual, residual + turn * direction, new_square), None

    start = jnp.zeros_like(target), target, target, initial
    return lax.scan(one, start, length=num_steps)[0][0]


def natural_step(product: Callable[[Array], Array], gradient: Array, max_kl: Array, num_steps: int) -> Array:
    """Step [D] down the natural gradient, of divergence `max_kl` to second order; 0 where the `gradient` [D] is.

    Appendix C: x = A^-1 g scaled by sqrt(2 max_kl / x' A x), with the (damped) matrix A of `product`.
    """
    direction = conjugate_gradients(product, gradient, num_steps)
    curvature = (direction * product(direction)).sum()
    length = jnp.where(curvature > 0, jnp.sqrt(2 * max_kl / jnp.where(curvature > 0, curvature, 1.0)), 0.0)
    return -length * direction


def line_search(
    attempt: Callable[[Array], tuple[Array, Array]], old_loss: Array, hparams: Hyperparams, num_steps: int
) -> tuple[Array, Array, Array]:
    """The first of the fractions 1, b, b**2, ... of a step that moves the policy, improves the loss, keeps the bound.

    `attempt` gives loss [] and divergence [] of a fraction [] of the step; `old_loss` [] is the loss without it.
    Returns the fraction with its loss and divergence; 0, `old_loss` and 0 if none of `num_steps` fractions will do.
    """

    def unfinished(carry: Any) -> Array:
        tries, accepted, *_ = carry
        return ~accepted & (tries < num_steps)

    def shorten(carry: Any) -> Any:
        tries, *_ = carry
        fraction = jnp.float32(hparams.backtrack) ** tries
        new_loss, kl = attempt(fraction)
        accepted = (new_loss < old_loss) & (kl > 0) & (kl <= hparams.max_kl)
        return tries + 1, accepted, fraction, new_loss, kl

    # Only scalars are carried: what a vmapped loop carries is copied in every lane at every turn.
    start = jnp.int32(0), jnp.bool_(False), jnp.float32(0), old_loss, jnp.float32(0)
    _, accepted, fraction, new_loss, kl = lax.while_loop(unfinished, shorten, start)
    return jnp.where(accepted, fraction, 0.0), jnp.where(accepted, new_loss, old_loss), jnp.where(accepted, kl, 0.0)


def improve(
    params: Any, network: networks.Network, head: policies.Head, batch: Batch, hparams: Hyperparams, config: Config
) -> tuple[Any, dict[str, Array]]:
    """`params` with the policy moved as far as the trust region allows, or left as it is. Returns them and metrics.

    What does not move the policy has no gradient and no curvature, so the critic stays what it was.
    """
    flat, unravel = flatten_util.ravel_pytree(params)
    outputs, _ = network.apply(params, batch.obs)
    old = head.distribution(*outputs)
    gradient, metrics = jax.grad(loss, has_aux=True)(params, network, head, batch)
    fisher = fisher_product(params, network, head, batch.obs)

    def product(vector: Array) -> Array:
        return _flat(fisher(unravel(vector))) + hparams.damping * vector

    def attempt(fraction: Array) -> tuple[Array, Array]:
        moved = unravel(flat + fraction * step)
        return loss(moved, network, head, batch)[0], divergence(moved, network, head, old, batch.obs)

    step = natural_step(product, _flat(gradient), hparams.max_kl, config.num_conjugate_gradient_steps)
    fraction, new_loss, kl = line_search(attempt, metrics["policy_loss"], hparams, config.num_line_search_steps)
    measured = {"policy_loss": new_loss, "kl": kl, "accepted": fraction > 0, "step_fraction": fraction}
    return unravel(flat + fraction * step), {**metrics, **measured}


def _flat(tree: Any) -> Array:
    """All leaves as one vector [D]."""
    return flatten_util.ravel_pytree(tree)[0]


def make_batch(path: rollout.Transition, params: Any, network: networks.Network, hparams: Hyperparams) -> Batch:
    """Normalised path [T, N, ...] to batch [B, ...] with generalised advantages, standardised.

    Their scale changes no step, whose length the divergence decides; their mean would only add to the noise.
    """
    _, value = network.apply(params, path.obs)
    _, next_value = network.apply(params, path.next_obs)
    advantage = returns.generalized_advantage(
        path.reward, value, next_value, path.terminated, path.truncated, hparams.discount, hparams.gae_lambda
    )
    action, log_prob = path.extra
    batch = Batch(path.obs, action, log_prob, returns.standardize(advantage), advantage + value)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch)


def check(spec: Spec, config: Config) -> None:
    """Refuse what cannot work."""
    checks.choices(config)
    checks.at_least_one(
        num_envs=config.num_envs,
        num_steps=config.num_steps,
        num_epochs=config.num_epochs,
        num_minibatches=config.num_minibatches,
        num_conjugate_gradient_steps=config.num_conjugate_gradient_steps,
        num_line_search_steps=config.num_line_search_steps,
        eval_episodes=config.eval_episodes,
    )
    checks.can_standardize(config.steps_per_update, "update", "use more num_steps or num_envs")
    checks.divides(config.num_minibatches, config.steps_per_update, "num_minibatches", "num_envs * num_steps")
    if config.network.dropout:
        raise ValueError(
            f"dropout={config.network.dropout} would compare the policy that acted with another random network: "
            "TRPO needs dropout=0."
        )
    if config.normalize_observations:
        normalize.check(spec)


def make(env: Env, config: Config, network: networks.Network | None = None) -> rollout.Agent:
    """A TRPO agent; `network` replaces the one of `config` (see `policies.actor_critic` for its outputs).

    A network of one's own has a dict of parameters, whose entry "critic" moves the values and not the policy.

    Raises:
        ValueError: sizes that do not fit, dropout, or a network that does not suit the observations.
    """
    check(env.spec, config)
    head = policies.head(env.spec.action, config.distribution)
    if network is None:
        network = policies.actor_critic(env.spec, head, config.network)

    def init(key, hparams, env_params):
        network_key, env_key = random.split(key)
        params = network.init(network_key)
        critic = fit.start(config.optimizer, params["critic"])
        cursor = rollout.start(env, env_key, config.num_envs, env_params)
        which = {"observations": config.normalize_observations, "rewards": config.normalize_rewards}
        normalizer = normalize.start(env.spec.obs_shape, config.num_envs, **which)
        return State(fit.Fit(params, critic.opt_state), cursor, normalizer)

    def policy(state, obs):
        outputs, _ = network.apply(state.fit.params, normalize.see(state.normalizer, obs))
        return head.distribution(*outputs)

    def act(key, state, obs, greedy=False):
        distribution = policy(state, obs)
        return head.to_env(distribution.mode() if greedy else distribution.sample(seed=key))

    def explore(state, key, obs):
        distribution = policy(state, obs)
        action = distribution.sample(seed=key)
        return head.to_env(action), (action, distribution.log_prob(action))

    def update(key, state, hparams, env_params):
        collect_key, epochs_key = random.split(key)
        cursor, path = rollout.collect(
            env, partial(explore, state), state.cursor, env_params, collect_key, config.num_steps
        )
        path, normalizer = normalize.learn_from(state.normalizer, path, hparams.discount)
        batch = make_batch(path, state.fit.params, network, hparams)
        params, metrics = improve(state.fit.params, network, head, batch, hparams, config)

        optimizer = config.optimizer(hparams.learning_rate)
        critic = fit.Fit(params["critic"], state.fit.opt_state)
        critic, critic_metrics = fit.epochs(
            epochs_key,
            lambda critic, minibatch: fit.step(optimizer, value_loss, critic, params, network, minibatch),
            critic,
            batch,
            config.num_epochs,
            config.num_minibatches,
        )
        fitted = fit.Fit({**params, "critic": critic.params}, critic.opt_state)
        return State(fitted, cursor, normalizer), {**metrics, **critic_metrics, "return": cursor.last_return.mean()}

    def evaluate(key, state, hparams, env_params):
        def policy(key, obs):
            return act(key, state, obs, config.eval_greedy), None

        return rollout.evaluate(env, policy, env_params, key, config.eval_episodes)

    return rollout.Agent(init, update, evaluate, act)
