"""Which published networks the engine runs: one trial a network, one json file, one table."""
