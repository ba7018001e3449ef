"""Ray: connecting, actors, retries, and a job from its plan to its exit code."""
