#!/usr/bin/env bash
# Delete the Kubernetes jobs of a study that ends early; Snakemake calls this script with their names.
exec python "$(dirname "$0")/kubernetes_job.py" cancel "$@"
