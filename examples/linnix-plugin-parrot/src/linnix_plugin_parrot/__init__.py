"""A toy model for Linnix: a deployer serves it, a reasoner asks it, a command drives both."""
