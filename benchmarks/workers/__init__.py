"""Workers: one small program for each library and each piece of work, run by `benchmarks.compare`."""
