"""Severity classes, their colours, and the maps from defect types to severity."""

CLASSES = ('critical', 'minor')
# RGB. Vermilion and sky blue are distinguishable with common colour-vision deficiencies (Okabe & Ito).
PALETTE = [(213, 94, 0), (86, 180, 233)]

# GDXray castings are annotated with one class.
GDXRAY_CLASSES = ('defect',)
GDXRAY_PALETTE = [(213, 94, 0)]

# Seven critical and twelve minor types, the scheme of Appl. Sci. 2024, 14(7), 2785, section 3.1.
# The paper does not name its types. These are common types of aluminium and iron castings (ASTM E155, E2422),
# and `synthetic/defects.py` draws them. A plant writes its own map.
CASTINGS = {
    'crack': 'critical',
    'hot_tear': 'critical',
    'cold_shut': 'critical',
    'misrun': 'critical',
    'core_break': 'critical',
    'shrinkage_cavity': 'critical',
    'blowhole': 'critical',
    'gas_pore': 'minor',
    'pinhole': 'minor',
    'pore_cluster': 'minor',
    'pore_chain': 'minor',
    'wormhole': 'minor',
    'shrinkage_sponge': 'minor',
    'shrinkage_filament': 'minor',
    'sand_inclusion': 'minor',
    'slag_inclusion': 'minor',
    'dense_inclusion': 'minor',
    'surface_pit': 'minor',
    'flash': 'minor',
}

# Maps by name, so that a config can say `severity='castings'`.
SEVERITY_MAPS = {'castings': CASTINGS}
