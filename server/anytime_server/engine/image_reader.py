"""Reading images: the header before a request is admitted, the pixels afterwards.

An ordinary image is decoded in a thread, which takes no more than its decoding. What may take
longer than a tenth of a second is decoded in a process, where whoever does not want it any more can
end it (`DecodingProcess`): cancelling the future that `open` hands out does so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeAlias, cast

from anytime_server import images
from anytime_server.decoding_process import DecodingProcess
from anytime_server.image_headers import ImageHeader
from anytime_server.images import DecodedImage, Image

Decode: TypeAlias = Callable[[], asyncio.Future[DecodedImage]]


class ImageReader:
    """Reads headers in the order in which images come, and decodes them in threads or a process.

    Nothing is decoded for a request that may be refused; but on an idle server, where hardly any
    is, decoding a quick image begins at once and goes on while the request is admitted.

    Args:
        max_pixels: the largest image that is taken, px.
    """

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        # Headers have a thread of their own, so that a refusal never waits for decoding.
        self._header_thread = ThreadPoolExecutor(1, thread_name_prefix="header")
        self._decoders = ThreadPoolExecutor(2, thread_name_prefix="decode")
        # So do images that take long, so that others do not wait for them.
        self._process_thread = ThreadPoolExecutor(1, thread_name_prefix="decoding-process")
        self._process = DecodingProcess()
        self._last_header: asyncio.Future[ImageHeader] | None = None
        self._being_opened = 0
        self._decoding_ahead = False

    async def warm_up(self) -> None:
        """Loads the readers of all image formats."""
        loop = asyncio.get_running_loop()
        await asyncio.gather(
            loop.run_in_executor(self._decoders, images.warm_up),
            loop.run_in_executor(self._process_thread, self._process.start),
        )

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
            The header, and what starts decoding, or has started it. Cancelling the decoding's
            future ends it.

        Raises:
            ImageRejectedError: see `images.probe`.
        """
        if isinstance(data, bytes):
            images.check_media_type(media_type)
        self._being_opened += 1
        try:
            # What is decoded ahead may be for a client that has left, so only one is at a time.
            if idle and self._being_opened == 1 and not self._decoding_ahead:
                return await self._decode_ahead(data, side)
            header = await self._read_header(data)
            return header, partial(self._decode, data, header, side)
        finally:
            self._being_opened -= 1

    def close(self) -> None:
        """Ends the threads and the process, in the middle of an image as well."""
        for pool in (self._header_thread, self._decoders, self._process_thread):
            pool.shutdown(wait=False, cancel_futures=True)
        self._process.close()

    async def _read_header(self, data: bytes | Image) -> ImageHeader:
        if self._last_header is not None and not self._last_header.done():
            await asyncio.wait([self._last_header])  # first come, first admitted
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._header_thread, images.probe, data, self._max_pixels)

    async def _decode_ahead(
        self, data: bytes | Image, side: int | None
    ) -> tuple[ImageHeader, Decode]:
        """Reads the header, and goes on to decode in the same thread if the image is quick."""
        loop = asyncio.get_running_loop()
        header = self._last_header = loop.create_future()

        def set_header(found: ImageHeader) -> None:
            if not header.done():
                header.set_result(found)

        def read() -> DecodedImage | None:
            found = images.probe(data, self._max_pixels)
            loop.call_soon_threadsafe(set_header, found)
            return images.decode(data, found, side) if images.is_quick(data, found) else None

        def note_end(image: asyncio.Future[DecodedImage | None]) -> None:
            self._decoding_ahead = False
            error = None if image.cancelled() else image.exception()
            if error is not None and not header.done():
                header.set_exception(error)

        image = loop.run_in_executor(self._decoders, read)
        image.add_done_callback(note_end)
        self._decoding_ahead = True
        found = await header
        if images.is_quick(data, found):
            decoded = cast("asyncio.Future[DecodedImage]", image)
            return found, lambda: decoded
        return found, partial(self._decode, data, found, side)

    def _decode(
        self, data: bytes | Image, header: ImageHeader, side: int | None
    ) -> asyncio.Future[DecodedImage]:
        loop = asyncio.get_running_loop()
        if not isinstance(data, bytes) or images.is_quick(data, header):
            return loop.run_in_executor(self._decoders, images.decode, data, header, side)
        token = object()
        image = loop.run_in_executor(
            self._process_thread, self._process.decode, token, data, header, side
        )
        image.add_done_callback(partial(self._stop_if_cancelled, token))
        return image

    def _stop_if_cancelled(self, token: object, image: asyncio.Future[DecodedImage]) -> None:
        if image.cancelled():
            self._process.stop(token)
