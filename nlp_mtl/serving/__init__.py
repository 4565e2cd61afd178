"""A run over HTTP, and as a page to try it: ``nlp-mtl serve`` and ``nlp-mtl demo``.

:func:`nlp_mtl.serving.app.make_app` makes the ASGI application, :func:`nlp_mtl.serving.server.serve` runs it until it
is told to stop, :func:`nlp_mtl.serving.demo.make_demo` makes the page.
"""
