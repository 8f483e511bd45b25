"""Job processors of other packages, each in a host process of its own, so that what one does wrong harms it alone.

`process` starts a host and ends it, `host` is the program that runs there, `calls` is what both sides say, `limits` is
how long they are waited for and what they may take. The processor actor keeps a host for each AE title that is at work;
the API starts one for each check of settings.
"""
