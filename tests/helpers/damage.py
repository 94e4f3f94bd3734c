"""Damage to bytes and to JSON, and a process of its own for what reads it."""

import json
import multiprocessing

from projects.benchmark import memory

HOSTILE = (
    b'1e999 -1 NaN -Infinity null {} [] "" 0x10 99999999999 ../../etc/passwd <!ENTITY &a; C:\\\\a'.split()
    + [b'9' * 5000, b'[' * 2000, b'{"a":' * 2000, b'<a>' * 5000, b'\xff\xfe', b'\0', b'&a: [*a, *a]']
)
# What stands in place of a part of a JSON file, and in place of a file's name.
WRONG = (5, '12', None, True, [], {}, [5], [[]], 'x' * 300, {'a': [1]}, -1, 0.5, 1e300, '\0', '\ud800')


def mutate(data, rng):
    """A damaged copy: cut, flipped, overwritten, filled, spliced, or with an absurd number in its head."""
    data = bytearray(data)
    at = rng.randrange(len(data))
    head = rng.randrange(min(len(data), 600))
    kind = rng.randrange(8)
    if kind == 0:
        del data[at:]
    elif kind == 1:
        for _ in range(rng.choice((1, 8, 64))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 2:
        data[head] ^= 1 << rng.randrange(8)
    elif kind == 3:
        number = rng.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 65535, 60_000))
        data[head : head + 4] = number.to_bytes(4, rng.choice(('little', 'big')))
    elif kind == 4:
        data[at : at + rng.randrange(1, 500)] = bytes([rng.choice((0, 255))]) * 100
    elif kind == 5:
        data[at:at] = rng.randbytes(rng.randrange(1, 500))
    elif kind == 6:
        data[head : head + 8] = rng.randbytes(8)
    else:
        data[:4] = rng.choice((b'II*\0', b'MM\0*', b'II+\0', b'\x89PNG', b'\xff\xd8\xff\xe0', b'BM\0\0'))
    return bytes(data)


def peak_memory():
    """This process's own peak in GiB."""
    return memory.peak_memory() / 2**30


def in_process(work, *args, seconds):
    """What `work(*args)` returns in a process of its own, which is killed after so many seconds.

    Its peak memory is its own, and a crash is a failure, not the end.
    """
    context = multiprocessing.get_context('spawn')
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(there, work, args), daemon=True)
    process.start()
    there.close()
    try:
        assert here.poll(seconds), f'no end within {seconds} s'
        found = here.recv()
    finally:
        process.kill()
        process.join(60)
    if isinstance(found, Exception):
        raise found
    return found


def _answer(pipe, work, args):
    try:
        pipe.send(work(*args))
    except Exception as error:
        pipe.send(error)


def check_mutations(work, seed, count):
    refused_files, longest, peak = in_process(work, seed, count, seconds=120 + count)
    assert count * 0.3 < refused_files <= count
    assert longest < 5  # seconds of CPU time: a hang
    assert peak < 1  # GiB


def restructure(data, rng):
    """A JSON text with another kind of value somewhere in it."""
    value = json.loads(data)
    holder, key, node = None, None, value
    while isinstance(node, dict | list) and node and (holder is None or rng.random() < 0.8):
        holder = node
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        node = node[key]
    holder[key] = rng.choice(WRONG)
    return json.dumps(value).encode()
