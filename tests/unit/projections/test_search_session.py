"""A search session: results capped and unique, one end, and an hour."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
from hypothesis import given as drawn, strategies as st

from kima_stream.events import (
    EffectDone,
    EffectFailed,
    EffectIntended,
    EffectWithdrawn,
    FoundFile,
    SearchCompleted,
    SearchDownloadRequested,
    SearchExpired,
    SearchFailed,
    SearchFileDownloaded,
    SearchRequested,
    SearchResultsFound,
)
from projections.search_session import FETCH, INITIAL, MAX_RESULTS, SEARCH, News, SearchSession, apply, decide

NOW = datetime(2026, 3, 14, 9, tzinfo=UTC)
ENDS = NOW + timedelta(hours=1)
ASKED = SearchRequested(session_id=UUID(int=7), user_id="ann", query="harbour lights", expires_at=ENDS)


def a_file(number: int, peer: str = "bob") -> FoundFile:
    """A file of a peer."""
    return FoundFile(peer=peer, path=f"share\\Tidewater\\{number:03}.flac", size_bytes=1_000 + number, extension="flac")


def after(*news: News, state: SearchSession = INITIAL, at: datetime = NOW) -> SearchSession:
    """Return the session to which this news came, each decided on what was there."""
    for each in news:
        for event in decide(state, each, at):
            state = apply(state, event)
    return state


def kinds(state: SearchSession) -> list[str]:
    """Return what is to be called."""
    return [effect.kind for effect in state.effects]


def test_a_request_wants_one_search() -> None:
    """Asked twice, it is searched for once."""
    state = after(ASKED, ASKED)

    assert (state.status, kinds(state)) == ("running", [SEARCH])


def test_results_are_unique_and_capped() -> None:
    """A popular name has thousands; the first 200 are kept, each file of a peer once."""
    many = tuple(a_file(number) for number in range(150))
    others = tuple(a_file(number, "eve") for number in range(150))

    state = after(ASKED, SearchResultsFound(results=many), SearchResultsFound(results=(*many, *others)))

    assert len(state.results) == MAX_RESULTS == state.found
    assert len({(file.peer, file.path) for file in state.results}) == MAX_RESULTS
    assert decide(state, SearchResultsFound(results=(a_file(999),)), NOW) == []


def test_it_ends_once() -> None:
    """Completed stays so: later results and a late failure change nothing."""
    state = after(ASKED, SearchResultsFound(results=(a_file(1),)), SearchCompleted(found=99, left_out=4))

    assert (state.status, state.found, state.left_out) == ("completed", 1, 4)
    assert decide(state, SearchResultsFound(results=(a_file(2),)), NOW) == []
    assert decide(state, SearchCompleted(found=0), NOW) == []
    assert decide(state, EffectFailed(effect_id=UUID(int=1), kind=SEARCH, code="gave_up", reason="late"), NOW) == []


def test_a_failed_search_says_why_and_what_next() -> None:
    """The reason of the call is the reason of the session."""
    failed = EffectFailed(effect_id=UUID(int=1), kind=SEARCH, code="unreachable", reason="Soulseek is away.")

    assert decide(after(ASKED), failed, NOW) == [
        SearchFailed(reason="Soulseek is away.", next_step="Search again in a while.")
    ]


def test_after_an_hour_nothing_is_left_of_it() -> None:
    """Its time is over once, at its time: results and words go, what runs is withdrawn."""
    state = after(ASKED, SearchResultsFound(results=(a_file(1),)))
    expired = SearchExpired(expires_at=ENDS)

    assert decide(state, expired, ENDS - timedelta(seconds=1)) == []
    assert decide(state, SearchExpired(expires_at=NOW), ENDS) == []  # another deadline
    over = after(expired, state=state, at=ENDS)
    assert (over.status, over.results, over.query, over.effects) == ("expired", (), "", ())
    assert decide(over, expired, ENDS) == []
    assert decide(over, SearchDownloadRequested(file=a_file(1)), ENDS) == []


def test_a_result_is_fetched_once_and_again_after_a_failure() -> None:
    """Five clicks fetch one file; only what failed is tried again, under another id."""
    file = a_file(1)
    wanted = SearchDownloadRequested(file=file)
    state = after(ASKED, SearchResultsFound(results=(file,)), wanted, wanted)

    assert kinds(state) == [SEARCH, FETCH]
    fetch = state.effects[1]
    state = apply(apply(state, EffectFailed(effect_id=fetch.effect_id, kind=FETCH, code="x", reason="No slot.")), ASKED)
    assert [(each.status, each.reason) for each in state.downloads] == [("failed", "No slot.")]
    [_, intended] = decide(state, wanted, NOW)
    assert isinstance(intended, EffectIntended)
    assert intended.effect.effect_id != fetch.effect_id


def test_what_is_no_result_is_not_fetched() -> None:
    """A path that nobody offered is not asked for."""
    assert decide(after(ASKED), SearchDownloadRequested(file=a_file(1)), NOW) == []


def test_a_fetched_file_is_shown() -> None:
    """Where it lies, and that it is done."""
    file = a_file(1)
    saved = SearchFileDownloaded(peer=file.peer, path=file.path, saved_as="Tidewater/001.flac", size_bytes=1_001)
    state = after(ASKED, SearchResultsFound(results=(file,)), SearchDownloadRequested(file=file), saved)

    assert [(each.status, each.saved_as) for each in state.downloads] == [("completed", "Tidewater/001.flac")]
    assert decide(INITIAL, saved, NOW) == []


_FILES = st.integers(0, 5).map(a_file)
_NEWS = st.one_of(
    st.just(ASKED),
    st.lists(_FILES, max_size=4).map(lambda files: SearchResultsFound(results=tuple(files))),
    st.just(SearchCompleted(found=1)),
    st.just(SearchExpired(expires_at=ENDS)),
    _FILES.map(lambda file: SearchDownloadRequested(file=file)),
    _FILES.map(lambda f: SearchFileDownloaded(peer=f.peer, path=f.path, saved_as="x", size_bytes=f.size_bytes)),
)


@drawn(st.lists(_NEWS, max_size=20))
def test_the_same_news_again_changes_nothing(news: Sequence[News]) -> None:
    """Whatever came before: decided twice, nothing more follows; the state survives being written and read."""
    state = after(*news, at=ENDS)

    for each in news:
        again = after(each, state=state, at=ENDS)
        assert after(each, state=again, at=ENDS) == again
    assert msgspec.json.decode(msgspec.json.encode(state), type=SearchSession) == state


@drawn(st.lists(_NEWS, max_size=20))
def test_an_expired_session_calls_nobody(news: Sequence[News]) -> None:
    """No sequence of news leaves a call open after the end of its time."""
    state = after(*news, ASKED, SearchExpired(expires_at=ENDS), *news, at=ENDS)

    assert state.status == "expired"
    assert state.effects == ()


def test_an_outcome_closes_its_effect() -> None:
    """Done or withdrawn: the search is not open any more."""
    state = after(ASKED)
    effect = state.effects[0].effect_id

    assert apply(state, EffectDone(effect_id=effect)).effects == ()
    assert apply(state, EffectWithdrawn(effect_id=effect)).effects == ()
