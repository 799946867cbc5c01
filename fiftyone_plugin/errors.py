"""Every exception that Shepherd raises on purpose.

A message is one line that names the value, what was allowed, and what to do next. The command line and the
operators print it as it is; anything that is not a ``ShepherdError`` is a bug in Shepherd and keeps its traceback.

::

    ShepherdError
    ├── InputError                  the user can mend it; the command line exits with 2
    │   ├── OptionError             a setting is outside its range
    │   ├── PromptError             the prompt names no class
    │   ├── VideoError              the source is missing, unreadable or empty
    │   ├── FrameRangeError         start/stop lie outside the video
    │   ├── TrackFileError          a track file cannot be read or does not fit the video
    │   ├── BackendError            no backend or variant of that name
    │   ├── DependencyError         the backend needs a package that is not installed
    │   ├── ModelUnavailableError   the weights are neither cached nor reachable
    │   ├── JobError                no such job, it is running already, or its checkpoint does not fit
    │   ├── EditError               the tracks do not allow this edit
    │   ├── FieldConflictError      the field exists and is not ours, or `overwrite` was not given
    │   └── OutputError             the result cannot be written (no space, no permission)
    ├── EmbeddingMismatchError      galleries of different embedders were compared
    └── Cancelled                   the user stopped the run; what was finished is kept
"""

from __future__ import annotations

__all__ = [
    "BackendError",
    "Cancelled",
    "DependencyError",
    "EditError",
    "EmbeddingMismatchError",
    "FieldConflictError",
    "FrameRangeError",
    "InputError",
    "JobError",
    "ModelUnavailableError",
    "OptionError",
    "OutputError",
    "PromptError",
    "ShepherdError",
    "TrackFileError",
    "VideoError",
]


class ShepherdError(Exception):
    """Root of everything Shepherd raises on purpose."""


class InputError(ShepherdError):
    """Something the user gave cannot be used; the message says what to give instead."""


class OptionError(InputError, ValueError):
    """A setting is outside its range."""


class PromptError(InputError, ValueError):
    """The prompt names no class."""


class VideoError(InputError):
    """The source is missing, unreadable or holds no frame."""


class FrameRangeError(InputError, ValueError):
    """The requested frames lie outside the video."""


class TrackFileError(InputError):
    """A track file cannot be read or does not fit the video."""


class BackendError(InputError, LookupError):
    """No backend or variant of that name is registered."""


class DependencyError(InputError, ImportError):
    """A backend needs a package that is not installed."""


class ModelUnavailableError(InputError):
    """Weights are neither on disk nor reachable."""


class JobError(InputError):
    """There is no such job, another process has it, or its checkpoint belongs to other settings."""


class EditError(InputError):
    """An edit cannot be made on these tracks: there is none of that id, two would be in one place, or one is locked."""


class FieldConflictError(InputError):
    """A dataset field is not ours, or exists and `overwrite` was not given."""


class OutputError(InputError, OSError):
    """A result cannot be written."""


class EmbeddingMismatchError(ShepherdError, ValueError):
    """Embeddings of different embedders, or of different size, were compared."""


class Cancelled(ShepherdError):
    """The user stopped the run. Finished chunks are kept."""
