"""An application that answers every upload with the same bytes: the least that Ray's proxy adds.

`ray_proxy.py` starts it, by uvicorn on a port of its own and on the Ray that it measures:

    python bench/ray_bare.py FILE --port PORT
    python bench/ray_bare.py FILE
"""

import argparse
from pathlib import Path

import ray
import uvicorn
from fastapi import FastAPI, Request, Response
from ray import serve

NAME = "bare"


def application(body):
    """Reads what is uploaded, and answers with `body`."""
    app = FastAPI()

    @app.post("/answer")
    async def answer(request: Request):
        await request.body()
        return Response(body, media_type="application/octet-stream")

    @app.get("/readyz")
    async def ready():
        return Response()

    return app


def serve_on_ray(app):
    """Returns when the Ray of this machine has it, below `/bare`."""
    ray.init(address="auto", log_to_driver=False)
    deployment = serve.deployment(
        serve.ingress(app)(type("Bare", (), {})),
        ray_actor_options={"num_cpus": 0},
        logging_config={"enable_access_log": False},
    )
    serve.run(deployment.bind(), name=NAME, route_prefix=f"/{NAME}")


def main():
    """Serves, by uvicorn until a signal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--port", type=int)
    chosen = parser.parse_args()
    app = application(chosen.file.read_bytes())
    if chosen.port is None:
        serve_on_ray(app)
    else:
        uvicorn.run(app, port=chosen.port, log_level="warning")


if __name__ == "__main__":
    main()
