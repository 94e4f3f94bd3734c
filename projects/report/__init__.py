"""From tested runs to tables and pages for people."""
