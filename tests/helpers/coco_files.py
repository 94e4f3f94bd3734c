"""COCO objects as converters and labelling tools write them, for tests of their readers."""

import random


def any_coco(images: int, seed: int = 0) -> dict:
    """Return images with boxes, masks, crowd, parts, series and fields that only some records carry."""
    draw = random.Random(seed)
    coco = dict(
        info=dict(description='drawn', group='P[0-9]+', ledger=dict(images={'in': images})),
        licenses=[],
        images=[],
        categories=[dict(id=3, name='crack', supercategory='flaw'), dict(id=5, name='gas_pore')],
        annotations=[],
    )
    for number in range(images):
        image = dict(
            id=7 + 2 * number, file_name=f'P{number // 3:03d}/ä view {number}.png', width=100, height=80
        )
        image |= [{}, dict(part=f'P{number // 3:03d}'), dict(part=number), dict(series='C1', date=None)][
            number % 4
        ]
        coco['images'].append(image)
    for number in range(3 * images):
        x, y = draw.randint(0, 60), draw.uniform(0, 50)
        box = [x, y, draw.randint(5, 30), draw.uniform(5, 25)]
        mask = [
            {},
            dict(segmentation=[[x, y, x + 5.5, y, x + 5, y + 4]]),
            dict(segmentation=dict(size=[80, 100], counts=[10, 20, 7970])),
            dict(segmentation=dict(size=[80, 100], counts='PP02')),
            dict(segmentation=[]),
        ][number % 5]
        flags = [{}, dict(iscrowd=0), dict(iscrowd=1), dict(iscrowd=0, ignore=1), dict(ignore=True)][
            number % 7 % 5
        ]
        extra = dict(clipped_from=[-1, 2.5, 3, 4], cnr=2.5, flaw=f'f{number}') if number % 4 == 0 else {}
        coco['annotations'].append(
            dict(
                id=number + 1,
                image_id=draw.choice(coco['images'])['id'],
                category_id=draw.choice([3, 5]),
                bbox=box,
                area=draw.choice([12, 12.5]),
                **mask,
                **flags,
                **extra,
            )
        )
    return coco
