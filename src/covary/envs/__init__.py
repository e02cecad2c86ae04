"""Environments: the only room that imports gymnasium. Importing it registers `covary/Heliostat-v0`."""

import gymnasium

if "covary/Heliostat-v0" not in gymnasium.registry:
    gymnasium.register(
        "covary/Heliostat-v0",
        entry_point="covary.envs.heliostat:Heliostat",
        vector_entry_point="covary.envs.heliostat:HeliostatVectorEnv",
    )
