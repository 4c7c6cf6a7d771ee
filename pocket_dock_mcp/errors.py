"""Every error that pocket-dock-mcp raises on purpose.

    PocketDockError                    code, message, hint (the next step)
    +- InvalidArgumentError            ValueError: the call itself is wrong
    +- ConfigError                     ValueError: an environment variable or option is wrong
    +- LimitsNotEnforcedError          PermissionError: the engine did not apply what we asked for
    |  +- FilterMissingError           a kept sandbox was made without our filter of system calls
    +- ProjectNotInitializedError      LookupError: there is no project here
    +- HostPathError                   PermissionError: a path of the host that no sandbox may be given
    +- QuotaError                      too many sandboxes or snapshots
    +- CapacityError                   as many sandboxes as this server makes for all of its users
    +- HttpSessionNotFoundError        there is no HTTP session of this id, or it is somebody else's
    +- StateError                      the state directory cannot be written
    +- EngineError
    |  +- EngineUnavailableError       ConnectionError: nobody answers
    |  +- EngineTimeoutError           TimeoutError: somebody listens and does not answer
    |  +- EngineResponseError          the engine refused or failed
    |  |  +- RuntimeNotThereError      it starts no containers with what was asked for
    |  +- EngineConflictError          the object is in another state, or the name is taken
    |  +- EngineDiskError              its disk has less room than is to stay free
    |  +- ContainerGoneError           LookupError: the engine knows no such container
    |  +- ProgramNotFoundError         the image has no such program
    +- ImageError
    |  +- ImageNotFoundError           LookupError
    |  +- ImageBuildError
    |  +- ImageArchiveError            a file is no archive of images, or a damaged one
    +- SandboxError
    |  +- SandboxNotFoundError         LookupError: no such id, or somebody else's: one answer
    |  +- SandboxBusyError             another process of yours uses it, and it cannot be shared
    |  +- SandboxLostError             it died, and not by our hand
    |  |  +- SandboxDetachedError      it is kept, and cannot be reached this way any more
    |  +- SandboxStateError            it is not in the state that this needs
    |  |  +- SandboxClosedError        you closed or stopped it
    |  +- SandboxNameTakenError        another container has the name that it was to have
    |  +- SandboxPausedError           somebody has paused its container
    |  +- SnapshotNotFoundError        LookupError
    |  +- ProcessLimitError            no process can be started in it
    |  +- RunNotStartedError           what starts programs in it was killed by a program in it
    |  +- RunNotFoundError             LookupError: no such id, or somebody else's: one answer
    |  +- SessionError                 about one persistent session
    |  |  +- SessionDiedError          it is gone, with what it held
    |  |  +- SessionBusyError          it was never free
    |  |  +- SessionClosedError        it has ended, or was closed by its user
    |  |  +- CheckpointError            no copy of it could be made, or gone back to
    |  |     +- CheckpointThreadsError  it has threads, which a copy would not have
    |  |     +- CheckpointNotFoundError LookupError: there is none of this id, or not any more
    |  +- SearchError                  a search for files failed
    |  |  +- SearchTimeoutError        TimeoutError: its pattern does not come to an end
    |  +- WorkspaceError               a home directory in memory could not be moved
    |  +- UnkeepableNamesError         no image can hold files of these names
    |  +- CompareError                 two states of files could not be compared
    |  +- RequestRefusedError          its agent could not serve a request, and lives on
    |  +- PortError                    a port of the host cannot lead into it
    |  |  +- PortInUseError            somebody else listens there
    |  +- ProvisionError               the engine was asked for a volume or a device, and it is not there
    |  +- TransferError                a push or pull came to no good end; nothing of it is there
    |     +- TransferLimitError        it has more files or bytes than it may have
    +- AgentError
    |  +- AgentProtocolError           the peer in the container broke the protocol
    |  +- AgentTimeoutError            TimeoutError: the peer did not answer in time
    |  +- StreamLostError              ConnectionError: the stream ended in the middle
    |     +- SandboxHaltedError        another client has ended what was at its other end
    +- FileError                       OSError-like: about one path in a sandbox
    |  +- SandboxFileNotFoundError     FileNotFoundError
    |  +- FileDeniedError              PermissionError
    |  +- FileIsDirectoryError         IsADirectoryError
    |  +- FileNotDirectoryError        NotADirectoryError
    |  +- FileNotRegularError          a FIFO, socket or device
    |  +- SymlinkLoopError
    |  +- FileTooLargeError
    |  +- FileNotTextError
    |  +- FileChangedError             it is not what was read any more
    |  +- EditNotFoundError            what an edit replaces is not in the file
    |  +- EditAmbiguousError           it is there more than once
    |  +- DiskFullError
    +- StreamNotEndedError             RuntimeError: what came of a run is asked for before its end
    +- HostFileError                   OSError-like: about one path on this machine
    |  +- HostFileNotFoundError        FileNotFoundError
    |  +- HostFileDeniedError          PermissionError
    |  +- HostFileInTheWayError        FileExistsError: a file for a directory, or the other way round
    +- RunFailedError                  only from RunResult.check()

A program that fails is a *result*; these are for what the caller or the engine has to mend.
"""

from __future__ import annotations

MAX_MESSAGE = 2048
"""Characters kept of a message: names and engine texts can be megabytes."""


class PocketDockError(Exception):
    """The root. ``code`` is stable and part of the API; ``hint`` says what to do next."""

    code = "error"
    default_hint = ""
    excerpt = ""
    """Lines of a file that the message is about: as they are, so data of unknown origin."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        self.message = _printable(message)
        self.hint = self.default_hint if hint is None else _printable(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        """One line: the message, and what to do next."""
        return f"{self.message} {self.hint}".strip() if self.hint else self.message


def _printable(text: str) -> str:
    """Cap the text and escape control characters: it may quote a hostile program or engine."""
    if len(text) > MAX_MESSAGE:
        text = f"{text[:MAX_MESSAGE]}... [{len(text) - MAX_MESSAGE} characters left out]"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class InvalidArgumentError(PocketDockError, ValueError):
    """An argument that can never work: out of range, malformed or contradictory."""

    code = "invalid_argument"


class ConfigError(PocketDockError, ValueError):
    """A setting (environment variable or command-line option) that makes no sense."""

    code = "config"


class ProjectNotInitializedError(PocketDockError, LookupError):
    """What is asked for is of a project, and there is none."""

    code = "project_not_initialized"
    default_hint = "Make one: pocket-dock init"

    def __init__(
        self, message: str = "There is no project here, nor above.", *, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)


class LimitsNotEnforcedError(PocketDockError, PermissionError):
    """A limit or a protection was requested and does not hold inside the container."""

    code = "limits_not_enforced"
    default_hint = (
        "The sandbox was not handed out. Run on cgroup v2 with delegated controllers, or set "
        "POCKET_DOCK_LIMITS=best-effort to accept what this engine can do."
    )

    def __init__(self, message: str, *, missing: tuple[str, ...] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.missing = missing
        """What does not hold, by name."""


class FilterMissingError(LimitsNotEnforcedError):
    """A kept sandbox was made without our filter of system calls, and keeps what it was made with."""

    code = "filter_missing"
    default_hint = (
        "Set POCKET_DOCK_SECCOMP=engine to use it as it was. To have its files behind the filter: with that "
        "set, make a snapshot of it; then, without, a new sandbox of the snapshot."
    )

    def __init__(self) -> None:
        super().__init__(
            "This sandbox was made without our filter of system calls, by an earlier release or with "
            "POCKET_DOCK_SECCOMP=engine. Its files are untouched.",
            missing=("seccomp",),
        )


class HostPathError(PocketDockError, PermissionError):
    """A path or device of the host that a sandbox may not be given, or that is not there."""

    code = "host_path_refused"


class QuotaError(PocketDockError):
    """The owner already has as many as allowed."""

    code = "quota"


class CapacityError(PocketDockError):
    """All owners together have as many as this server gives; how many anybody else has is not said."""

    code = "capacity"
    default_hint = "Try again later. Killing what you do not need any more makes room, too."


class StateError(PocketDockError):
    """What has to be on record before anything is made cannot be written; so nothing was made."""

    code = "state"
    default_hint = "Make the state directory writable, or set POCKET_DOCK_STATE_DIR to one that is."


class EngineError(PocketDockError):
    """Something is wrong between us and the container engine."""

    code = "engine_error"


class EngineUnavailableError(EngineError, ConnectionError):
    """No engine answers at the addresses tried."""

    code = "engine_down"


class EngineTimeoutError(EngineError, TimeoutError):
    """The engine accepted a request and did not answer within its deadline."""

    code = "engine_timeout"
    default_hint = "The engine is overloaded or stuck. Try again; if it stays so, restart the engine."


class EngineResponseError(EngineError):
    """The engine answered with an error that has no class of its own."""


class RuntimeNotThereError(EngineResponseError):
    """The engine does not start containers with the runtime that was asked for."""

    code = "runtime_not_there"
    default_hint = (
        "Correct POCKET_DOCK_RUNTIME, or have the engine know the runtime by this name. Docker: under "
        '"runtimes" in daemon.json. Podman takes one for all of its API: start its service with --runtime, '
        'or set "runtime" in containers.conf.'
    )


class EngineConflictError(EngineError):
    """The engine refused because of the object's present state (HTTP 409)."""

    code = "engine_conflict"


class EngineDiskError(EngineError):
    """The engine's disk has less room than is to stay free."""

    code = "engine_disk_full"


class ContainerGoneError(EngineError, LookupError):
    """The engine knows no such container (any more)."""

    code = "container_gone"


class ProgramNotFoundError(EngineError):
    """The container's first program does not exist in the image."""

    code = "program_not_found"


class ImageError(PocketDockError):
    """Something is wrong with an image."""

    code = "image_error"


class ImageNotFoundError(ImageError, LookupError):
    """The image is neither on the engine nor to be had from a registry."""

    code = "image_not_found"


class ImageBuildError(ImageError):
    """An image could not be built."""

    code = "image_build_failed"


class ImageArchiveError(ImageError):
    """A file is no archive of images, or what is in it is not what it says."""

    code = "image_archive"


class SandboxError(PocketDockError):
    """Something is wrong with one sandbox."""

    code = "sandbox_error"


class SandboxNotFoundError(SandboxError, LookupError):
    """No sandbox of yours has this id. Somebody else's id gets the very same answer."""

    code = "sandbox_not_found"
    default_hint = "It may have expired or been killed. Call create_sandbox to get a new one."

    def __init__(self, message: str = "There is no such sandbox.", *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)


class SandboxBusyError(SandboxError):
    """The sandbox is kept, is yours, and another process of yours is using it alone."""

    code = "sandbox_busy"
    default_hint = (
        "It cannot be shared now: that takes an image with python3, and a sandbox begun with this release. "
        "End the other process, stop the sandbox, or use another one."
    )

    def __init__(
        self, message: str = "Another process is using this sandbox.", *, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)


class SandboxLostError(SandboxError):
    """The sandbox died, and not because its owner asked for it."""

    code = "sandbox_lost"
    default_hint = "Its files are gone. Call create_sandbox to get a new one."


class SandboxDetachedError(SandboxLostError):
    """The sandbox is kept, and this handle to it is of no use any more."""

    code = "sandbox_detached"
    default_hint = "It is kept: attach to it again, or resume it if it has stopped."


class SandboxStateError(SandboxError):
    """The sandbox is not in the state that this needs: it runs, has stopped, or is not one that is kept."""

    code = "sandbox_state"


class SandboxClosedError(SandboxStateError):
    """The sandbox was closed or stopped by its owner."""

    code = "sandbox_closed"


class SandboxNameTakenError(SandboxError):
    """The engine has a container of the name that this one was to have."""

    code = "name_taken"


class SandboxPausedError(SandboxError):
    """Somebody has paused the container, from outside; nothing in it goes on until it is unpaused."""

    code = "sandbox_paused"


class SnapshotNotFoundError(SandboxError, LookupError):
    """No snapshot of yours has this id."""

    code = "snapshot_not_found"

    def __init__(self) -> None:
        super().__init__("There is no such snapshot.", hint="Call list_sandboxes to see what there is.")


class HttpSessionNotFoundError(PocketDockError):
    """An HTTP session is unknown, has ended, or is somebody else's: nobody can tell which."""

    code = "http_session_not_found"

    def __init__(self) -> None:
        super().__init__("There is no such session.")


class RunNotFoundError(SandboxError, LookupError):
    """No run of yours has this id (any more). Somebody else's id gets the very same answer."""

    code = "run_not_found"
    default_hint = (
        "A sandbox remembers its latest 256 runs, and none when it has ended; one that persists forgets them "
        "too when it is stopped."
    )

    def __init__(self) -> None:
        super().__init__("There is no such run.")


class ProcessLimitError(SandboxError):
    """No further process can be started: the sandbox's limit is reached."""

    code = "process_limit"


class RunNotStartedError(SandboxError):
    """A program of the sandbox killed what starts programs, and this one with it."""

    code = "not_started"


class SessionError(SandboxError):
    """Something is wrong with a persistent session; the code that was to run in it has not run."""

    code = "session_error"


class SessionDiedError(SessionError):
    """The session died before this run, and what it held is gone."""

    code = "session_died"
    default_hint = "Call again to begin a new session of that name; what it held has to be made anew."


class SessionBusyError(SessionError):
    """The session was busy with earlier runs for the whole of this run's time limit."""

    code = "session_busy"
    default_hint = "Wait for the earlier run, kill it, or use another session."


class SessionClosedError(SessionError):
    """The session has ended, or its user has closed it; it is not begun again."""

    code = "session_closed"
    default_hint = "What it held is gone. Begin another with session()."


class CheckpointError(SessionError):
    """A session could not be copied, or not be replaced by its copy; it is as it was."""

    code = "checkpoint_failed"


class CheckpointThreadsError(CheckpointError):
    """The session has threads besides its main one, which a copy of it would not have."""

    code = "checkpoint_threads"
    default_hint = (
        "End them first: shut down executors and join threads. Threads of OpenBLAS (numpy) are no obstacle, "
        "those of OpenMP and of most network libraries are."
    )


class CheckpointNotFoundError(CheckpointError, LookupError):
    """The session has no checkpoint of this id, or not any more."""

    code = "checkpoint_not_found"
    default_hint = "It may have been killed, have died (of memory, say), or have ended with its session."


class SearchError(SandboxError):
    """A search for files came to no result."""

    code = "search_failed"


class SearchTimeoutError(SearchError, TimeoutError):
    """A search was ended for its time: its regular expression backtracks for ever, or nothing moves."""

    code = "search_timeout"


class WorkspaceError(SandboxError):
    """The files could not be made ready for a snapshot, or a home directory in memory not be put back."""

    code = "workspace_failed"
    default_hint = "Stop what runs in the sandbox, and try again."


class UnkeepableNamesError(SandboxError):
    """Files have names or paths that no image can hold: a snapshot or a fork would be without them."""

    code = "unkeepable_names"
    default_hint = "Rename, move or delete them, or pack them into an archive first."


class CompareError(SandboxError):
    """Two states of a sandbox's files could not be compared."""

    code = "compare_failed"


class TransferError(SandboxError):
    """Files could not be moved in or out of a sandbox; nothing half-written is left under their names."""

    code = "transfer_failed"


class TransferLimitError(TransferError):
    """What was to be moved has more files, or more bytes, than one call moves."""

    code = "transfer_limit"


class RequestRefusedError(SandboxError):
    """The agent could not serve a request, in a way that nobody expects of it. It can be spoken to again."""

    code = "request_refused"
    default_hint = "Try again; if it stays so, create another sandbox."


class PortError(SandboxError):
    """A port of the host cannot lead to one of the sandbox."""

    code = "port_failed"


class PortInUseError(PortError):
    """Somebody else listens on this port of the host."""

    code = "port_in_use"
    default_hint = "Use another port of the host, or 0 for a free one; ss -ltnp shows who has it."


class ProvisionError(SandboxError):
    """The engine was asked for a volume or a device, and inside it is not there or cannot be used."""

    code = "not_provided"


class AgentError(PocketDockError):
    """Something is wrong with the program that serves us inside a container."""

    code = "agent_error"


class AgentProtocolError(AgentError):
    """The peer inside sent a frame that the protocol does not allow. It is not spoken to again."""

    code = "agent_protocol"


class AgentTimeoutError(AgentError, TimeoutError):
    """The peer inside did not answer within the request's deadline."""

    code = "agent_timeout"


class StreamLostError(AgentError, ConnectionError):
    """The stream to the container ended while a request was under way."""

    code = "stream_lost"


class SandboxHaltedError(StreamLostError):
    """Another client has stopped, rebooted or destroyed the sandbox, and its agent has said so."""

    code = "sandbox_halted"
    WORDS = ("stopped", "rebooted", "destroyed")

    @classmethod
    def because(cls, said: object) -> SandboxHaltedError:
        """Return what is raised for what an agent says, which may be anything."""
        word = said if said in cls.WORDS else cls.WORDS[0]
        return cls(f"Another client has {word} the sandbox.")

    @property
    def word(self) -> str:
        """What the other client has done with it: one of `WORDS`."""
        return next((word for word in self.WORDS if word in self.message), self.WORDS[0])


class FileError(PocketDockError):
    """About one path in a sandbox."""

    code = "file_error"


class SandboxFileNotFoundError(FileError, FileNotFoundError):
    """Nothing is there."""

    code = "file_not_found"


class FileDeniedError(FileError, PermissionError):
    """The sandbox user may not, or the file tools refuse on purpose."""

    code = "file_denied"


class FileIsDirectoryError(FileError, IsADirectoryError):
    """A file was wanted and a directory is there."""

    code = "is_directory"


class FileNotDirectoryError(FileError, NotADirectoryError):
    """A directory was wanted and something else is there."""

    code = "not_directory"


class FileNotRegularError(FileError):
    """A FIFO, socket or device: reading it could block for ever or have side effects."""

    code = "not_regular_file"


class SymlinkLoopError(FileError):
    """More symbolic links than a path may have (POSIX ELOOP)."""

    code = "symlink_loop"


class FileTooLargeError(FileError):
    """More than one call may carry."""

    code = "file_too_large"


class FileNotTextError(FileError):
    """Text was wanted and the file is not UTF-8."""

    code = "not_text"


class FileChangedError(FileError):
    """Somebody else changed or replaced the file between our read and our write. Theirs stands."""

    code = "file_changed"
    default_hint = "Nothing was written. Read it again and repeat the edit."


class EditNotFoundError(FileError):
    """What an edit is to replace is not in the file; ``excerpt`` has the lines that are most like it."""

    code = "edit_not_found"

    def __init__(self, message: str, *, hint: str | None = None, excerpt: str = "") -> None:
        super().__init__(message, hint=hint)
        self.excerpt = excerpt


class EditAmbiguousError(FileError):
    """What an edit is to replace is in the file more than once."""

    code = "edit_ambiguous"


class DiskFullError(FileError):
    """No space is left, or the file-size limit is reached. The old content is intact."""

    code = "disk_full"


class HostFileError(PocketDockError):
    """About one path on the machine that this runs on."""

    code = "host_file_error"


class HostFileNotFoundError(HostFileError, FileNotFoundError):
    """Nothing is there, on this machine."""

    code = "host_file_not_found"


class HostFileDeniedError(HostFileError, PermissionError):
    """Whoever runs this may not, on this machine."""

    code = "host_file_denied"


class HostFileInTheWayError(HostFileError, FileExistsError):
    """There is a file where a directory is to be, or a directory where a file is to be; on this machine."""

    code = "host_file_in_the_way"


class StreamNotEndedError(PocketDockError, RuntimeError):
    """What came of a run is asked for while its output is still being read."""

    code = "stream_not_ended"
    default_hint = "Take all chunks first, or close the stream."

    def __init__(self) -> None:
        super().__init__("The stream has not been read to its end.")


class RunFailedError(PocketDockError):
    """Raised by :meth:`~pocket_dock_mcp.models.RunResult.check` for a run that did not end well."""

    code = "run_failed"
