"""The operator's resources: loaded with their positions, validated, compiled to a RuleTable.

Pure, except for reading files.
"""
