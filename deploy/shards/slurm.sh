#!/bin/bash
# Embeds a source in eight shards, the tasks of a Slurm array; a closing run completes the table.
#
#   $ array=$(sbatch --parsable deploy/shards/slurm.sh docs.toml)
#   $ sbatch --dependency=afterany:$array --cpus-per-task=8 --mem=8G --wrap "polylance run docs.toml --progress plain"
#
# Two of the eight again: POLYLANCE_SHARDS=8 sbatch --array=3,5 deploy/shards/slurm.sh docs.toml
#
#SBATCH --job-name=docs-shards
#SBATCH --array=0-7
#SBATCH --cpus-per-task=8
#SBATCH --mem=8G
#SBATCH --requeue
#SBATCH --open-mode=append
# The program gets SIGTERM a minute before the time limit, and commits its work.
#SBATCH --signal=B:TERM@60
# In a partition with GPUs, with one # less:
##SBATCH --gres=gpu:1

# A shard with rows in the quarantine ends with exit code 3, which Slurm shows as FAILED.
exec polylance run "${1:?the pipeline file is missing}" --shard auto --progress plain
