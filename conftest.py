pytest_plugins = ["audit.plugin"]
