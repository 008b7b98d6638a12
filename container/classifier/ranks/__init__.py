"""The ranks of a host: started, watched and ended together with those of the job's other hosts."""
