"""`kserve.InferenceRESTClient`, the client of KServe's Python SDK, with its protocol `v2`."""

import harness
import httpx
import numpy as np
from kserve import InferInput, InferRequest
from kserve.inference_client import InferenceRESTClient, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


def client():
    return InferenceRESTClient(RESTConfig(protocol="v2"))


def file_input(case):
    tensor = InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([case.file], dtype=np.object_))
    return tensor


def pixels_input(case, *, binary):
    tensor = InferInput("pixels", case.shape, "UINT8")
    pixels = np.frombuffer(case.pixels, np.uint8).reshape(case.shape)
    tensor.set_data_from_numpy(pixels, binary_data=binary)
    return tensor


def request(case, tensor, model="street", outputs=None, **parameters):
    parameters.setdefault("max_exit", case.max_exit)
    return InferRequest(model, [tensor], parameters=parameters, request_outputs=outputs)


def assert_map(case, response):
    output = response.get_output_by_name("map")
    assert output.as_numpy().shape == tuple(case.shape[:3])
    assert output.as_numpy().ravel().tolist() == case.labels


async def check_health(case):
    async with client() as kserve:
        assert await kserve.is_server_live(case.url) is True
        assert await kserve.is_server_ready(case.url) is True
        assert await kserve.is_model_ready(case.url, "street") is True
        assert await kserve.is_model_ready(case.url, "nobody") is False


async def check_a_file_in_binary(case):
    for binary in (True, False):
        asked = request(case, file_input(case), binary_data_output=binary)
        async with client() as kserve:
            response = await kserve.infer(case.url, asked, model_name="street")
        assert response.id == asked.id or asked.id is None
        assert response.parameters["exit"] == case.max_exit
        assert [output.name for output in response.outputs] == ["map", "confidence"]
        assert_map(case, response)


async def check_pixels_in_json_and_binary(case):
    for binary in (True, False):
        outputs = [RequestedOutput("map", parameters={"binary_data": binary})]
        asked = request(case, pixels_input(case, binary=binary), outputs=outputs)
        async with client() as kserve:
            assert_map(case, await kserve.infer(case.url, asked, model_name="street"))


async def check_keypoints(case):
    asked = request(case, file_input(case), model="pose", binary_data_output=True)
    async with client() as kserve:
        response = await kserve.infer(case.url, asked, model_name="pose")
    keypoints = response.get_output_by_name("keypoints").as_numpy()
    assert np.array_equal(keypoints, np.float32([case.keypoints]))


async def check_errors_are_told(case):
    async with client() as kserve:
        for parameters, status, words in (
            ({"timeout": 1}, 504, "late"),
            ({"max_exit": 0}, 400, "parameters.max_exit: found the number 0"),
        ):
            asked = request(case, file_input(case), **parameters)
            try:
                await kserve.infer(case.url, asked, model_name="street")
            except httpx.HTTPStatusError as error:
                assert error.response.status_code == status
                assert words in str(error)
            else:
                raise AssertionError(f"no error for {parameters}")


if __name__ == "__main__":
    harness.main(globals())
