"""The embedded platform: runs pipelines as local commands and keeps what became of them."""
