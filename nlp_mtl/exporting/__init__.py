"""What was trained leaves the toolkit: vanilla folders, vanilla PEFT adapters and ONNX graphs that need no nlp_mtl.

:func:`nlp_mtl.exporting.export.export_task` is the way in; it compares every export with the run before it is put in
its place.
"""
