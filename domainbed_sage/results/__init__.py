"""From the records that runs leave behind to tables and pictures; nothing here trains."""
