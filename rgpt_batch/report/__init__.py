"""A report of a job: what its output folder tells, as one HTML page and as Markdown.

runs, rows, quality → facts.gather → time_plots, value_plots → render.write_report
"""

from rgpt_batch.report.facts import Report, gather
from rgpt_batch.report.render import to_html, to_markdown, write_report

__all__ = ["Report", "gather", "to_html", "to_markdown", "write_report"]
