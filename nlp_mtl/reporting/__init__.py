"""What a run did, drawn: ``report.json`` for programs, ``report.html`` for people, figures for notebooks."""
