"""The exporter: results → C-STORE and STOW-RS destinations. Owner of the tasks and deliveries."""
