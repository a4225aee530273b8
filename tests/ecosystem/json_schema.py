"""Validates JSON by JSON schemas, in an environment that has jsonschema-rs.

Reads a list of pairs from standard input: a schema, and the values that it must allow.
"""

import json
import sys

import jsonschema_rs

errors = [
    f"{list(error.instance_path)}: {error.message}"
    for schema, values in json.load(sys.stdin)
    for value in values
    for error in jsonschema_rs.validator_for(schema).iter_errors(value)
]
print("\n".join(errors))
sys.exit(bool(errors))
