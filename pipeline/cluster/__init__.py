"""Ray: connecting, actors, retries, and a job from its plan to its exit code."""

import os

# Ray reads the first when it is imported, so this package comes before it. It keeps Ray's reports of dead workers,
# which are handled here, off the terminal. Ray reads the second when it starts: it keeps Ray from sending statistics.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
