"""Which transport is used, and HTTP where it is."""

import numpy as np
import pytest

from anytime_client import AnswerError, AsyncClient, Budget, ConnectionLostError
from client.factories import MAPS, PIXELS
from client.fakes import fake_http_server


async def test_where_no_websocket_gets_through_http_is_used():
    with fake_http_server() as server:
        budget = Budget(schedule=((5.0, Budget(max_exit=2)),))
        async with AsyncClient(server.url) as client:
            stream = client.stream(PIXELS, budget=budget)
            maps = [update.map.copy() async for update in stream]
        np.testing.assert_array_equal(maps, MAPS[:2])
        assert stream.result.exit == 2


async def test_a_client_for_the_websocket_alone_uses_no_http():
    with fake_http_server() as server:
        async with AsyncClient(server.url, transport="websocket") as client:
            with pytest.raises(AnswerError, match="404"):
                await client.predict(PIXELS)


async def test_an_event_stream_without_a_final_message_is_a_lost_connection():
    with fake_http_server(is_complete=False) as server:
        async with AsyncClient(server.url, transport="http") as client:
            with pytest.raises(ConnectionLostError, match="without a final"):
                await client.predict(PIXELS)
