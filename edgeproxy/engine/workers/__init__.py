"""Several processes that serve as one.

`supervisor` starts them, watches them and changes policies in all or none; `child` is one of them
as it sees it, `worker` the same from within, `channel` what the two talk over. `hub` has what
workers have in common and no process can hold alone; `answers` makes one answer of theirs for
the admin listener.
"""
