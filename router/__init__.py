"""Events in, commands out: expands workflows into steps and follows their results."""
