"""Results for people and programs: terminal, JSON, JUnit, HTML. All read one :class:`~dossim.report.view.View`."""
