"""From dumps to a report: who is compared with whom, what is measured, and how it is shown."""
