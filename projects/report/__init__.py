"""From tested runs to tables and pages that people read."""
