"""Soulseek: one account, one owner in the world, and what it does for everybody else.

Pure: ``queries``, ``ranking``, ``names``. Rows that all processes share: ``account``, ``gate``, ``peers``,
``plans``. The library is known in ``library`` alone; ``ownership`` decides who may use it.
"""
