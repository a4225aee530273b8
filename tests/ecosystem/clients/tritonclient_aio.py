"""`tritonclient.http.aio`, whose connections ask for compressed answers by themselves."""

import asyncio

import harness
import numpy as np
import tritonclient.http.aio as triton
from tritonclient.utils import InferenceServerException


def pixels_input(case, *, binary=True):
    pixels = np.frombuffer(case.pixels, np.uint8).reshape(case.shape)
    tensor = triton.InferInput("pixels", case.shape, "UINT8")
    tensor.set_data_from_numpy(pixels, binary_data=binary)
    return tensor


def file_input(case):
    tensor = triton.InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([case.file], dtype=np.object_))
    return tensor


def assert_map(case, result):
    assert result.as_numpy("map").shape == tuple(case.shape[:3])
    assert result.as_numpy("map").ravel().tolist() == case.labels


async def check_health_and_metadata(case):
    async with triton.InferenceServerClient(case.address) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("street", "1")
        assert not await client.is_model_ready("nobody")
        assert (await client.get_server_metadata())["name"] == "anytime-dense"
        assert (await client.get_model_metadata("pose"))["outputs"][0]["name"] == "keypoints"


async def check_many_requests_at_a_time(case):
    async with triton.InferenceServerClient(case.address) as client:
        options = {"parameters": {"max_exit": case.max_exit}, "priority": 2}
        tensors = [file_input(case), pixels_input(case), pixels_input(case, binary=False)] * 3
        results = await asyncio.gather(
            *(client.infer("street", [tensor], **options) for tensor in tensors)
        )
        for result in results:
            assert_map(case, result)


async def check_compression_both_ways(case):
    async with triton.InferenceServerClient(case.address) as client:
        for request in (None, "gzip", "deflate"):
            for response in (None, "gzip", "deflate"):
                result = await client.infer(
                    "street",
                    [file_input(case)],
                    parameters={"max_exit": case.max_exit},
                    request_compression_algorithm=request,
                    response_compression_algorithm=response,
                )
                assert_map(case, result)


async def check_errors_are_told(case):
    async with triton.InferenceServerClient(case.address) as client:
        try:
            await client.infer("street", [file_input(case)], timeout=1)
        except InferenceServerException as error:
            assert (error.status(), "late" in error.message()) == ("504", True)
        else:
            raise AssertionError("a deadline of 1 us was met")


async def check_a_client_that_gives_up_leaves_the_server_well(case):
    async with triton.InferenceServerClient(case.address) as client:
        waiting = asyncio.ensure_future(client.infer("street", [file_input(case)]))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with triton.InferenceServerClient(case.address) as client:
        options = {"parameters": {"max_exit": case.max_exit}}
        assert_map(case, await client.infer("street", [file_input(case)], **options))
        statistics = await client.get_inference_statistics("street")
        assert statistics["model_stats"][0]["inference_count"] > 0


if __name__ == "__main__":
    harness.main(globals())
