"""The run as its passes see it, in the same process or in another one."""
