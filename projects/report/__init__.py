"""Reports: tables and pages for people, from tested runs."""
