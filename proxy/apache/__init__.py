"""Apache's configuration, read and turned into ours.

``reader`` turns files into a ``tree`` of directives: continuation, quotes, sections, includes,
conditions. ``directives`` and ``importer`` say what they mean: a setting, a *notice* why not, or a
mistake where serving would be wrong without it. Nothing here prints, and nothing starts. What is
written out and run goes through ``core.settings`` like any other configuration.
"""
