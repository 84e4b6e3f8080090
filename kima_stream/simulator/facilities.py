"""What hardly changes in a Lidarr: its version, profiles and root folder, as the REST API shows them. Pure."""

from datetime import datetime
from typing import Final

from kima_stream.simulator.library import SHOWN_TYPES, iso
from kima_stream.simulator.resources import QUALITY_MODEL, Json

VERSION: Final = "2.14.2.4786"


def system_status(started: datetime) -> Json:
    """Return what a connection test reads."""
    return {
        "appName": "Lidarr",
        "instanceName": "Lidarr",
        "version": VERSION,
        "buildTime": "2025-10-05T00:00:00Z",
        "isDebug": False,
        "isProduction": True,
        "isAdmin": False,
        "isUserInteractive": False,
        "startupPath": "/app/lidarr/bin",
        "appData": "/config",
        "osName": "ubuntu",
        "osVersion": "22.04",
        "isNetCore": True,
        "isLinux": True,
        "isOsx": False,
        "isWindows": False,
        "isDocker": True,
        "mode": "console",
        "branch": "develop",
        "databaseType": "sqLite",
        "databaseVersion": "3.46.1",
        "authentication": "forms",
        "migrationVersion": 78,
        "urlBase": "",
        "runtimeVersion": "6.0.35",
        "runtimeName": "netcore",
        "startTime": iso(started),
        "packageUpdateMechanism": "docker",
    }


def quality_profile() -> Json:
    """Return the one quality profile."""
    item = {"quality": QUALITY_MODEL["quality"], "items": [], "allowed": True}
    return {
        "id": 1,
        "name": "Lossless",
        "upgradeAllowed": True,
        "cutoff": 6,
        "items": [item],
        "minFormatScore": 0,
        "cutoffFormatScore": 0,
        "formatItems": [],
    }


def metadata_profile() -> Json:
    """Return the one metadata profile: albums only, as many have it."""
    kinds = ("Album", "EP", "Single", "Broadcast", "Other")
    return {
        "id": 1,
        "name": "Albums only",
        "primaryAlbumTypes": [
            {"albumType": {"id": number, "name": name}, "allowed": name in SHOWN_TYPES}
            for number, name in enumerate(kinds)
        ],
        "secondaryAlbumTypes": [{"albumType": {"id": 0, "name": "Studio"}, "allowed": True}],
        "releaseStatuses": [{"releaseStatus": {"id": 0, "name": "Official"}, "allowed": True}],
    }


def root_folder(path: str) -> Json:
    """Return the one root folder; sizes in bytes."""
    return {
        "id": 1,
        "name": "Music",
        "path": path,
        "defaultMetadataProfileId": 1,
        "defaultQualityProfileId": 1,
        "defaultMonitorOption": "none",
        "defaultNewItemMonitorOption": "none",
        "defaultTags": [],
        "accessible": True,
        "freeSpace": 500_000_000_000,
        "totalSpace": 1_000_000_000_000,
    }
