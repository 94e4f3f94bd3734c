"""One run of a study as a Kubernetes job, by kubectl: submitted, queried, cancelled.

Snakemake's own executor for Kubernetes assumes no shared file system and moves each file of a run through an
object store. A run's folder holds growing checkpoints and logs, which the study reads during the run.
Therefore all pods mount one volume, at the same path as on the machine that starts the study.
"""

import json
import os
import re
import shlex
import subprocess
import uuid
from pathlib import Path
from typing import Any

from projects.errors import MMXrayError


class KubernetesError(MMXrayError, RuntimeError):
    """A job cannot be submitted or queried; one line with the remedy."""


def manifest(script: Path, gpus: int, cpus: int, memory_mb: int, minutes: int) -> dict[str, Any]:
    """Return the job of a run.

    Args:
        script: Snakemake's job script, below the mounted path.
        gpus: Number of NVIDIA GPUs; 0 for none.
        cpus: Number of requested cores.
        memory_mb: Memory limit in MB.
        minutes: Time limit of the job.

    Raises:
        KubernetesError: `MMXRAY_IMAGE` or `MMXRAY_CLAIM` is not set or invalid, or the script lies elsewhere.
    """
    image, claim = os.environ.get('MMXRAY_IMAGE'), os.environ.get('MMXRAY_CLAIM', '')
    if not image:
        raise KubernetesError('MMXRAY_IMAGE: not set, expected the image of the pods; set it')
    named = re.fullmatch(r'([a-z0-9][a-z0-9.-]*):(/.*)', claim)
    if not named:
        raise KubernetesError(
            f'MMXRAY_CLAIM={claim}: expected CLAIM:PATH, such as mmxray:/mnt/mmxray; set it'
        )
    path, here = Path(named[2]), Path.cwd()
    for place in (script.resolve(), here):
        if not place.is_relative_to(path):
            raise KubernetesError(
                f'{place}: lies outside {path}, which the pods mount; start the study from a checkout on '
                'that volume, mounted at the same path'
            )
    limits = dict(memory=f'{memory_mb}M') | ({'nvidia.com/gpu': str(gpus)} if gpus else {})
    container = dict(
        name='run',
        image=image,
        command=['/bin/sh', '-c', f'cd {shlex.quote(str(here))} && exec sh {shlex.quote(str(script))}'],
        resources=dict(requests=dict(cpu=str(cpus), memory=f'{memory_mb}M'), limits=limits),
        volumeMounts=[dict(name='study', mountPath=str(path))],
    )
    pod = dict(
        restartPolicy='Never',
        containers=[container],
        volumes=[dict(name='study', persistentVolumeClaim=dict(claimName=named[1]))],
    )
    return dict(
        apiVersion='batch/v1',
        kind='Job',
        metadata=dict(name=f'mmxray-{uuid.uuid4().hex[:12]}', labels=dict(app='mmxray')),
        spec=dict(
            backoffLimit=0,  # the study decides which runs start again
            activeDeadlineSeconds=60 * minutes,
            ttlSecondsAfterFinished=7 * 24 * 3600,
            template=dict(metadata=dict(labels=dict(app='mmxray')), spec=pod),
        ),
    )


def submit(script: Path, gpus: int, cpus: int, memory_mb: int, minutes: int) -> str:
    """Submit a run; returns the name of its job. See `manifest`."""
    job = manifest(script, gpus, cpus, memory_mb, minutes)
    kubectl('create', '-f', '-', content=json.dumps(job))
    return job['metadata']['name']


def status(name: str) -> str:
    """Return 'running', 'success' or 'failed'; a job that is gone has failed."""
    answer = kubectl('get', 'job', name, '--ignore-not-found', '-o', 'json')
    if not answer.strip():
        return 'failed'
    try:
        state = json.loads(answer).get('status', {})
    except (ValueError, AttributeError):
        raise KubernetesError(
            f'kubectl get: expected a job in JSON, got {answer[:40]!r}; check kubectl'
        ) from None
    if state.get('succeeded'):
        return 'success'
    ended = any(c['type'] == 'Failed' and c['status'] == 'True' for c in state.get('conditions', []))
    return 'failed' if ended or state.get('failed') else 'running'


def cancel(names: list[str]) -> None:
    """Delete jobs and their pods."""
    kubectl('delete', 'job', '--ignore-not-found', *names)


def kubectl(*arguments: str, content: str | None = None) -> str:
    """Run kubectl; returns its output.

    Raises:
        KubernetesError: kubectl is missing or fails.
    """
    try:
        done = subprocess.run(
            ['kubectl', *arguments], input=content, capture_output=True, text=True, check=False, timeout=120
        )
    except FileNotFoundError:
        raise KubernetesError('kubectl: not found; install it, and log in to the cluster') from None
    except OSError as error:
        raise KubernetesError(f'kubectl: cannot be run ({error.strerror}); install it again') from None
    except subprocess.TimeoutExpired:
        raise KubernetesError(
            'kubectl: no answer of the cluster within 120 s; check the connection'
        ) from None
    if done.returncode:
        reason = ' '.join(done.stderr.split())[:300]
        raise KubernetesError(f'kubectl {arguments[0]}: {reason}; check account, namespace and quota')
    return done.stdout
