"""All metrics, in one place: name, unit, labels, and who moves them.

Labels are few and bounded: a category, a group, a route template, a known webhook type; never an
id, never text of a sender. Imports nothing of ours.

    metric                                          moved by
    kima_events_appended_total{category}            publisher: when it numbers them, so each once
    kima_duplicate_events_total{category}           group commit: a fact that was in the log already
    kima_webhook_events_total{event_type,status}    the front door, once per webhook
    kima_webhook_processing_duration_seconds        the front door: first byte to answer
    kima_commit_batch_events                        group commit: events that shared one commit
    kima_published_events_total{category}           publisher: handed to Redis
    kima_publish_lag_events / _seconds              publisher: what it found unnumbered when it last looked
    kima_publisher_is_leader                        publisher: 1 while this process leads
    kima_log_position                               publisher: the newest position
    kima_redis_up                                   publisher, subscriptions: 1 while Redis answers
    kima_group_lag_events{group}                    sweep: log minus verified, counted in Postgres
    kima_group_pending{group}                       subscription: read from Redis, not yet acknowledged
    kima_group_stopped{group}                       sweep: 1 while the group has stopped itself
    kima_handle_seconds{group}                      subscription, sweep: one batch, one transaction
    kima_handled_events_total{group}                subscription, sweep
    kima_parked_streams{group}                      sweep: streams that wait for a human
    kima_reconciled_total{group}                    sweep: streams found behind and brought up
    kima_http_requests_total{method,route,status}   the front door, once per request
    kima_http_request_seconds{method,route}         the front door
    kima_live_readers                               the live feed: who watches this process
    kima_download_jobs_total{source,status}         group job_endings: attempts that ended, and how
    kima_active_downloads{source}                   reconcile: attempts under way, counted in Postgres
    kima_download_job_duration_seconds              group job_endings: from the attempt's opening to its end
    kima_cache_operations_total{cache_name,operation}  the cache: get, set, delete
    kima_cache_hits_total / _misses_total{cache_name}  the cache: a look while Redis is away is a miss
    kima_effects_open{system}                       effects: calls that are wanted and have no outcome
    kima_effect_outcomes_total{kind,outcome}        effects: one per attempt
    kima_effect_seconds{kind}                       effects: one attempt, from its lease to the news
    kima_breaker_open{system}                       effects: 1 while a system is not called, but for probes
    kima_soulseek_connection_status                 the account's owner: 1 while it is logged in
    kima_soulseek_searches_total{status}            the owner: success, not_found, failed; shared: not sent again
    kima_soulseek_search_duration_seconds           the owner: from the gate to the end of the answers
    kima_soulseek_gate_wait_seconds                 the gate: how long a search waited for its turn
    kima_soulseek_downloads_total{status}           the owner: success, failed; local: our disk failed
    kima_soulseek_download_duration_seconds{status} the owner: one file, its time in the peer's queue included
    kima_lidarr_api_calls_total{endpoint,status}    the client of Lidarr, once per call, also of those in vain
    kima_lidarr_api_duration_seconds{endpoint}      the client of Lidarr
    kima_settings_version                           settings store: changes that are in force in this process
    kima_setting{key}                               settings store: numbers and switches in force in this process
"""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

OTHER = "other"  # the label of whatever is not in a known set

_FAST: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500)

events_appended = Counter("kima_events_appended_total", "Events committed to the log.", ("category",))
duplicate_events = Counter(
    "kima_duplicate_events_total", "Facts that were in the log already and got their first answer again.", ("category",)
)
webhook_events = Counter(
    "kima_webhook_events_total",
    "Webhooks by type and outcome: accepted, duplicate, conflicting (a duplicate with another body), "
    "rejected, unauthorized, unavailable.",
    ("event_type", "status"),
)
webhook_processing_seconds = Histogram(
    "kima_webhook_processing_duration_seconds",
    "From the body's first byte to the answer, the commit included.",
    ("event_type",),
    buckets=_FAST,
)
commit_batch_events = Histogram(
    "kima_commit_batch_events", "Events that shared one commit at the front door.", buckets=_SIZES
)

published_events = Counter("kima_published_events_total", "Events handed to Redis.", ("category",))
publish_lag_events = Gauge("kima_publish_lag_events", "Events found unnumbered at the last look.")
publish_lag_seconds = Gauge("kima_publish_lag_seconds", "Age of the oldest of them.")
publisher_is_leader = Gauge("kima_publisher_is_leader", "1 while this process holds the publisher's lease.")
log_position = Gauge("kima_log_position", "The newest position of the log.")
redis_up = Gauge("kima_redis_up", "1 while Redis answers this process.")

group_lag_events = Gauge(
    "kima_group_lag_events", "Events of the category above what the group has verified.", ("group",)
)
group_pending = Gauge("kima_group_pending", "Entries read from Redis and not yet acknowledged.", ("group",))
group_stopped = Gauge("kima_group_stopped", "1 while the group has stopped itself.", ("group",))
handle_seconds = Histogram(
    "kima_handle_seconds", "One batch of a consumer group in its transaction.", ("group",), buckets=_FAST
)
handled_events = Counter("kima_handled_events_total", "Events handled by a consumer group.", ("group",))
parked_streams = Gauge("kima_parked_streams", "Streams that wait for a human.", ("group",))
reconciled = Counter("kima_reconciled_total", "Streams found behind and brought up by the sweep.", ("group",))

http_requests = Counter(
    "kima_http_requests_total", "Requests by method, route template and status.", ("method", "route", "status")
)
http_request_seconds = Histogram(
    "kima_http_request_seconds", "From the request's head to the answer.", ("method", "route"), buckets=_FAST
)
live_readers = Gauge("kima_live_readers", "Readers of the live feed at this process.")

soulseek_connection_status = Gauge(
    "kima_soulseek_connection_status", "1 while this process is logged in to Soulseek, else 0."
)
soulseek_searches = Counter("kima_soulseek_searches_total", "Searches by outcome.", ("status",))
soulseek_search_seconds = Histogram(
    "kima_soulseek_search_duration_seconds",
    "From the gate to the end of the answers.",
    buckets=(1, 5, 10, 15, 20, 30, 45, 60),
)
soulseek_gate_wait_seconds = Histogram(
    "kima_soulseek_gate_wait_seconds", "How long a search waited at the gate.", buckets=(0.1, 1, 10, 30, 60, 220, 600)
)
soulseek_downloads = Counter("kima_soulseek_downloads_total", "Files by outcome.", ("status",))
soulseek_download_seconds = Histogram(
    "kima_soulseek_download_duration_seconds",
    "One file, from its request to its end.",
    ("status",),
    buckets=(5, 10, 30, 60, 120, 300, 600, 1200),
)

cache_operations = Counter(
    "kima_cache_operations_total", "Operations on the cache: get, set, delete.", ("cache_name", "operation")
)
cache_hits = Counter("kima_cache_hits_total", "Looks that found what others answered.", ("cache_name",))
cache_misses = Counter("kima_cache_misses_total", "Looks that found nothing, or no Redis.", ("cache_name",))

download_jobs = Counter(
    "kima_download_jobs_total",
    "Attempts of download jobs that ended, by source and how: success, partial, failed, cancelled.",
    ("source", "status"),
)
active_downloads = Gauge("kima_active_downloads", "Attempts of download jobs under way.", ("source",))
download_job_seconds = Histogram(
    "kima_download_job_duration_seconds",
    "From the opening of an attempt to its end.",
    ("source", "status"),
    buckets=(1, 5, 10, 30, 60, 120, 300, 600),
)
effects_open = Gauge("kima_effects_open", "Calls that are wanted and have no outcome yet.", ("system",))
effect_outcomes = Counter(
    "kima_effect_outcomes_total",
    "Attempts by how they ended: done, failed, known (another told first), postponed, withdrawn, fenced, stopped.",
    ("kind", "outcome"),
)
effect_seconds = Histogram(
    "kima_effect_seconds",
    "One attempt, from its lease to the news.",
    ("kind",),
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 1_800, 7_200),
)
breaker_open = Gauge("kima_breaker_open", "1 while a system does not answer and is not called.", ("system",))
lidarr_api_calls = Counter(
    "kima_lidarr_api_calls_total",
    "Calls of Lidarr's API by path, ids as {id}, and status: HTTP's, timeout or unreachable.",
    ("endpoint", "status"),
)
lidarr_api_seconds = Histogram(
    "kima_lidarr_api_duration_seconds",
    "From the call of Lidarr's API to the end of its answer.",
    ("endpoint",),
    buckets=(0.1, 0.5, 1, 2, 5, 10),
)
settings_version = Gauge("kima_settings_version", "How many changes of the settings are in force in this process.")
setting = Gauge(
    "kima_setting", "A setting in force in this process: a number, or a switch as 1 and 0; no secret is one.", ("key",)
)
