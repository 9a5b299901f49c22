"""The detector as a Ray Serve application: images in, scores, verdicts and heat maps out.

Requests that wait are scored together, in batches of one fixed size: unused places are filled with black images, so
that an image's answer is the same to the bit whatever comes with it.

Whoever sends a body slowly, or half of one, holds a place among `READING` until `body_seconds` are over, and no place
that /health or a whole request needs.
"""

from __future__ import annotations

import asyncio
import base64
import io
import time
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, HTTPException, Request
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from ray import serve
from ray.util.metrics import Counter, Histogram
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse

from cluster.batching import Together
from cluster.docs_page import POLICY, docs_page
from cluster.unit_table import png_of
from data_tools.errors import UserError
from data_tools.sources.images import decode_image
from data_tools.sources.reading import read_header
from data_tools.text import readable
from trainer.scoring.criterion import PAPER_LAMBDA, Criterion
from trainer.scoring.judge import Scored
from trainer.scoring.loading import chosen_checkpoints, load_detector

BATCH = 16
"""Images that pass the networks together."""
ONGOING, READING = 1024, 512
"""Requests that are taken at once, and of these those whose bodies are being read."""
CLOSE, LATER = {"Connection": "close"}, {"Retry-After": "1"}
"""What goes with answers to bodies of which the rest is not wanted."""
HELD = 64
"""Bodies of the greatest size that those being read may take in memory together."""
LATENCIES = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0]


class Settings(BaseModel):
    """What is served, and what is refused."""

    model_config = ConfigDict(extra="forbid")

    run: str = Field(description="URL of a run, or of one checkpoint; or of several, by commas")
    best: Annotated[bool, Field(description="the best checkpoint instead of the newest")] = False
    by: Annotated[str, Field(description="fused, reviewed, a, or one term by its name, as L_n")] = "fused"
    lam: Annotated[
        float,
        Field(
            validation_alias=AliasChoices("lambda", "lam"),
            ge=0,
            le=1,
            description="lambda in a = lambda L_n + (1 - lambda) L_o",
        ),
    ] = PAPER_LAMBDA
    false_alarms: Annotated[float | None, Field(description="share of normal images that may be anomalous")] = None
    contamination: Annotated[
        float | Literal["auto"] | None,
        Field(description="or share of anomalies among training images; auto: an estimate of it"),
    ] = None
    threshold: Annotated[float | None, Field(description="or anomalous when the score is above this")] = None
    max_bytes: Annotated[int, Field(ge=1, description="of a request's body")] = 16 * 2**20
    max_pixels: Annotated[int, Field(ge=1, description="of an image")] = 16 * 2**20
    max_images: Annotated[int, Field(ge=1, description="in a request")] = 64
    body_seconds: Annotated[float, Field(gt=0, description="seconds that a request's body may take to arrive")] = 30
    data: Annotated[str, Field(description="where the run's dataset is now; empty: where it was trained on")] = ""

    def criterion(self) -> Criterion:
        return Criterion(self.by, self.lam, self.false_alarms, self.contamination, self.threshold)


class Verdict(BaseModel):
    """What is said of one image. The greater a score, the more anomalous the image."""

    name: str = Field(description="the file's name, where it has one")
    score: float = Field(description="of the kind that /health names in `by`")
    p_value: Annotated[
        float | None,
        Field(description="share of training images that score as high; null where by is a and no share given"),
    ] = None
    terms: dict[str, float] = Field(description="what the score is made of, and what else the networks say")
    threshold: Annotated[float | None, Field(description="above this an image is called anomalous")] = None
    anomalous: Annotated[bool | None, Field(description="null without a threshold")] = None
    heatmap: Annotated[str | None, Field(description="PNG in base64: black is usual there, white is rare")] = None


class Answer(BaseModel):
    """A verdict for each image, in their order."""

    images: list[Verdict]


class Facts(BaseModel):
    """What is served."""

    run: str = Field(description="URL of the checkpoint, or of several")
    resolution: int = Field(description="side of the square that images are brought to, in pixels")
    channels: int = Field(description="1: images are made grey; 3: coloured")
    by: str = Field(description="the score: fused, a, or one term")
    lam: float = Field(description="lambda, where by is a")
    threshold: float | None = Field(description="above this an image is called anomalous; null for none")
    meaning: str = Field(description="what the threshold means; empty where none was derived from training images")


api = FastAPI(title="StrataGAN detector", version="1", docs_url=None, redoc_url=None)


def _replay(body: bytes) -> Any:
    """A request's `receive` that gives a body that was read before.

    Ray Serve takes a copy of what the class below needs as it is decorated, so this stands before it.
    """

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


@serve.deployment(name="Detector", max_ongoing_requests=ONGOING, max_queued_requests=ONGOING, health_check_period_s=5)
@serve.ingress(api)
class DetectorService:
    """Holds the detector of a run."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = Settings(**settings)
        self.run = chosen_checkpoints(self.settings.run, self.settings.best)
        self.detector = load_detector(self.run, self.settings.criterion(), data=self.settings.data)
        self.reading = self.held = 0  # bodies that are being read, and their bytes so far
        self.detector.score(self._black(BATCH))  # the first images take longest
        self.scored = Together(self._score, BATCH)
        self.images = Counter("stratagan_images", "Images scored.")
        self.refused = Counter("stratagan_refused", "Requests refused.", tag_keys=("status",))
        self.seconds = Histogram("stratagan_request_seconds", "From a request to its answer.", boundaries=LATENCIES)

    @api.get("/health")
    async def health(self) -> Facts:
        """Ready: the detector is loaded."""
        detector = self.detector
        return Facts(
            run=self.run,
            resolution=detector.resolution,
            channels=detector.channels,
            by=detector.criterion.by,
            lam=detector.criterion.lam,
            threshold=detector.above,
            meaning=detector.meaning,
        )

    @api.get("/docs", include_in_schema=False)
    async def docs(self, request: Request) -> HTMLResponse:
        """What this page is made of says openapi.json."""
        return HTMLResponse(docs_page(request.app.openapi()), headers={"Content-Security-Policy": POLICY})

    @api.post(
        "/score",
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "image/*": {"schema": {"type": "string", "format": "binary"}},
                    "multipart/form-data": {
                        "schema": {
                            "type": "object",
                            "additionalProperties": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        }
                    },
                },
            }
        },
    )
    async def score(self, request: Request, heatmap: bool = False) -> Answer:
        """Score an image (the body), or several (files of a form), brought to the detector's size and colours."""
        begun = time.monotonic()
        try:
            if heatmap and not self.detector.reconstructs:
                raise HTTPException(422, "this detector has no heat maps - leave heatmap out")
            named = await self._read(request)
            decoded = await asyncio.gather(*(asyncio.to_thread(self._decode, *pair) for pair in named))
        except HTTPException as error:
            self.refused.inc(tags={"status": str(error.status_code)})
            raise
        scored = await asyncio.gather(*(self.scored((image, heatmap)) for image in decoded))
        self.images.inc(len(scored))
        self.seconds.observe(time.monotonic() - begun)
        return Answer(images=[verdict.model_copy(update={"name": name}) for (name, _), verdict in zip(named, scored)])

    def _score(self, wanted: Sequence[tuple[np.ndarray, bool]]) -> list[Verdict]:
        images = self._black(BATCH)
        images[: len(wanted)] = [image for image, _ in wanted]
        with_heat = any(with_map for _, with_map in wanted)
        scored = (self.detector.score_with_heat if with_heat else self.detector.score)(images)
        heat = None if scored.heat is None else self.detector.shares(scored.heat)
        return [
            self._verdict(scored, i, heat[i] if heat is not None and with_map else None)
            for i, (_, with_map) in enumerate(wanted)
        ]

    def _verdict(self, scored: Scored, i: int, heat: np.ndarray | None) -> Verdict:
        terms = {name: float(column[i]) for name, column in scored.columns.items()}
        return Verdict(
            name="",
            score=float(scored.score[i]),
            p_value=terms.pop("p_value", None),
            terms=terms,
            threshold=self.detector.above,
            anomalous=None if scored.anomalous is None else bool(scored.anomalous[i]),
            heatmap=None if heat is None else base64.b64encode(png_of(heat)).decode(),
        )

    async def _read(self, request: Request) -> list[tuple[str, bytes]]:
        """Names and contents of a request's images; HTTPException with what is wrong with it."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not kind.startswith("image/") and kind != "multipart/form-data":
            raise HTTPException(415, f"content type {kind or 'missing'} - send image/png, or files of a form")
        said = request.headers.get("content-length", "0")
        if said.isdigit() and (len(said) > 20 or int(said) > self.settings.max_bytes):
            raise HTTPException(413, f"{said[:20]} bytes - send at most {self.settings.max_bytes:,}")
        body = await self._body(request)
        if not body:
            raise HTTPException(400, "an empty body - send an image")
        if kind != "multipart/form-data":
            return [("", body)]
        return await self._files(Request(request.scope, _replay(body)))

    async def _body(self, request: Request) -> bytes:
        """A request's body, if it comes in time and finds room."""
        body, most = bytearray(), self.settings.max_bytes
        later = HTTPException(503, "too many bodies are being sent - send it again in a moment", CLOSE | LATER)
        if self.reading >= READING:
            raise later
        self.reading += 1
        try:
            async with asyncio.timeout(self.settings.body_seconds):
                async for chunk in request.stream():
                    body += chunk
                    self.held += len(chunk)
                    if len(body) > most:
                        raise HTTPException(413, f"more than {most:,} bytes - send less")
                    if self.held > HELD * most:
                        raise later
        except TimeoutError:
            seconds = f"{self.settings.body_seconds:g}"
            detail = f"the body did not come within {seconds} s - send it faster, or less"
            raise HTTPException(408, detail, CLOSE) from None
        except ClientDisconnect:
            raise HTTPException(400, "the connection ended within the body - send it again") from None
        finally:
            self.reading -= 1
            self.held -= len(body)
        return bytes(body)

    async def _files(self, request: Request) -> list[tuple[str, bytes]]:
        try:
            form = await request.form(max_files=self.settings.max_images, max_fields=0)
        except Exception as error:  # what a form's parser raises depends on what is wrong with the form
            detail = getattr(error, "detail", "") or str(error) or type(error).__name__
            raise HTTPException(400, f"a form that cannot be read ({detail}) - send files") from None
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if not files:
            raise HTTPException(400, "a form without files - send some")
        return [(file.filename or "", await file.read()) for file in files]

    def _decode(self, name: str, content: bytes) -> np.ndarray:
        label, detector = readable(name or "image"), self.detector
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                header = read_header(io.BytesIO(content), label)
            except UserError as error:
                raise HTTPException(400, str(error)) from None
            width, height = header.width, header.height
            if width * height > self.settings.max_pixels:
                raise HTTPException(
                    413, f"{label}: {width}x{height} pixels - send at most {self.settings.max_pixels:,}"
                )
            try:
                return decode_image(
                    io.BytesIO(content), label, detector.resolution, detector.channels, detector.intensity
                )
            except UserError as error:
                raise HTTPException(400, str(error)) from None

    def _black(self, count: int) -> np.ndarray:
        side = self.detector.resolution
        return np.zeros((count, side, side, self.detector.channels), np.uint8)


def application(args: dict[str, Any]) -> serve.Application:
    """What `serve run cluster.serve:application run=URL` and a RayService start; args: those of `Settings`."""
    return DetectorService.bind(Settings(**args).model_dump())
