# Snakemake's rules of a study: one rule per job of the plan that tools/study.py wrote.
import json
from pathlib import Path

plan = json.loads(Path(config['plan']).read_text())


rule all:
    input:
        [job['marker'] for job in plan],


for job in plan:

    rule:
        name:
            job['name']
        input:
            job['needs'],
        output:
            job['marker'],
        threads: 1
        priority: job['priority']
        resources:
            gpu=job['gpu'],  # the Slurm executor reads this name
            runtime=job['minutes'],
        params:
            command=job['command'],
        shell:
            '{params.command}'
