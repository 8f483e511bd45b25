"""What all who speak DICOMweb (PS3.18) share: the exporter, the retriever, and the command line.

`multipart` reads what WADO-RS sends, part by part, whatever its size; `auth` makes the headers of a server's
credentials; `http` makes the client that carries both.
"""
