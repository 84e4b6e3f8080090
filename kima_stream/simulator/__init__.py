"""A Lidarr that plays its part: the REST API, the webhooks, and records of its own to judge us by.

For tests and for ``demo``. It imports nothing of ours but itself: an oracle that shares code with
what it judges shares its mistakes. Clock and chance are handed in; the same seed plays the same.
Source: the public repository Lidarr/Lidarr @ 0501e615.
"""
