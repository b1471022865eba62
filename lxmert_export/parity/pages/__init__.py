"""A parity report for people and for CI: terminal, JUnit, Markdown and HTML. The last three need only the report's JSON."""
