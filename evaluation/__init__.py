"""How well incidents are detected: real programs, recorded once, judged as often as wanted."""
