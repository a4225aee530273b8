"""Reading images in threads: the header before a request is admitted, the pixels afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeAlias

from anytime_server import images
from anytime_server.images import DecodedImage, Image, ImageHeader

Decode: TypeAlias = Callable[[], asyncio.Future[DecodedImage]]


class ImageReader:
    """Reads headers in the order in which images come, and decodes them in a small thread pool.

    Nothing is decoded for a request that may be refused; but on an idle server, where hardly any
    is, decoding begins at once and goes on while the request is admitted.

    Args:
        max_pixels: the largest image that is taken, px.
    """

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        # Headers have a thread of their own, so that a refusal never waits for decoding.
        self._header_thread = ThreadPoolExecutor(1, thread_name_prefix="header")
        self._decoders = ThreadPoolExecutor(2, thread_name_prefix="decode")
        self._last_header: asyncio.Future[ImageHeader] | None = None
        self._being_opened = 0
        self._decoding_ahead = False

    async def warm_up(self) -> None:
        """Loads the readers of all image formats."""
        await asyncio.get_running_loop().run_in_executor(self._decoders, images.warm_up)

    async def open(
        self, data: bytes | Image, media_type: str, *, idle: bool, side: int | None = None
    ) -> tuple[ImageHeader, Decode]:
        """Reads a file's header.

        Args:
            data: the file, or pixels.
            media_type: that its client says the file has.
            idle: no request is active.
            side: px of the longer side at which it is computed at most, see `images.decode`.

        Returns:
            The header, and what starts decoding, or has started it.

        Raises:
            ImageRejectedError: no image of a known format, or too large.
        """
        if isinstance(data, bytes):
            images.check_media_type(media_type)
        self._being_opened += 1
        try:
            # What is decoded ahead may be for a client that has left, so only one is at a time.
            if idle and self._being_opened == 1 and not self._decoding_ahead:
                return await self._decode_ahead(data, side)
            return await self._read_header(data), partial(self._decode, data, side)
        finally:
            self._being_opened -= 1

    def close(self) -> None:
        """Ends the threads."""
        for pool in (self._header_thread, self._decoders):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _read_header(self, data: bytes | Image) -> ImageHeader:
        if self._last_header is not None and not self._last_header.done():
            await asyncio.wait([self._last_header])  # first come, first admitted
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._header_thread, images.probe, data, self._max_pixels)

    async def _decode_ahead(
        self, data: bytes | Image, side: int | None
    ) -> tuple[ImageHeader, Decode]:
        loop = asyncio.get_running_loop()
        header = self._last_header = loop.create_future()

        def set_header(found: ImageHeader) -> None:
            if not header.done():
                header.set_result(found)

        def note_end(image: asyncio.Future[DecodedImage]) -> None:
            self._decoding_ahead = False
            error = None if image.cancelled() else image.exception()
            if error is not None and not header.done():
                header.set_exception(error)

        image = self._decode(data, side, lambda found: loop.call_soon_threadsafe(set_header, found))
        image.add_done_callback(note_end)
        self._decoding_ahead = True
        return await header, lambda: image

    def _decode(
        self,
        data: bytes | Image,
        side: int | None,
        on_header: Callable[[ImageHeader], object] | None = None,
    ) -> asyncio.Future[DecodedImage]:
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(
            self._decoders, images.decode, data, self._max_pixels, on_header, side
        )
