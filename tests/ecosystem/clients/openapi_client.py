"""`open-inference-openapi`, made from the protocol's own OpenAPI document; JSON alone."""

import base64

import harness
from open_inference.openapi import InferenceRequest, RequestInput, RequestOutput, TensorData
from open_inference.openapi.client import AsyncOpenInferenceClient, OpenInferenceClient
from open_inference.openapi.core.api_error import ApiError
from open_inference.openapi.errors import BadRequestError, NotFoundError

OUTPUTS = [RequestOutput(name="map")]


def data(values):
    return TensorData(__root__=values)


def file_request(case, **fields):
    text = base64.b64encode(case.file).decode()
    tensor = RequestInput(name="image", shape=[1], datatype="BYTES", data=data([text]))
    fields.setdefault("parameters", {"max_exit": case.max_exit})
    return InferenceRequest(inputs=[tensor], **fields)


def assert_map(case, response):
    (output,) = (output for output in response.outputs if output.name == "map")
    assert (output.datatype, output.shape) == ("UINT8", case.shape[:3])
    assert [int(value) for value in output.data.__root__] == case.labels


def check_health(case):
    client = OpenInferenceClient(base_url=case.url)
    client.check_server_liveness()
    client.check_server_readiness()
    client.check_model_readiness("street")
    client.check_model_version_readiness("street", "1")
    harness.expect_error(NotFoundError, lambda: client.check_model_readiness("nobody"))


def check_metadata(case):
    client = OpenInferenceClient(base_url=case.url)
    assert "statistics" in client.read_server_metadata().extensions
    for model in (
        client.read_model_metadata("street"),
        client.read_model_version_metadata("street", "1"),
    ):
        assert [tensor.datatype for tensor in model.inputs] == ["BYTES", "UINT8"]


def check_a_file(case):
    client = OpenInferenceClient(base_url=case.url)
    response = client.model_infer("street", request=file_request(case, id="mine"))
    assert (response.id, response.model_version) == ("mine", "1")
    assert [output.name for output in response.outputs] == ["map", "confidence"]
    assert response.parameters["exit"] == case.max_exit
    assert_map(case, response)


def check_pixels(case):
    client = OpenInferenceClient(base_url=case.url)
    tensor = RequestInput(
        name="pixels", shape=case.shape, datatype="UINT8", data=data(list(case.pixels))
    )
    request = InferenceRequest(
        inputs=[tensor], outputs=OUTPUTS, parameters={"max_exit": case.max_exit}
    )
    assert_map(case, client.model_version_infer("street", "1", request=request))


def check_keypoints(case):
    client = OpenInferenceClient(base_url=case.url)
    response = client.model_infer("pose", request=file_request(case))
    values = response.outputs[0].data.__root__
    expected = [value for joint in case.keypoints for value in joint]
    assert all(abs(a - b) < 1e-4 for a, b in zip(values, expected, strict=True))


def check_errors_are_told(case):
    client = OpenInferenceClient(base_url=case.url)
    request = file_request(case, parameters={"max_exit": 0})
    error = harness.expect_error(
        BadRequestError, lambda: client.model_infer("street", request=request)
    )
    assert "parameters.max_exit: found the number 0" in error.body["error"]
    late = file_request(case, parameters={"timeout": 1})
    error = harness.expect_error(ApiError, lambda: client.model_infer("street", request=late))
    assert error.status_code == 504


async def check_the_asynchronous_client(case):
    client = AsyncOpenInferenceClient(base_url=case.url)
    await client.check_server_readiness()
    assert_map(case, await client.model_infer("street", request=file_request(case)))


if __name__ == "__main__":
    harness.main(globals())
