"""Prints the Kubernetes objects of the YAML on standard input as a JSON array, if they agree with the API's schemas."""

import json
import pathlib
import sys

import jsonschema
import yaml

schemas = json.loads(pathlib.Path(__file__).parents[1].joinpath("data/kubernetes-1.33.json").read_text())
objects = list(yaml.safe_load_all(sys.stdin))
errors = []
for found in objects:
    validator = jsonschema.Draft202012Validator({**schemas, "$ref": f"#/$defs/{found['kind']}"})
    errors += [f"{found['kind']}: {error.json_path}: {error.message}" for error in validator.iter_errors(found)]
if errors:
    sys.exit("\n".join(errors))
json.dump(objects, sys.stdout)
