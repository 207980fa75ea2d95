"""Training in Lightning: the module, the callbacks, and what the machine does well."""
