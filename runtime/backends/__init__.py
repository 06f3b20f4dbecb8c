"""The two graphs of an engine on a device: which library runs them, behind one interface."""
