"""The rules that `covary check-env` looks at, as text: what holds, why it usually does not, and what to write."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Broken:
    """One rule that an environment breaks: the rule, what it does instead, the usual cause, and what to write."""

    rule: str
    given: str
    cause: str
    fix: str


# name: (rule, usual cause, fix). Each rule is reported once, where it was broken first.
# fmt: off
RULES = {
    "env": ("The environment is a gymnasium.Env.", "It derives from the old gym.Env, or from nothing.",
            "class MyEnv(gymnasium.Env), with observation_space, action_space, reset and step"),
    "space": ("observation_space and action_space are Gymnasium spaces.", "One is not set, or comes from the old gym.",
              "self.action_space = gymnasium.spaces.Box(low, high, shape, np.float32) in __init__"),
    "action dtype": ("A continuous action space has a floating-point dtype.", "dtype=int rounds every action.",
                     "Box(..., dtype=np.float32), or Discrete or MultiDiscrete where the actions are choices"),
    "action nan": ("An action space's bounds are numbers.", "They were computed from data that holds NaN.",
                   "finite bounds, or -np.inf and np.inf where there is no bound"),
    "action bounds": ("In every dimension of an action space, low < high.", "They are swapped, or equal.",
                      "swap them, or leave a dimension that cannot move out of the action"),
    "action sample": ("An action space can be sampled.", "Its bounds or its dtype contradict each other.",
                      "make action_space.sample() work"),
    "seed": ("reset accepts seed=.", "The environment has the old method seed() instead.",
             "def reset(self, *, seed=None, options=None): super().reset(seed=seed)"),
    "options": ("reset accepts options=.", "It was left out because it is not used.",
                "def reset(self, *, seed=None, options=None)"),
    "reset raises": ("reset does not raise.", "", "mend the line that is named"),
    "reset": ("reset returns (obs, info).", "The old API returned the observation alone.", "return obs, {}"),
    "info": ("info is a dict.", "None stands for an empty dict.", "return {} for an empty info"),
    "obs type": ("A Box observation is a NumPy array.", "A list, a Python number or a tensor was returned.",
                 "np.asarray(obs, dtype=self.observation_space.dtype)"),
    "obs shape": ("An observation has its space's shape.", "A batch dimension too many, or an outdated shape=.",
                  "reshape the observation, or correct shape= in observation_space"),
    "obs dtype": ("An observation's dtype fits its space's.", "NumPy computes in float64, a Box is float32 by default.",
                  "obs.astype(self.observation_space.dtype)"),
    "obs masked": ("An observation has no masked entries.", "A masked array was returned: what lies under the mask is "
                   "taken for a value.", "obs.filled(0.0), or a flag of its own for what is missing"),
    "obs finite": ("An observation holds no NaN and no infinity.", "A division by zero, or a diverging simulation.",
                   "find the first operation that is not finite; end the episode before the state diverges"),
    "obs bounds": ("An observation lies within its space's bounds.", "They were guessed, or rounding leaves them.",
                   "widen low and high of observation_space, or np.clip the observation"),
    "obs space": ("An observation lies in its space.", "The space describes something else than what is returned.",
                  "make observation_space.contains(obs) true"),
    "obs copy": ("An observation that was returned does not change afterwards.",
                 "The environment writes into the array that it returned, so stored transitions change too.",
                 "return obs.copy()"),
    "action copy": ("The action that step is handed is left as it is.", "It is changed in place, as by action *= 2.",
                    "action = np.array(action), or a new name for what is computed from it"),
    "step raises": ("step accepts every action of action_space.", "It expects another shape, type or range.",
                    "mend the line that is named, or describe in action_space what step accepts"),
    "step": ("step returns five values.", "The old API returned four: obs, reward, done, info.",
             "return obs, reward, terminated, truncated, info: terminated where the world ended, truncated where "
             "only time was up"),
    "reward": ("reward is one real number.", "Computed from arrays, it kept their shape; or a path returns none.",
               "float(reward); an array of shape (1,) broadcasts in a loss"),
    "reward finite": ("reward is finite.", "A logarithm or a division at zero.", "bound it where it is computed"),
    "terminated": ("terminated is a bool.", "An int, None or an array was returned.", "bool(terminated)"),
    "truncated": ("truncated is a bool.", "An int, None or an array was returned.", "bool(truncated)"),
    "limit": ("terminated is false where only time is up.", 'info["TimeLimit.truncated"] comes from the old API.',
              "return terminated=False, truncated=True there"),
    "spaces": ("The spaces of an environment stay as they are.", "They follow the level or the episode.",
               "one space that holds all of them, made in __init__"),
    "ends": ("An episode ends.", "There is no time limit, and the end is never reached.",
             "max_episode_steps where it is registered, or gymnasium.wrappers.TimeLimit(env, 1000)"),
    "random": ("An environment draws from random numbers of its own.", "np.random, random and torch are everybody's: "
               "other environments draw from them in between, and seeds no longer decide.",
               "super().reset(seed=seed), then self.np_random"),
    "shared": ("What changes belongs to one environment.", "It stands on the class, which all environments share.",
               "set it on self, in __init__ or reset"),
    "folder": ("The working directory stays as it is.", "os.chdir, to reach a file.",
               "Path(__file__).parent / name, or cwd= of subprocess"),
    "fork": ("The process that calls step is the only one that comes back from it.", "os.fork, whose copy returns too.",
             "subprocess or multiprocessing; os._exit in the copy"),
    "same": ("The same seed and the same actions give the same episode.",
             "Random numbers come from np.random or random, or something survives the reset.",
             "super().reset(seed=seed), draw from self.np_random, and set all of the state in reset"),
}
# fmt: on
