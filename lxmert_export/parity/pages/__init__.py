"""A parity report for people and for CI: JUnit, Markdown and HTML, each made of the report's JSON and nothing else."""
