"""`tritonclient.http`, as Triton's users write it."""

import harness
import numpy as np
import tritonclient.http as triton


def file_input(case):
    tensor = triton.InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([case.file], dtype=np.object_))
    return tensor


def pixels_input(case, *, binary=True):
    pixels = np.frombuffer(case.pixels, np.uint8).reshape(case.shape)
    tensor = triton.InferInput("pixels", case.shape, "UINT8")
    tensor.set_data_from_numpy(pixels, binary_data=binary)
    return tensor


def infer(case, tensor, model="street", **options):
    options.setdefault("parameters", {"max_exit": case.max_exit})
    with triton.InferenceServerClient(case.address) as client:
        return client.infer(model, [tensor], **options)


def assert_map(case, result):
    labels = result.as_numpy("map")
    assert (labels.dtype, list(labels.shape)) == (np.uint8, case.shape[:3])
    assert labels.ravel().tolist() == case.labels


def check_health(case):
    with triton.InferenceServerClient(case.address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("street")
        assert client.is_model_ready("street", "1")
        assert not client.is_model_ready("street", "2")
        assert not client.is_model_ready("nobody")


def check_metadata(case):
    with triton.InferenceServerClient(case.address) as client:
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        model = client.get_model_metadata("street", "1")
        assert [tensor["name"] for tensor in model["inputs"]] == ["image", "pixels"]
        assert [tensor["name"] for tensor in model["outputs"]] == ["map", "confidence"]


def check_all_outputs_of_a_file(case):
    result = infer(case, file_input(case), request_id="mine")
    assert_map(case, result)
    confidence = result.as_numpy("confidence")
    assert (confidence.dtype, list(confidence.shape)) == (np.uint8, case.shape[:3])
    response = result.get_response()
    assert (response["id"], response["model_version"]) == ("mine", "1")
    assert response["parameters"]["exit"] == case.max_exit
    assert response["parameters"]["reason"] == "budget"


def check_tensors_in_json_and_binary(case):
    for binary_input in (True, False):
        for binary_output in (True, False):
            wanted = [triton.InferRequestedOutput("map", binary_data=binary_output)]
            result = infer(case, pixels_input(case, binary=binary_input), outputs=wanted)
            assert_map(case, result)
            assert ("data" in result.get_output("map")) != binary_output
            assert result.as_numpy("confidence") is None


def check_compression_both_ways(case):
    for request in (None, "gzip", "deflate"):
        for response in (None, "gzip", "deflate"):
            for tensor in (file_input(case), pixels_input(case, binary=False)):
                result = infer(
                    case,
                    tensor,
                    request_compression_algorithm=request,
                    response_compression_algorithm=response,
                )
                assert_map(case, result)


def check_keypoints(case):
    result = infer(case, file_input(case), model="pose", model_version="1")
    keypoints = result.as_numpy("keypoints")
    assert keypoints.dtype == np.float32
    assert np.array_equal(keypoints, np.float32([case.keypoints]))


def check_priority_and_timeout(case):
    result = infer(case, file_input(case), priority=1, timeout=20_000_000)
    assert_map(case, result)
    error = harness.expect_error(
        triton.InferenceServerException, lambda: infer(case, file_input(case), timeout=1), "late"
    )
    assert error.status() == "504"


def check_errors_are_told(case):
    for options, status, words in (
        ({"outputs": [triton.InferRequestedOutput("mask")]}, "400", "expected one of map"),
        ({"parameters": {"max_exits": 1}}, "400", "parameters.max_exits"),
        ({"model": "nobody"}, "404", "expected one of"),
        ({"model_version": "2"}, "404", "version"),
        ({"sequence_id": 5}, "400", "sequence_id"),
    ):
        error = harness.expect_error(
            triton.InferenceServerException,
            lambda options=options: infer(case, file_input(case), **options),
            words,
        )
        assert error.status() == status


def check_requests_at_a_time(case):
    with triton.InferenceServerClient(case.address, concurrency=4) as client:
        parameters = {"max_exit": case.max_exit}
        pending = [
            client.async_infer("street", [pixels_input(case)], parameters=parameters)
            for _ in range(8)
        ]
        for request in pending:
            assert_map(case, request.get_result())


def check_statistics(case):
    with triton.InferenceServerClient(case.address) as client:
        (before,) = client.get_inference_statistics("street")["model_stats"]
        infer(case, file_input(case))
        (after,) = client.get_inference_statistics("street", "1")["model_stats"]
        assert after["inference_count"] == before["inference_count"] + 1
        compute, earlier = (s["inference_stats"]["compute_infer"] for s in (after, before))
        assert compute["ns"] > earlier["ns"]
        everything = client.get_inference_statistics()["model_stats"]
        assert {model["name"] for model in everything} == {"street", "pose"}


if __name__ == "__main__":
    harness.main(globals())
