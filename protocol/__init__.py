"""All that two processes agree on: settings, messages, channels, files, tables. It does nothing by itself."""
