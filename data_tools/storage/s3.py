"""Object storage by boto3: every request is tried again for a while, every read goes on where it broke off.

Endpoint, region and keys come from the usual AWS variables and files; nothing here prints or stores them.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from botocore.exceptions import BotoCoreError, ClientError

from data_tools.errors import ChangedError, UserError
from data_tools.storage import s3_client, s3_settings
from data_tools.storage.base import FETCHED, WRITER, Settings, SizeError, StillOurs, is_object, no_name
from data_tools.storage.lease import hold_lease, newest_last
from data_tools.storage.retry import with_retries
from data_tools.storage.s3_errors import answered, is_transient, unsigned, user_error
from data_tools.storage.short_retries import short_retries

PART = 8 * 2**20
"""Bytes of one part of a large upload, and of one range of a parallel read."""
CHUNK = 2**14
"""Bytes of one read of a body: what a breaking connection can cost, since a read that fails gives nothing."""
THREADS = 4
BUCKET = r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9_]"
"""Names as S3 has them: 3 to 63 small letters, digits, dots and dashes today, more in buckets of before 2018."""


class S3:
    """The objects under s3://bucket/prefix as a `Storage`."""

    def __init__(self, url: str) -> None:
        match = re.fullmatch(rf"s3://({BUCKET})(/[^\0]*)?", url)
        if not match:  # not shown: people have put keys into URLs
            raise UserError(_no_bucket(url))
        self.bucket = match[1]
        prefix = (match[2] or "").strip("/")
        self.prefix = f"{prefix}/" if prefix else ""
        self.url = f"s3://{self.bucket}/{prefix}".rstrip("/")
        try:
            self.client = s3_client.client()
        except (BotoCoreError, ValueError) as error:
            raise user_error(error, self.url) from None

    @staticmethod
    def settings() -> Settings:
        return s3_settings.settings()

    def __reduce__(self) -> tuple[Any, ...]:
        return S3, (self.url,)  # a process has a client of its own

    def names(self) -> list[str]:
        return sorted(name for name, _ in self._list(Delimiter="/") if is_object(name))

    def tree(self) -> list[tuple[str, float]]:
        return sorted(item for item in self._list() if is_object(item[0]))

    def _marks(self) -> list[str]:
        return newest_last([name for name, _ in self._list(WRITER, Delimiter="/")])

    def _list(self, begin: str = "", **how: str) -> Iterator[tuple[str, float]]:
        page: dict[str, Any] = {"IsTruncated": True}
        more: dict[str, str] = {}
        while page["IsTruncated"]:
            options = dict(Bucket=self.bucket, Prefix=self.prefix + begin, **how, **more)
            page = with_retries(
                self.url, lambda options=options: answered(self.client.list_objects_v2(**options), "IsTruncated")
            )
            for entry in page.get("Contents", ()):
                name = entry["Key"].removeprefix(self.prefix)
                if name and not (name.endswith("/") and not entry["Size"]):  # what consoles make for an empty folder
                    yield name, entry["LastModified"].timestamp()
            before, more = more, {"ContinuationToken": page.get("NextContinuationToken", "")}
            if page["IsTruncated"] and (not more["ContinuationToken"] or more == before):  # it would never end
                raise UserError(
                    f"{self.url}: the storage lists no more than its first page - it lacks ListObjectsV2 of S3"
                )

    def open(self, name: str) -> BinaryIO:
        head = self._head(name)
        return cast(BinaryIO, io.BufferedReader(_Stream(self._chunks(name, 0, head["ContentLength"], head["ETag"]))))

    @contextlib.contextmanager
    def fetch(self, name: str, scratch: Path, size: int | None = None) -> Iterator[Path]:
        head = self._head(name)
        there, etag = head["ContentLength"], head["ETag"]
        if size not in (None, there):
            raise SizeError(there)
        with tempfile.NamedTemporaryFile(dir=scratch, prefix=FETCHED) as file:

            def download(start: int) -> None:
                place = start
                for chunk in self._chunks(name, start, min(start + PART, there), etag):
                    place += os.pwrite(file.fileno(), chunk, place)

            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(download, range(0, there, PART)))
            yield Path(file.name)

    @contextlib.contextmanager
    def write(self, name: str, new: bool = False) -> Iterator[IO[bytes]]:
        upload = _Upload(self, name, new)
        try:
            yield cast(IO[bytes], upload)
            upload.finish()
        except BaseException:
            with contextlib.suppress(UserError, OSError):
                upload.abort()
            raise

    def remove(self, name: str) -> None:
        with_retries(self._full(name), lambda: self.client.delete_object(Bucket=self.bucket, Key=self.prefix + name))

    @contextlib.contextmanager
    def sole_writer(self, own: Callable[[str], bool] = no_name, follow: bool = True) -> Iterator[StillOurs]:
        with hold_lease(self, self._marks, follow) as still_ours:
            self._drop_unfinished_uploads(own, still_ours)
            try:
                yield still_ours
            finally:
                with short_retries():  # of processes that were ended with their work
                    self._drop_unfinished_uploads(own, still_ours)

    def arrow(self) -> tuple[str, Any]:
        import pyarrow.fs  # it comes with Ray

        meta = self.client.meta  # each node finds its keys where all of AWS's tools do
        how: dict[str, Any] = {"endpoint_override": meta.endpoint_url, "region": meta.region_name}
        if certificates := s3_client.certificates():
            how["tls_ca_file_path"] = certificates
        filesystem = pyarrow.fs.S3FileSystem(anonymous=unsigned(), **how)
        return self.url.removeprefix("s3://"), filesystem

    def _drop_unfinished_uploads(self, own: Callable[[str], bool], still_ours: StillOurs) -> None:
        """What a killed writer left: parts that no listing shows but that are paid for."""
        with contextlib.suppress(UserError):  # not ours any more; some stores do not list them, some keys may not
            still_ours()
            pages = self.client.get_paginator("list_multipart_uploads")
            options = dict(Bucket=self.bucket, Prefix=self.prefix)
            match = with_retries(self.url, lambda: list(pages.paginate(**options).search("Uploads")))
            for upload in filter(None, match):
                if not own(upload["Key"].removeprefix(self.prefix)):
                    continue
                still_ours()
                abort = dict(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
                with contextlib.suppress(FileNotFoundError):
                    with_retries(self.url, lambda abort=abort: self.client.abort_multipart_upload(**abort))

    def _full(self, name: str) -> str:
        return f"{self.url}/{name}"

    def _head(self, name: str) -> dict[str, Any]:
        place = dict(Bucket=self.bucket, Key=self.prefix + name)

        def ask() -> dict[str, Any]:
            try:
                return answered(self.client.head_object(**place), "ETag", "ContentLength")
            except ClientError as error:
                if not is_transient(error):  # the answer to a HEAD has no body, in which the reason stands
                    self.client.get_object(**place, Range="bytes=0-0")["Body"].close()
                raise

        return with_retries(self._full(name), ask)

    def _chunks(self, name: str, start: int, end: int, etag: str) -> Iterator[bytes]:
        """Bytes start .. end - 1 of an object; after a broken connection it goes on by Range from where it was.

        UserError when the object is not the one of this ETag any more.
        """
        body: Any = None

        def next_chunk() -> bytes:
            nonlocal body
            if body is None:
                options = dict(Bucket=self.bucket, Key=self.prefix + name, IfMatch=etag)
                answer = self.client.get_object(**options, Range=f"bytes={start}-{end - 1}")
                body = answered(answer, "ETag", "Body")["Body"]
            try:
                chunk = body.read(min(CHUNK, end - start))
                if not chunk:
                    raise ConnectionError("the answer ended early")
                return chunk
            except BaseException:
                body.close()
                body = None
                raise

        while start < end:
            try:
                chunk = with_retries(self._full(name), next_chunk)
            except FileExistsError:  # the condition on the ETag
                raise ChangedError(f"{self._full(name)}: was changed while it was read - run it again") from None
            start += len(chunk)
            yield chunk
        if body is not None:
            body.close()


class _Stream(io.RawIOBase):
    """Chunks as a file to read."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.chunks, self.rest = chunks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self.rest:
            self.rest = memoryview(next(self.chunks, b""))
        taken = self.rest[: len(buffer)]
        buffer[: len(taken)] = taken
        self.rest = self.rest[len(taken) :]
        return len(taken)


class _Upload(io.RawIOBase):
    """A file to write that becomes an object when it is finished: one request when small, else parts of `PART` bytes.

    It is marked with a number of its own, so that a request whose answer was lost is not taken for somebody else's.
    """

    def __init__(self, storage: S3, name: str, new: bool) -> None:
        self.storage, self.name, self.mark = storage, name, uuid.uuid4().hex
        self.key = dict(Bucket=storage.bucket, Key=storage.prefix + name)
        self.condition = {"IfNoneMatch": "*"} if new else {}
        self.buffer, self.count, self.number, self.parts = bytearray(), 0, "", list[dict[str, Any]]()

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.count

    def write(self, data: Any) -> int:
        self.buffer += data
        self.count += len(data)
        while len(self.buffer) >= PART:
            self._send_part()
        return len(data)

    def _send_part(self) -> None:
        client, what = self.storage.client, self.storage._full(self.name)
        if not self.number:
            metadata = {"writer": self.mark}
            begun = with_retries(
                what, lambda: answered(client.create_multipart_upload(**self.key, Metadata=metadata), "UploadId")
            )
            self.number = begun["UploadId"]
        place = dict(self.key, UploadId=self.number, PartNumber=len(self.parts) + 1)
        body = bytes(memoryview(self.buffer)[:PART])
        done = with_retries(what, lambda: answered(client.upload_part(**place, Body=body), "ETag"))
        self.parts.append({"ETag": done["ETag"], "PartNumber": place["PartNumber"]})
        del self.buffer[:PART]

    def finish(self) -> None:
        client, what = self.storage.client, self.storage._full(self.name)
        unheard: list[bool] = []
        if self.number and self.buffer:
            self._send_part()

        def send() -> Any:
            if not self.number:
                body, metadata = bytes(self.buffer), {"writer": self.mark}
                return answered(client.put_object(**self.key, **self.condition, Body=body, Metadata=metadata), "ETag")
            done = dict(self.condition, UploadId=self.number, MultipartUpload={"Parts": self.parts})
            return answered(client.complete_multipart_upload(**self.key, **done), "ETag")

        try:
            with_retries(what, send, lambda: unheard.append(True))
        except (FileExistsError, FileNotFoundError):
            if not unheard or self.storage._head(self.name)["Metadata"].get("writer") != self.mark:
                raise

    def abort(self) -> None:
        if self.number:
            upload = dict(self.key, UploadId=self.number)
            with_retries(self.storage._full(self.name), lambda: self.storage.client.abort_multipart_upload(**upload))


def _no_bucket(url: str) -> str:
    """What is wrong with a URL, which is not shown."""
    if url.startswith("s3://arn:"):
        return "s3://arn: an access point goes by its alias here - give s3://ALIAS/prefix, which ends in -s3alias"
    if not url.removeprefix("s3://").partition("/")[0]:
        return "s3://: no bucket and prefix follow - give a URL like s3://bucket/prefix"
    return (
        "s3://: no bucket's name follows, 3 to 255 of the letters A-Z, a-z, 0-9, dot, dash and underscore"
        " - give a URL like s3://bucket/prefix; keys go into AWS variables"
    )
