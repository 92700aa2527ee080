"""Writes the JSON Schemas of the Kubernetes objects in deploy/, without descriptions, to kubernetes-1.33.json.

    pip install kubernetes-validate==1.37.0
    python tests/data/make_kubernetes_schemas.py

The package has all objects of 13 versions, 108 MB. Unknown fields are errors in its strict schemas. 1.33 is the first
version in which every field in deploy/ is stable.
"""

import json
import pathlib

import kubernetes_validate

KINDS = {
    "ConfigMap": "configmap-v1",
    "CronJob": "cronjob-batch-v1",
    "Job": "job-batch-v1",
    "Deployment": "deployment-apps-v1",
    "NetworkPolicy": "networkpolicy-networking-v1",
    "PersistentVolumeClaim": "persistentvolumeclaim-v1",
    "Service": "service-v1",
    "ServiceAccount": "serviceaccount-v1",
}

folder = pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema/v1.33.0-local-strict"
definitions = json.loads((folder / "_definitions.json").read_text())["$defs"]
used = {}


def plain(schema, of_names=False):
    """The schema without descriptions, and its definitions in `used`. The keys of `of_names` are names of fields."""
    if isinstance(schema, list):
        return [plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {}
    for key, value in schema.items():
        if not of_names and (key == "description" or key.startswith("x-kubernetes-")):
            continue
        if not of_names and key == "$ref":
            name = value.rsplit("/", 1)[1]
            kept[key] = f"#/$defs/{name}"
            if name not in used:
                used[name] = None
                used[name] = plain(definitions[name])
        else:
            kept[key] = plain(value, key == "properties" and not of_names)
    return kept


for kind, file in KINDS.items():
    schema = plain(json.loads((folder / f"{file}.json").read_text()))
    # Without them, an object is of no kind.
    required = sorted({*schema.get("required", []), "apiVersion", "kind", "metadata"})
    used[kind] = {"properties": schema["properties"], "required": required, "additionalProperties": False}
lines = [f"{json.dumps(name)}: {json.dumps(schema)}" for name, schema in sorted(used.items())]
target = pathlib.Path(__file__).with_name("kubernetes-1.33.json")
target.write_text('{"$defs": {\n' + ",\n".join(lines) + "\n}}\n")
