"""Requests byte for byte as `tritonclient[http]` 2.73 writes them, without needing it.

The sync client writes through geventhttpclient, the asynchronous one through aiohttp, which asks
for compressed answers by itself.
"""

SYNC_PIXELS = (
    b"POST /v2/models/street/infer HTTP/1.1\r\n"
    b"User-Agent: python/gevent-http-client-2.6.1\r\n"
    b"Inference-Header-Content-Length: 234\r\n"
    b"Host: 127.0.0.1:8000\r\n"
    b"Content-Length: 246\r\n"
    b"\r\n"
    b'{"id":"r1","inputs":[{"name":"pixels","shape":[1,2,2,3],"datatype":"UINT8",'
    b'"parameters":{"binary_data_size":12}}],"outputs":[{"name":"map",'
    b'"parameters":{"binary_data":true}}],'
    b'"parameters":{"priority":2,"timeout":5000000,"max_exit":3}}'
    b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b"
)
"""The pixels of an image of 2x2 px; wants the map behind the JSON."""


def async_file(image: bytes) -> bytes:
    """An image file; wants all outputs behind the JSON, and may get them compressed."""
    text = (
        b'{"inputs":[{"name":"image","shape":[1],"datatype":"BYTES",'
        b'"parameters":{"binary_data_size":%d}}],"parameters":{"binary_data_output":true}}'
    ) % (len(image) + 4)
    body = text + len(image).to_bytes(4, "little") + image
    head = (
        "POST /v2/models/street/infer HTTP/1.1\r\n"
        "Host: 127.0.0.1:8000\r\n"
        f"Inference-Header-Content-Length: {len(text)}\r\n"
        "Accept: */*\r\n"
        "Accept-Encoding: gzip, deflate, br\r\n"
        "User-Agent: Python/3.11 aiohttp/3.14.5\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Content-Type: application/octet-stream\r\n"
        "\r\n"
    )
    return head.encode() + body
