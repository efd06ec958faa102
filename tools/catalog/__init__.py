"""The runs of a store: manifests, markers, history, identity."""
