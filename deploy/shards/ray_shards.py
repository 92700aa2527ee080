"""Embeds a source in shards, the tasks of a Ray cluster; a closing run completes the table.

    $ ray job submit --working-dir . -- python deploy/shards/ray_shards.py docs.toml --shards 64 --gpus 1

Every node has `polylance`. Ray does not bind a task to its CPUs: without GPUs, `--cpus` is the number of a whole node.
"""

import argparse
import subprocess
import sys


def run_shard(pipeline, *shard):
    """Runs a shard (`"--shard", "3/8"`), or the closing run."""
    command = ["polylance", "run", pipeline, *shard, "--progress", "plain"]
    code = subprocess.run(command, check=False).returncode
    if code == 2:
        raise ValueError("the configuration is wrong")  # on every node, so Ray does not retry it
    if code not in (0, 3):  # 3: done, with rows in the quarantine
        raise subprocess.CalledProcessError(code, command)


def main():
    import ray

    parser = argparse.ArgumentParser()
    parser.add_argument("pipeline")
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--cpus", type=float, default=1)
    parser.add_argument("--gpus", type=float, default=0)
    args = parser.parse_args()
    retried = {"max_retries": 4, "retry_exceptions": [subprocess.CalledProcessError]}
    task = ray.remote(num_cpus=args.cpus, num_gpus=args.gpus, **retried)(run_shard)
    for shard in [task.remote(args.pipeline, "--shard", f"{index}/{args.shards}") for index in range(args.shards)]:
        try:
            ray.get(shard)
        except ray.exceptions.RayError as error:  # The closing run embeds what a shard left.
            print(error, file=sys.stderr)
    ray.get(task.remote(args.pipeline))


if __name__ == "__main__":
    main()
