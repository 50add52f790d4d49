"""Objects in a bucket of any S3, through the `minio` client.

Only what every S3 stand-in keeps is leaned on: whole PUTs are atomic, listings are complete, errors are told by their
HTTP status (some servers answer errors in a content type that the client does not parse).
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import urlsplit

from store.errors import InputError, PassingError, ReelsenseError, SettingsError
from store.objects import ObjectInfo, check_key
from store.settings import Settings

if TYPE_CHECKING:
    from minio import Minio

PART_BYTES = 16 * 2**20
TIMEOUT_SECONDS = 30.0


class S3Objects:
    """An `ObjectStore` in one bucket, which is made when it is not there."""

    def __init__(self, client: Minio, bucket: str) -> None:
        self.client = client
        self.bucket = bucket
        self.translated("", self._make_bucket)

    @classmethod
    def from_settings(cls, settings: Settings) -> S3Objects:
        """Connect as `objects = s3://BUCKET` and the `s3_*` settings say."""
        import urllib3
        from minio import Minio

        endpoint = urlsplit(settings.s3_endpoint)
        if endpoint.scheme not in ("http", "https") or not endpoint.netloc:
            raise SettingsError(
                "settings.invalid",
                f"s3_endpoint must be a URL such as http://127.0.0.1:8333, got {settings.s3_endpoint!r}.",
            )
        client = Minio(
            endpoint.netloc,
            access_key=settings.s3_access_key or None,
            secret_key=settings.s3_secret_key.get_secret_value() or None,
            secure=endpoint.scheme == "https",
            region=settings.s3_region,
            http_client=urllib3.PoolManager(
                timeout=urllib3.Timeout(connect=5.0, read=TIMEOUT_SECONDS),
                maxsize=16,
                retries=urllib3.Retry(total=3, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
            ),
        )
        return cls(client, settings.objects.removeprefix("s3://").strip("/"))

    def _make_bucket(self) -> None:
        if not self.client.bucket_exists(self.bucket):
            self.client.make_bucket(self.bucket)

    def put(self, key: str, data: bytes) -> None:
        """One PUT."""
        check_key(key)
        self.translated(key, lambda: self.client.put_object(self.bucket, key, io.BytesIO(data), len(data)))

    def put_file(self, key: str, path: Path) -> None:
        """One PUT, or a multipart one for a large file: visible only when complete."""
        check_key(key)
        self.translated(key, lambda: self.client.fput_object(self.bucket, key, str(path), part_size=PART_BYTES))

    def get(self, key: str) -> bytes:
        """The whole object."""
        with self.open(key) as stream:
            return stream.read()

    def open(self, key: str) -> BinaryIO:
        """The response body as a stream."""
        check_key(key)
        return cast(BinaryIO, self.translated(key, lambda: self.client.get_object(self.bucket, key)))

    def open_part(self, key: str, first: int, length: int) -> BinaryIO:
        """The body of a GET with a Range header."""
        check_key(key)

        def get() -> BinaryIO:
            try:
                return cast(BinaryIO, self.client.get_object(self.bucket, key, offset=first, length=length))
            except Exception as error:
                if _status(error) == 416:  # not one byte of it is there
                    return io.BytesIO()
                raise

        return cast(BinaryIO, self.translated(key, get))

    def download(self, key: str, path: Path) -> None:
        """Stream to `path`."""
        with self.open(key) as stream, path.open("wb") as target:
            self.translated(key, lambda: shutil.copyfileobj(stream, target, 1 << 20))

    def size(self, key: str) -> int | None:
        """Bytes, or None."""
        check_key(key)
        try:
            return int(self.translated(key, lambda: self.client.stat_object(self.bucket, key)).size)
        except InputError as error:
            if error.code == "store.missing":
                return None
            raise

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects below `prefix`, sorted by key."""
        folder = check_key(prefix.rstrip("/")) + "/"
        found = self.translated(
            folder, lambda: list(self.client.list_objects(self.bucket, prefix=folder, recursive=True))
        )
        yield from sorted((ObjectInfo(item.object_name, int(item.size or 0)) for item in found), key=lambda it: it.key)

    def delete(self, key: str) -> None:
        """Remove the object."""
        check_key(key)
        self.translated(key, lambda: self.client.remove_object(self.bucket, key))

    def translated(self, key: str, call: Any) -> Any:
        """Run `call`; its errors become ours, told apart by HTTP status alone."""
        import urllib3
        from minio.error import InvalidResponseError, S3Error, ServerError

        try:
            return call()
        except ReelsenseError:
            raise
        except (S3Error, InvalidResponseError, ServerError) as error:
            status = _status(error)
            if status == 404:
                raise InputError("store.missing", f"There is no object {key}.") from error
            raise PassingError(
                "store.unavailable",
                f"The S3 server answered {status or 'strangely'} for {key or self.bucket}.",
                hint="Check s3_endpoint, the keys and the bucket.",
            ) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise PassingError(
                "store.unavailable",
                f"The S3 server does not answer ({type(error).__name__}).",
                hint="Is it running, and s3_endpoint right?",
            ) from error


def _status(error: Any) -> int | None:
    response = getattr(error, "response", None)
    status = getattr(response, "status", None) or getattr(error, "status_code", None) or getattr(error, "_code", None)
    return int(status) if isinstance(status, int) else None
