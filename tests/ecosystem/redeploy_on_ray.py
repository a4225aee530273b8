"""Deploys the application with other settings onto the Ray of this machine; runs where Ray is.

python redeploy_on_ray.py '{"replicas": "3"}'
"""

import json
import sys

import ray
from ray import serve

from anytime_server.ray_serve.deployment import application
from anytime_server.ray_serve.settings import NAME, RaySettings

ray.init(address="auto", log_to_driver=False)
serve.run(application(RaySettings(**json.loads(sys.argv[1]))), name=NAME, route_prefix="/")
