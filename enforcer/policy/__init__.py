"""What the operator wrote: resources, loaded with their positions, validated, compiled to a RuleTable.

Pure but for reading files.
"""
