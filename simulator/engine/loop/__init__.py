"""The parts of the compiled event loop; `kernel` puts them together."""
