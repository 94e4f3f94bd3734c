// Texts for programs, rewritten for people.

/** Rewrite times: 2026-11-29T05:22:13Z becomes 2026-11-29 05:22 UTC. */
export const plain = text => text.replace(/(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(\.\d+)?Z/g, '$1 $2 UTC');
