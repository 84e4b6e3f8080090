"""The simulator's webhooks against Lidarr's own output, byte for byte."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from uuid import UUID

import pytest
from msgspec.structs import replace

from kima_stream.simulator import payloads
from kima_stream.simulator.catalogue import KnownAlbum, KnownArtist, KnownTrack
from kima_stream.simulator.library import Album, Artist, Download, Release, TrackFile
from kima_stream.simulator.payloads import Body, HealthIssue, Sender
from tests.front_door import webhook

SENDER = Sender(application_url="http://lidarr:8686")
SCENE = "The.Harbour.Lights-Tidewater-WEB-FLAC-2019-WEBGRP"
ISSUE = HealthIssue(
    level="error",
    message="Missing root folder: /music",
    type="RootFolderCheck",
    wiki_url="https://wiki.servarr.com/lidarr/system#missing-root-folder",
)
TITLES = ("Slack Tide", "Lantern Room", "Northeast by North")


def known_album(mbid: str, title: str) -> KnownAlbum:
    """Return an album as the fixtures describe it."""
    tracks = tuple(
        KnownTrack(title=track, number=str(number), milliseconds=200_000, size_bytes=30_000_000)
        for number, track in enumerate(TITLES, 1)
    )
    return KnownAlbum(
        mbid=UUID(mbid),
        artist_mbid=UUID("6f1c2a34-8b5d-4e7f-9a10-2b3c4d5e6f70"),
        title=title,
        released=date(2019, 4, 12),
        genres=("Dream Pop",),
        tracks=tracks,
        overview="Second studio album.",
    )


ARTIST = Artist(
    id=42,
    known=KnownArtist(
        mbid=UUID("6f1c2a34-8b5d-4e7f-9a10-2b3c4d5e6f70"),
        name="The Harbour Lights",
        albums=(),
        genres=("Dream Pop", "Indie Rock"),
        disambiguation="Bristol indie band",
        overview="The Harbour Lights are a four-piece formed in Bristol in 2009.",
    ),
    added=datetime(2025, 1, 1, tzinfo=UTC),
    path="/music/The Harbour Lights",
    tags=("kima",),
)
ALBUM = Album(
    id=317,
    artist=ARTIST,
    known=known_album("0d9b7f3e-1c2d-4a5b-8e6f-7a8b9c0d1e2f", "Tidewater"),
    first_track_id=5501,
)
OTHER = Album(
    id=318,
    artist=replace(ARTIST, tags=()),
    known=known_album("9e8d7c6b-5a49-4382-b716-05f4e3d2c1b0", "Low Water Mark"),
)
RELEASE = Release(
    guid="g",
    title="The Harbour Lights-Tidewater-WEB-FLAC-2019-WEBGRP",
    size_bytes=312_475_648,
    custom_formats=("Preferred Groups",),
    custom_format_score=5,
)
DOWNLOAD = Download(id="3F2504E04F8911D39A0C0305E82C3301A1B2C3D4", albums=[ALBUM], release=RELEASE, added=ARTIST.added)
DISCOGRAPHY = Download(
    id=None,
    albums=[replace(ALBUM, artist=OTHER.artist), OTHER],
    release=Release(
        guid="g",
        title="The Harbour Lights - Discography (2014-2019) [MP3 320]",
        size_bytes=734_003_200,
        quality="MP3-320",
        group=None,
    ),
    added=ARTIST.added,
    client="Blackhole",
    client_type="Torrent Blackhole",
)


def file(index: int, *, is_scene: bool = True) -> TrackFile:
    """Return the file of one track of the fixtures."""
    return TrackFile(
        id=9001 + index,
        path=f"{ALBUM.folder}/The Harbour Lights - Tidewater - {index + 1:02} - {TITLES[index]}.flac",
        size_bytes=31_457_280 + index * 1_048_576,
        date_added="2026-03-14T09:26:53.5897932Z",
        release_group="WEBGRP" if is_scene else None,
        scene_name=SCENE if is_scene else None,
    )


WORSE = replace(file(0), id=8001, path=file(0).path.replace(".flac", ".mp3"), quality="MP3-320", size_bytes=10_485_760)
BODIES: Mapping[str, Body] = {
    "test": payloads.test(Sender()),
    "grab": payloads.grab(DOWNLOAD, SENDER),
    "grab-multi-album-no-download-id": payloads.grab(DISCOGRAPHY, Sender()),
    "download": payloads.imported(ALBUM, {index: file(index) for index in range(3)}, SENDER, download=DOWNLOAD),
    "download-upgrade": payloads.imported(ALBUM, {0: file(0)}, SENDER, download=DOWNLOAD, deleted=[WORSE]),
    "download-manual-import": payloads.imported(ALBUM, {1: file(1, is_scene=False)}, SENDER, download=None),
    "download-failure": payloads.download_failure(DOWNLOAD, SENDER),
    "import-failure": payloads.import_failure(SENDER),
    "rename": payloads.rename(ARTIST, [(file(0), "/music/The Harbour Lights/Tidewater/01 slack tide.flac")], SENDER),
    "retag": payloads.retag(ARTIST, file(0), SENDER),
    "artist-add": payloads.artist_add(ARTIST, SENDER),
    "artist-delete": payloads.artist_delete(ARTIST, SENDER, deleted_files=True),
    "album-delete": payloads.album_delete(ALBUM, SENDER, deleted_files=False),
    "health": payloads.health(ISSUE, SENDER),
    "health-restored": payloads.health_restored(ISSUE, SENDER),
    "application-update": payloads.application_update("2.13.3.4711", "2.14.2.4786", SENDER),
}


@pytest.mark.parametrize("name", BODIES)
def test_every_webhook_is_lidarrs_own_byte_for_byte(name: str) -> None:
    """Keys, their order, indentation and what is left out are those of the compiled Lidarr."""
    assert payloads.encode(BODIES[name]) == webhook(name).rstrip(b"\n")


def test_letters_are_sent_as_they_are_and_line_separators_escaped() -> None:
    """Newtonsoft.Json escapes three letters beyond ASCII, and no other."""
    assert payloads.encode({"name": "Sjöfn 四季 \u2028 \x85"}) == (
        '{\n  "name": "Sjöfn 四季 \\u2028 \\u0085"\n}'.encode()
    )
