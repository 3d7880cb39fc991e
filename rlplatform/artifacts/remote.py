"""A folder in an object store: s3://, gs:// or abfss://, through pyarrow.

Credentials are found by the store's own rules (AWS_… variables, profiles, the machine's role;
GOOGLE_APPLICATION_CREDENTIALS) and are never part of the address. Options of the connection follow it as a query, as
for a store of one's own: ``s3://bucket/folder?endpoint_override=http://10.0.0.5:9000&region=us-east-1``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlplatform.artifacts.atomic import storage_errors
from rlplatform.errors import SpecError, StorageError

_CHUNK_BYTES = 8 * 1024 * 1024
_DENIED = ("ACCESS_DENIED", "INVALID_ACCESS_KEY", "SIGNATURE", "UNRECOGNIZED_CLIENT", "UNAUTHENTICATED", "PERMISSION")
_AWAY = ("NETWORK_CONNECTION", "UNAVAILABLE", "TIMEOUT", "RESOLVE", "COULD NOT CONNECT")


class RemoteFolder:
    """A folder in an object store. Every object appears whole or not at all, also when its writer is killed."""

    def __init__(self, uri: str) -> None:
        """Point at the folder ``uri``. Nothing is asked of the store yet, except the region of a bucket without one.

        Raises:
            SpecError: The address has an option that its store does not know.
            StorageError: The store cannot be reached.
        """
        from pyarrow import ArrowInvalid, fs

        self.uri = uri.partition("?")[0].rstrip("/")
        with self._errors():
            try:
                self._store, path = fs.FileSystem.from_uri(uri)
            except ArrowInvalid as error:
                raise SpecError(f"{self.uri} is no address of an object store: {error}.") from error
        self._path = path.rstrip("/")

    def read(self, name: str) -> bytes | None:
        """Return the contents of an object; None if there is none of that name.

        Raises:
            StorageError: The store cannot be reached or read.
        """
        with self._errors():
            try:
                with self._open_input(name) as source:
                    return bytes(source.read())
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        """Make or replace an object.

        Raises:
            StorageError: The store cannot be reached or written.
        """
        with self._errors(), self._store.open_output_stream(f"{self._path}/{name}") as target:
            target.write(data)

    def send(self, path: Path, n_bytes: int, name: str) -> None:
        """Make an object of the first ``n_bytes`` bytes of a file.

        Raises:
            StorageError: The store cannot be reached or written.
        """
        address = f"{self._path}/{name}"
        with open(path, "rb") as source, self._errors(), self._store.open_output_stream(address) as target:
            while n_bytes and (chunk := source.read(min(n_bytes, _CHUNK_BYTES))):
                target.write(chunk)
                n_bytes -= len(chunk)

    def fetch(self, name: str, path: Path) -> bool:
        """Write an object into a new file; return whether there is one of that name.

        Raises:
            StorageError: The store cannot be reached or read.
        """
        with self._errors():
            try:
                source = self._open_input(name)
            except FileNotFoundError:
                return False
        with source, storage_errors(path), open(path, "wb") as target:
            for chunk in self._chunks(source):
                target.write(chunk)
        return True

    def objects_in(self, name: str) -> dict[str, int]:
        """Return the size of each object in a folder by its name, none if there is no such folder.

        Raises:
            StorageError: The store cannot be reached or read.
        """
        from pyarrow import fs

        folder = fs.FileSelector(f"{self._path}/{name}", allow_not_found=True)
        with self._errors():
            return {entry.base_name: entry.size for entry in self._store.get_file_info(folder) if entry.is_file}

    def delete(self, name: str) -> None:
        """Remove an object.

        Raises:
            StorageError: The store cannot be reached or written.
        """
        with self._errors():
            self._store.delete_file(f"{self._path}/{name}")

    def _open_input(self, name: str) -> Any:
        return self._store.open_input_stream(f"{self._path}/{name}")

    def _chunks(self, source: Any) -> Iterator[bytes]:
        with self._errors():
            while chunk := source.read(_CHUNK_BYTES):
                yield chunk

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:  # whoever reads what may be missing has caught it
            raise StorageError(_in_words(self.uri, "NO_SUCH_BUCKET")) from error
        except OSError as error:
            raise StorageError(_in_words(self.uri, str(error))) from error


def _in_words(uri: str, reason: str) -> str:
    loud = reason.upper()
    if "NO_SUCH_BUCKET" in loud:
        return f"{uri} cannot be used: there is no such bucket. Create it, or correct RLPLATFORM_REMOTE."
    if any(word in loud for word in _DENIED):
        return (
            f"{uri} cannot be used: the store denies access. Check the credentials of this machine, for S3 "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or its role, and what they may do there."
        )
    if any(word in loud for word in _AWAY):
        return (
            f"{uri} cannot be reached. Check the network, the name of the bucket, and an `endpoint_override` in "
            "RLPLATFORM_REMOTE; without RLPLATFORM_REMOTE, runs stay on this machine alone."
        )
    return f"{uri} cannot be used: {reason.splitlines()[0][:300]} Check RLPLATFORM_REMOTE."
