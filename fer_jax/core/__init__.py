"""The parts without machine learning: errors, commands, configs, run folders, devices."""
