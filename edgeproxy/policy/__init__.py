"""From YAML to a typed policy, with a place for every fault."""
