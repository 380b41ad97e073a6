"""Tables and figures from records and fits. It draws and never fits."""
