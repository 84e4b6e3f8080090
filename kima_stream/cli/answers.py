"""What ``doctor`` makes of the answers of HTTP servers: our own door, Lidarr, slskd. Pure."""

from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from kima_stream.cli.diagnosis import Finding, fault, ok, warn
from kima_stream.cli.surroundings import Answer
from kima_stream.cli.text import plain
from kima_stream.http.health import Readiness
from kima_stream.integrations import lidarr_registration
from kima_stream.integrations.lidarr_types import Notification, Whole

_OK: Final = 200
_REDIRECTS: Final = range(300, 400)
_REFUSED: Final = frozenset({401, 403})


class _LidarrStatus(msgspec.Struct):
    """What counts of ``GET /api/v1/system/status``. Source: Lidarr's OpenAPI."""

    appName: str  # noqa: N815 - Lidarr's name
    version: str


def front_door(answer: Answer) -> Finding:
    """Judge what /readyz said."""
    part = "front door"
    if answer.error:
        fix = "start kima-stream up, or kima-stream serve; KIMA_HOST and KIMA_PORT say where it listens"
        return fault(part, f"nobody answers on {answer.where}: {plain(answer.error)}", fix)
    try:
        ready = msgspec.json.decode(answer.body, type=Readiness)
    except msgspec.DecodeError:
        fix = "another program may have the port: set KIMA_PORT; or set KIMA_URL_BASE as the door has it"
        return fault(part, f"what answers on {answer.where} is not kima-stream (status {answer.status})", fix)
    bad = [f"{name}: {plain(check.detail or check.status)}" for name, check in ready.checks.items()
           if check.status != "ok"]  # fmt: skip
    match ready.status:
        case "ok":
            return ok(part, f"ready on {answer.where}")
        case "degraded":
            return warn(part, f"degraded, takes everything ({', '.join(bad)})", "see the lines of these parts")
        case "unavailable":
            return fault(part, f"takes nothing ({', '.join(bad)})", "see the lines of these parts")


def lidarr(answer: Answer | None) -> Finding:
    """Judge what Lidarr said about itself; None: it is not configured."""
    part = "lidarr"
    if answer is None:
        return ok(part, "not configured (LIDARR_URL, LIDARR_API_KEY)")
    found = _refusal(part, answer, key="LIDARR_API_KEY: Lidarr has it under Settings, General, Security")
    if found is not None:
        return found
    try:
        status = msgspec.json.decode(answer.body, type=_LidarrStatus)
    except msgspec.DecodeError:
        return _stranger(part, answer)
    return ok(part, f"{plain(status.appName)} {plain(status.version)} at {answer.where}")


def webhook(found: Sequence[Whole[Notification]], our_keys: Collection[str]) -> Finding:
    """Judge whether Lidarr tells us what happens, with one of ``our_keys``; a password behind its mask may be one."""
    part, connect = "lidarr webhook", "run: kima-stream connect lidarr"
    webhooks = [each for each in found if lidarr_registration.has_our_path(each.resource.url)]
    keyed = [each for each in webhooks if lidarr_registration.secret_of(each.resource) in our_keys]
    ours = next(iter([*keyed, *(each for each in webhooks if each.resource.field("password"))]), None)
    if ours is None:
        if webhooks:
            return fault(part, f"{plain(webhooks[0].resource.name)} carries no key of ours: nothing arrives", connect)
        return warn(part, "Lidarr does not tell us what happens", connect)
    silent = [flag for flag in lidarr_registration.NEEDED if ours.body.get(flag) is not True]
    if silent:
        return warn(part, f"{plain(ours.resource.name)} does not send {', '.join(silent)}", connect)
    where = plain(lidarr_registration.host_of(ours.resource.url))
    return ok(part, f"{plain(ours.resource.name)} leads to {where}" + ("" if keyed else ", with a password"))


def slskd(answer: Answer | None) -> Finding:
    """Judge what slskd said its version is; None: it is not configured."""
    part = "slskd"
    if answer is None:
        return ok(part, "not configured (SLSKD_URL, SLSKD_API_KEY)")
    found = _refusal(part, answer, key="SLSKD_API_KEY: slskd has it in its configuration, web.authentication.api_keys")
    if found is not None:
        return found
    try:
        version = msgspec.json.decode(answer.body, type=str)
    except msgspec.DecodeError:
        return _stranger(part, answer)
    return ok(part, f"slskd {plain(version)} at {answer.where}")


def _refusal(part: str, answer: Answer, *, key: str) -> Finding | None:
    address = f"{part.upper()}_URL"
    if answer.error:
        said = f"{answer.where} does not answer: {plain(answer.error)}"
        return fault(part, said, f"is it running, and is {address} right as seen from this machine?")
    if answer.status in _REFUSED:
        return fault(part, f"{answer.where} refuses our key (status {answer.status})", f"set {key}")
    if answer.status in _REDIRECTS:
        return fault(part, f"{answer.where} leads elsewhere", f"set {address} to where it leads, with its URL base")
    return None if answer.status == _OK else _stranger(part, answer)


def _stranger(part: str, answer: Answer) -> Finding:
    said = f"what answers on {answer.where} is not {part} (status {answer.status})"
    return fault(part, said, f"set {part.upper()}_URL to its address, with its URL base if it has one")
