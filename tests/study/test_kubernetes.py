"""A study on Kubernetes: dry-run with the profile, and carried out by a kubectl that runs pods here."""

import json
import re
import subprocess
import sys

import pytest

from projects.study import kubernetes, launch
from tools import kubernetes_job as tool


@pytest.fixture
def plan(tmp_path):
    """A training over four GPUs, and its test, as `launch.entry` writes them."""
    common = dict(priority=1, minutes=90)
    jobs = [
        dict(name='train_a', needs=[], marker='a/trained', gpu=4, command='touch a/trained', **common),
        dict(
            name='test_a', needs=['a/trained'], marker='a/tested', gpu=0, command='touch a/tested', **common
        ),
    ]
    folder = tmp_path / 'study'
    folder.mkdir()
    (folder / 'plan.json').write_text(json.dumps(jobs))
    return folder


def snakemake(repo, folder, *options):
    command = [sys.executable, '-m', 'snakemake', '--snakefile', str(repo / 'projects/study/study.smk')]
    command += ['--directory', str(folder), '--config', f'plan={folder / "plan.json"}']
    command += ['--profile', 'configs/study/kubernetes', *options]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=280, cwd=repo, env=launch.environment()
    )


def test_the_plan_is_dry_run_with_the_profile(repo, plan, cluster):
    shown = snakemake(repo, plan, '--dry-run')
    assert shown.returncode == 0, shown.stdout + shown.stderr
    for name, gpus in (('train_a', 4), ('test_a', 0)):
        text = re.search(rf'rule {name}:.*?resources: ([^\n]*)', shown.stdout + shown.stderr, re.DOTALL)[1]
        for wanted in (f'gpu={gpus}', 'runtime=90', 'mem_mb=64000', 'cpus_per_task=16'):
            assert wanted in text
    assert list(cluster.iterdir()) == []


@pytest.mark.slow
def test_the_study_is_carried_out_in_pods(repo, plan, cluster):
    done = snakemake(repo, plan, '--latency-wait', '5', '--seconds-between-status-checks', '1')
    assert done.returncode == 0, done.stdout + done.stderr
    assert (plan / 'a' / 'trained').is_file() and (plan / 'a' / 'tested').is_file()
    jobs = [json.loads(file.read_text()) for file in cluster.iterdir()]
    limits = [job['spec']['template']['spec']['containers'][0]['resources']['limits'] for job in jobs]
    assert sorted(limit.get('nvidia.com/gpu', '0') for limit in limits) == ['0', '4']
    for job in jobs:
        pod = job['spec']['template']['spec']
        assert pod['containers'][0]['image'] == 'registry/mmxray:1' and pod['restartPolicy'] == 'Never'
        assert pod['volumes'] == [dict(name='study', persistentVolumeClaim=dict(claimName='mmxray'))]
        assert pod['containers'][0]['volumeMounts'] == [dict(name='study', mountPath='/')]
        assert job['spec']['activeDeadlineSeconds'] == 5400 and job['spec']['backoffLimit'] == 0


def test_the_jobs_of_a_study_that_ends_early_are_deleted(repo, cluster):
    for name in ('a', 'b'):
        (cluster / name).write_text('{}')
    subprocess.run(['kubernetes_cancel.sh', 'a', 'b'], check=True, env=launch.environment(), timeout=60)
    assert list(cluster.iterdir()) == []


def test_a_job_that_fails_or_is_gone_has_failed(tmp_path, cluster, capsys):
    script = tmp_path / 'job.sh'
    for content, state in (('exit 3', 'failed'), ('exit 0', 'success')):
        script.write_text(content)
        assert tool.main(['submit', str(script), '--gpus', '1']) == 0
        name = capsys.readouterr().out.strip()
        assert tool.main(['status', name]) == 0 and capsys.readouterr().out.strip() == state
        assert tool.main(['cancel', name]) == 0
        assert tool.main(['status', name]) == 0 and capsys.readouterr().out.strip() == 'failed'


@pytest.mark.parametrize(
    ('state', 'expected'),
    [
        ({}, 'running'),
        (dict(active=1), 'running'),
        (dict(conditions=[dict(type='Failed', status='True')]), 'failed'),
        (dict(conditions=[dict(type='Suspended', status='True')], active=1), 'running'),
        (dict(succeeded=1), 'success'),
    ],
)
def test_states_of_a_job(cluster, state, expected):
    (cluster / 'a').write_text(json.dumps(dict(status=state)))
    assert kubernetes.status('a') == expected


def test_what_is_missing_is_one_line(tmp_path, cluster, monkeypatch, capsys):
    script = tmp_path / 'job.sh'
    script.write_text('exit 0')

    def refused(message):
        assert tool.main(['submit', str(script)]) == 1
        errors = capsys.readouterr().err
        assert message in errors and errors.count('\n') == 1

    monkeypatch.setenv('MMXRAY_CLAIM', 'mmxray:/elsewhere')
    refused('lies outside /elsewhere, which the pods mount')
    monkeypatch.setenv('MMXRAY_CLAIM', 'mmxray')
    refused('MMXRAY_CLAIM=mmxray: expected CLAIM:PATH')
    monkeypatch.setenv('MMXRAY_CLAIM', 'mmxray:/')
    (tmp_path / 'bin' / 'kubectl').write_text('#!/bin/sh\necho "quota\nexceeded" >&2; exit 1\n')
    refused('kubectl create: quota exceeded; check account')
    assert tool.main(['status', 'a']) == 0  # the pod goes on
    errors = capsys.readouterr()
    assert errors.out == 'running\n' and 'quota exceeded' in errors.err
    monkeypatch.setenv('PATH', str(tmp_path))
    refused('kubectl: not found')
    monkeypatch.delenv('MMXRAY_IMAGE')
    refused('MMXRAY_IMAGE: not set')
